"""The launch scripts: set up once, repair what was interrupted, start fast, and say in one sentence what is missing."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
import tomllib
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

ROOT = Path(__file__).parents[2]
CONSTRAINTS = ROOT / "launch" / "constraints.txt"
SCRIPTS = [*sorted((ROOT / "launch").glob("*.sh")), ROOT / ".ci" / "run"]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

# A checkout without the gigabytes: the same scripts set up a project that has no dependencies.
SMALL_PROJECT = """
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"
[project]
name = "kdsearch"
version = "0"
optional-dependencies = { test = ["pytest", "pytest-xdist"] }
scripts = { kdsearch = "kdsearch:main" }
"""
SMALL_PROGRAM = """
import os, sys
def main():
    print("started in", os.getcwd(), "with", *sys.argv[1:])
"""
SMALL_TESTS = """
import pytest
def test_fast(): assert True
@pytest.mark.slow
def test_slow(): assert True
"""
# Stands before the real uv on PATH and writes down how it was called.
SPY = '#!/bin/sh\necho "$1" >>"{calls}"\n{then}\nexec "{uv}" "$@"\n'


def run(command: list[str | Path], **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(word) for word in command], capture_output=True, text=True, check=False, **options)


def executable(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return path


@pytest.fixture(autouse=True)
def _no_options_of_the_outer_pytest(monkeypatch: pytest.MonkeyPatch) -> None:
    """The small project's tests are started as they are by themselves."""
    for name in ("PYTEST_ADDOPTS", "PYTEST_XDIST_WORKER", "PYTEST_XDIST_WORKER_COUNT", "PYTEST_XDIST_TESTRUNUID"):
        monkeypatch.delenv(name, raising=False)


def with_first(folder: Path) -> dict[str, str]:
    """The environment with a folder's programs before all others."""
    return {**os.environ, "PATH": f"{folder}:{os.environ['PATH']}"}


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    folder = tmp_path / "a checkout"
    shutil.copytree(ROOT / "launch", folder / "launch")
    (folder / "pyproject.toml").write_text(SMALL_PROJECT)
    (folder / "kdsearch").mkdir()
    (folder / "kdsearch" / "__init__.py").write_text(SMALL_PROGRAM)
    (folder / "tests").mkdir()
    (folder / "tests" / "test_small.py").write_text(SMALL_TESTS)
    return folder


@pytest.fixture
def spied(tmp_path: Path) -> Path:
    """A folder for PATH with a uv that works and is watched; its `calls` holds a line a call."""
    spy_on_uv(tmp_path / "spied")
    return tmp_path / "spied"


def spy_on_uv(folder: Path, then: str = "") -> None:
    uv = shutil.which("uv")
    if uv is None:
        pytest.skip("uv is not on PATH")
    executable(folder / "uv", SPY.format(calls=folder / "calls", uv=uv, then=then))


def installs(folder: Path) -> int:
    """How often the watched uv was asked to install."""
    return (folder / "calls").read_text().split().count("pip") if (folder / "calls").exists() else 0


