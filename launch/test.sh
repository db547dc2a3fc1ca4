#!/bin/sh
# Sets up .venv in this checkout where that is still to be done, then runs the fast tests, or all with --all.
# Further arguments go to pytest: launch/test.sh -k ips
# Two files are tested at a time: much of the time of tests that start Ray is waiting. Those with many slow tests come
# first (tests/conftest.py orders them), so that both processes are busy to the end.
set -eu
# shellcheck source=launch/setup.sh
. "$(dirname -- "$0")/setup.sh"

all=
for argument; do
    shift
    if [ "$argument" = --all ]; then all=yes; else set -- "$@" "$argument"; fi
done
[ "$all" ] || set -- -m "not slow" "$@"

prepare test
cd "$root"
exec python -m pytest -n 2 --dist loadfile --no-loadscope-reorder "$@"
