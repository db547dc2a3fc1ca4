# shellcheck shell=sh
# Sourced by the scripts beside it: `prepare run` (or `prepare test`) makes sure that .venv in this checkout holds
# the project, what it needs (and the test tools), and puts its programs first on PATH.
#
# .venv/launch.state tells how the last start left it: "installing" (found again: it was interrupted, so .venv is made
# anew), or the checkout's place, a checksum of what was asked for, and `run` or `test`. It is all a later start reads.

root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd -P)
venv=$root/.venv
pins=$root/launch/constraints.txt

die() { # die STATUS SENTENCE
    echo "$2" >&2
    exit "$1"
}

prepare() { # prepare run|test
    if ! is_ready "$1"; then
        find_python
        [ -w "$root" ] || die 2 "No environment can be made in $root: the folder is not writable."
        # A subshell, so that its end gives the lock back.
        (
            lock
            is_ready "$1" || install "$1"
        )
    fi
    PATH=$venv/bin:$PATH
    export PATH
}

is_ready() { # is_ready run|test
    [ -x "$venv/bin/python" ] && [ -x "$venv/bin/kdsearch" ] && [ -r "$venv/launch.state" ] || return 1
    state=$(cat "$venv/launch.state")
    [ "$state" = "$root $(checksum) $1" ] || [ "$state" = "$root $(checksum) test" ]
}

checksum() {
    cat "$root/pyproject.toml" "$pins" | cksum
}

find_python() { # sets python to the path of one that will do
    versions=
    for name in python3 python3.13 python3.12 python3.11; do
        version=$("$name" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null) || continue
        case $version in
            3.11 | 3.12 | 3.13)
                python=$("$name" -c 'import sys; print(sys._base_executable)')
                return
                ;;
        esac
        versions="$versions${versions:+, }$name is $version"
    done
    die 2 "kdsearch needs Python 3.11, 3.12 or 3.13 on PATH, but ${versions:-no python3 is there}."
}

lock() { # Python's flock: the command of that name is not everywhere. An end of any kind, kill -9 too, gives it back.
    exec 9>>"$pins"
    "$python" -c '
import fcntl, sys
try:
    fcntl.flock(9, fcntl.LOCK_EX | fcntl.LOCK_NB)
except BlockingIOError:
    print("another start is setting up .venv: waiting for it", file=sys.stderr)
    fcntl.flock(9, fcntl.LOCK_EX)
except OSError:
    pass  # a file system that has no locks
'
}

install() { # install run|test
    if uv --version >/dev/null 2>&1; then uv=uv; else uv=$venv/bin/uv; fi
    [ "$uv" = uv ] || [ -x "$uv" ] || "$python" -c 'import ensurepip, venv' 2>/dev/null ||
        die 2 "$python lacks venv or pip, which the first start needs (Debian and Ubuntu: apt install python3-venv)."
    echo "setting up $venv: a few minutes the first time" >&2
    clear_unless_usable
    mkdir -p "$venv"
    echo installing >"$venv/launch.state"
    [ -x "$venv/bin/python" ] || make_environment
    [ "$uv" = uv ] || [ -x "$uv" ] || bring_uv
    [ "$1" = test ] && extra='[test]' || extra=
    # Compiled here, once: where Python may keep no bytecode (PYTHONDONTWRITEBYTECODE, a folder that only root writes)
    # each process would compile torch and ray anew, which doubles what a search takes to start.
    "$uv" pip install --python "$venv/bin/python" --constraint "$pins" --build-constraint "$pins" --compile-bytecode \
        --editable "$root$extra" || die 1 "The installation failed for the reason above; the next start begins it anew."
    echo "$root $(checksum) $1" >"$venv/launch.state"
}

clear_unless_usable() { # an environment that a person made here is kept and added to
    case $(cat "$venv/launch.state" 2>/dev/null) in
        '' | "$root "*) ! "$venv/bin/python" -c '' 2>/dev/null || return 0 ;;
    esac
    # The state goes last: what an interruption leaves of this must not look like somebody's own.
    [ ! -d "$venv" ] || find "$venv" -mindepth 1 -maxdepth 1 ! -name launch.state -exec rm -rf {} +
}

make_environment() {
    if [ "$uv" = uv ]; then
        uv venv --quiet --allow-existing --no-project --no-python-downloads --python "$python" "$venv"
    else
        "$python" -m venv "$venv"
    fi
}

bring_uv() {
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --constraint "$pins" uv ||
        die 1 "pip could not install uv for the reason above; the next start tries again."
}