def without_programs(tmp_path: Path, **scripts: str) -> dict[str, str]:
    """An environment with the most ordinary programs, those given, and no uv or Python."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("sh", "cat", "cksum", "dirname", "find", "mkdir", "rm"):
        (folder / name).symlink_to(shutil.which(name) or pytest.fail(f"no {name} here"))
    for name, text in scripts.items():
        executable(folder / name, text)
    return {"PATH": str(folder), "HOME": str(tmp_path)}


def test_scripts_pass_shellcheck() -> None:
    if shutil.which("shellcheck") is None:
        pytest.skip("shellcheck is not installed")
    result = run(["shellcheck", "-x", *SCRIPTS], cwd=ROOT)
    assert result.returncode == 0, result.stdout


def test_constraints_are_versions_and_nothing_else() -> None:
    pin = re.compile(r"[a-z0-9-]+==[0-9][a-z0-9.]*( ; [^;@:/]+)?")
    lines = [line for line in CONSTRAINTS.read_text().splitlines() if not line.startswith("#")]
    assert len(lines) > 100
    assert [line for line in lines if not pin.fullmatch(line)] == []


def test_every_dependency_is_pinned_to_a_version_that_the_project_allows() -> None:
    pins: dict[str, list[str]] = {}
    for line in CONSTRAINTS.read_text().splitlines():
        if not line.startswith("#"):
            pinned = Requirement(line)
            pins.setdefault(pinned.name, []).append(next(iter(pinned.specifier)).version)
    wanted = [
        *PROJECT["dependencies"],
        *(line for extra in PROJECT["optional-dependencies"].values() for line in extra),
    ]
    assert wanted
    for requirement in map(Requirement, wanted):
        versions = pins.get(requirement.name.lower(), [])
        assert versions, f"launch/pin.sh was not run for {requirement.name}"
        assert all(requirement.specifier.contains(version) for version in versions), requirement


def test_the_scripts_and_the_project_agree_on_the_versions_of_python() -> None:
    branch = re.search(r"^\s*(3\.[\d |.]+)\)$", (ROOT / "launch" / "setup.sh").read_text(), re.MULTILINE)
    assert branch
    allowed = SpecifierSet(PROJECT["requires-python"])
    assert branch[1].split(" | ") == [f"3.{minor}" for minor in range(30) if allowed.contains(f"3.{minor}")]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("python", "platform"),
    [
        ("3.11", "x86_64-manylinux_2_28"),
        ("3.12", "x86_64-manylinux_2_28"),
        ("3.13", "x86_64-manylinux_2_28"),
        ("3.13", "aarch64-manylinux_2_28"),
        ("3.13", "aarch64-apple-darwin"),
    ],
)
def test_the_constraints_resolve(python: str, platform: str) -> None:
    options = ["--extra", "test", "--no-annotate", "--no-header", "--only-binary", ":all:"]
    target = ["--python-version", python, "--python-platform", platform]
    result = run(
        ["uv", "pip", "compile", ROOT / "pyproject.toml", "--constraint", CONSTRAINTS, *options, *target],
        env={**os.environ, "MACOSX_DEPLOYMENT_TARGET": "14.0", "UV_PYTHON_DOWNLOADS": "never"},
    )
    assert result.returncode == 0, result.stderr
    pinned = {line.split(" ;")[0] for line in CONSTRAINTS.read_text().splitlines()}
    assert "torch" in result.stdout
    assert set(result.stdout.split()) <= pinned


def test_an_old_python_is_named_in_one_sentence(checkout: Path, tmp_path: Path) -> None:
    environment = without_programs(tmp_path, python3="#!/bin/sh\necho 3.9\n")
    result = run([checkout / "launch" / "local.sh"], env=environment)
    assert result.returncode == 2
    assert result.stderr == "kdsearch needs Python 3.11, 3.12 or 3.13 on PATH, but python3 is 3.9.\n"
    assert not (checkout / ".venv").exists()


def test_no_python_is_said_in_one_sentence(checkout: Path, tmp_path: Path) -> None:
    result = run([checkout / "launch" / "local.sh"], env=without_programs(tmp_path))
    assert result.returncode == 2
    assert result.stderr == "kdsearch needs Python 3.11, 3.12 or 3.13 on PATH, but no python3 is there.\n"


def test_a_python_that_will_do_is_found_behind_one_that_will_not(checkout: Path, spied: Path) -> None:
    executable(spied / "python3", "#!/bin/sh\necho 3.14\n")
    executable(spied / "python3.13", "#!/bin/sh\nexit 127\n")
    executable(spied / "python3.12", f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    result = run([checkout / "launch" / "local.sh"], env=with_first(spied))
    assert result.returncode == 0, result.stderr


def test_a_python_without_pip_is_named_in_one_sentence(checkout: Path, tmp_path: Path) -> None:
    python = f"""#!/bin/sh
case "$*" in
    *ensurepip*) exit 1 ;;
    *_base_executable*) echo "$0" ;;
    *) exec "{sys.executable}" "$@" ;;
esac
"""
    result = run([checkout / "launch" / "local.sh"], env=without_programs(tmp_path, python3=python))
    assert result.returncode == 2
    assert re.fullmatch(r".*python3 lacks venv or pip, .*apt install python3-venv\)\.\n", result.stderr)
    assert not (checkout / ".venv").exists()


def test_the_program_starts_where_it_is_called_with_the_arguments_given(checkout: Path, tmp_path: Path) -> None:
    plain = run([checkout / "launch" / "local.sh"], cwd=tmp_path)
    assert plain.stdout == f"started in {tmp_path} with search ips\n", plain.stderr
    given = run([checkout / "launch" / "local.sh", "search", "ls kd", "--trials", "2"], cwd=tmp_path)
    assert given.stdout == f"started in {tmp_path} with search ls kd --trials 2\n"


def test_a_second_start_reaches_for_no_network(checkout: Path, tmp_path: Path) -> None:
    assert run([checkout / "launch" / "test.sh"]).returncode == 0
    broken = tmp_path / "broken"
    for name in ("uv", "pip", "pip3", "python3"):
        executable(broken / name, f'#!/bin/sh\necho {name} >>"{broken}/calls"\nexit 1\n')
    started = time.monotonic()
    program = run([checkout / "launch" / "local.sh"], env=with_first(broken))
    seconds = time.monotonic() - started
    tests = run([checkout / "launch" / "test.sh"], env=with_first(broken))
    assert (program.returncode, tests.returncode) == (0, 0), program.stderr + tests.stderr
    assert not (broken / "calls").exists()
    assert seconds < 3


def test_fast_tests_by_default_and_all_when_asked(checkout: Path) -> None:
    def closing_line(*arguments: str) -> str:
        return run([checkout / "launch" / "test.sh", *arguments]).stdout.splitlines()[-1]

    assert re.search(r"\b1 passed.* in [\d.]+s", closing_line())
    assert re.search(r"\b2 passed.* in [\d.]+s", closing_line("--all"))
    assert re.search(r"\b1 passed.* in [\d.]+s", closing_line("-k", "slow", "--all"))
    assert "no tests ran" not in closing_line("-k", "fast")


def test_new_pins_are_installed_and_what_a_person_added_is_kept(checkout: Path, spied: Path) -> None:
    local = checkout / "launch" / "local.sh"
    assert run([local], env=with_first(spied)).returncode == 0
    (checkout / ".venv" / "added").touch()
    with (checkout / "launch" / "constraints.txt").open("a") as pins:
        pins.write("another-package==1\n")
    assert run([local], env=with_first(spied)).returncode == 0
    assert run([local], env=with_first(spied)).returncode == 0
    assert installs(spied) == 2
    assert (checkout / ".venv" / "added").exists()


def test_tests_after_the_program_add_the_test_tools(checkout: Path, spied: Path) -> None:
    assert run([checkout / "launch" / "local.sh"], env=with_first(spied)).returncode == 0
    assert not (checkout / ".venv" / "bin" / "pytest").exists()
    assert run([checkout / "launch" / "test.sh"], env=with_first(spied)).returncode == 0
    assert run([checkout / "launch" / "local.sh"], env=with_first(spied)).returncode == 0
    assert installs(spied) == 2


def test_a_start_after_one_that_was_killed_begins_anew(checkout: Path, tmp_path: Path) -> None:
    local, killing = checkout / "launch" / "local.sh", tmp_path / "killing"
    spy_on_uv(killing, then=f'[ "$1" != pip ] || {{ touch "{checkout}/.venv/half"; kill -9 $PPID; exit 1; }}')
    assert run([local], env=with_first(killing)).returncode != 0
    assert (checkout / ".venv" / "half").exists()
    after = run([local])
    assert after.returncode == 0, after.stderr
    assert not (checkout / ".venv" / "half").exists()


def test_an_installation_that_fails_is_said_and_tried_again(checkout: Path, tmp_path: Path) -> None:
    local, failing = checkout / "launch" / "local.sh", tmp_path / "failing"
    spy_on_uv(failing, then='[ "$1" != pip ] || { echo "no network" >&2; exit 1; }')
    result = run([local], env=with_first(failing))
    assert result.returncode == 1
    assert result.stderr.splitlines()[-2] == "no network"
    assert result.stderr.splitlines()[-1].startswith("The installation failed")
    assert run([local]).returncode == 0


def test_two_starts_at_once_install_once(checkout: Path, tmp_path: Path) -> None:
    slow = tmp_path / "slow"
    spy_on_uv(slow, then='[ "$1" != pip ] || sleep 1')
    command = [str(checkout / "launch" / "local.sh")]
    starts = [
        subprocess.Popen(command, env=with_first(slow), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    outputs = [start.communicate(timeout=120) for start in starts]
    assert [start.returncode for start in starts] == [0, 0, 0], outputs
    assert installs(slow) == 1
    assert sum("waiting for it" in errors for _, errors in outputs) == 2


def test_a_checkout_that_was_moved_is_set_up_anew(checkout: Path) -> None:
    assert run([checkout / "launch" / "test.sh"]).returncode == 0
    moved = checkout.rename(checkout.with_name("moved"))
    result = run([moved / "launch" / "test.sh"])
    assert "1 passed" in result.stdout, result.stderr
    program = (moved / ".venv" / "bin" / "pytest").read_text()
    assert str(moved) in program
    assert str(checkout) not in program


def test_an_environment_whose_python_is_gone_is_made_anew(checkout: Path) -> None:
    local = checkout / "launch" / "local.sh"
    assert run([local]).returncode == 0
    python = checkout / ".venv" / "bin" / "python"
    python.unlink()
    python.symlink_to("/nowhere/python3.11")
    assert run([local]).returncode == 0


@pytest.mark.slow
def test_without_uv_pip_brings_it(checkout: Path, tmp_path: Path) -> None:
    home = {name: value for name, value in os.environ.items() if name != "PATH"}
    environment = home | without_programs(tmp_path, python3=f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    environment["HOME"] = os.environ["HOME"]
    result = run([checkout / "launch" / "local.sh"], env=environment)
    assert result.returncode == 0, result.stderr
    assert (checkout / ".venv" / "bin" / "uv").exists()
