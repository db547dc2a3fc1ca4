"""A stranger's first five minutes: the wheel in an empty environment, and the launch script in a fresh checkout."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import of_commands

ROOT = Path(__file__).parents[2]
CONSTRAINTS = ROOT / "launch" / "constraints.txt"
SMALL_SEARCH = ("search", "ips", "--name", "small", "--max-epochs", "2")
SMALL_SEARCH += ("--set", "search.trials=3", "--set", "search.grace_period=1")

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def outside() -> Iterator[Path]:
    """A folder outside the checkout that is removed at once: environments have gigabytes."""
    with tempfile.TemporaryDirectory(prefix="kdsearch-") as folder:
        yield Path(folder).resolve()


def run(*command: str | Path, cwd: Path, first: Path | None = None) -> str:
    """Standard output of a command that must succeed; `first` is put before all other folders of programs."""
    environment = {name: value for name, value in of_commands().items() if name != "PYTHONPATH"}
    if first:
        environment["PATH"] = f"{first}:{environment['PATH']}"
    words = [str(word) for word in command]
    result = subprocess.run(words, cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, f"{' '.join(words)}\n{result.stdout}\n{result.stderr}"
    return result.stdout


def files_in(folder: str) -> set[str]:
    """The files in a folder of the checkout, without what Python compiled."""
    paths = [path for path in (ROOT / folder).rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    return {str(path.relative_to(ROOT)) for path in paths}


def assert_student_was_exported(folder: Path) -> None:
    """A search called `small` in this folder left the student and what describes it."""
    best = folder / "runs" / "small" / "best"
    promised = {"README.md", "hyperparameters.yaml", "metrics.json", "student.safetensors"}
    assert promised <= {path.name for path in best.iterdir()}
    assert json.loads((best / "metrics.json").read_text())


@pytest.fixture(scope="module")
def wheel(outside: Path) -> Path:
    if shutil.which("uv") is None:
        pytest.skip("uv is not on PATH")
    run("uv", "build", "--wheel", "--build-constraint", CONSTRAINTS, "--out-dir", outside / "dist", ROOT, cwd=outside)
    (built,) = (outside / "dist").glob("*.whl")
    return built


def test_the_wheel_carries_the_package_with_its_search_spaces_and_no_more(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    spaces = {f"kdsearch/{name}" for name in files_in("search_spaces")}
    assert len(spaces) >= 4
    assert {name for name in names if ".dist-info/" not in name} == spaces | files_in("kdsearch")


def test_the_wheel_searches_in_an_empty_environment(wheel: Path, outside: Path) -> None:
    environment, work = outside / "environment", outside / "work"
    work.mkdir()
    run("uv", "venv", "--no-project", "--python", sys.executable, environment, cwd=outside)
    python = environment / "bin" / "python"
    run("uv", "pip", "install", "--python", python, "--constraint", CONSTRAINTS, wheel, cwd=outside)
    where = run(python, "-c", "import kdsearch; print(kdsearch.__file__)", cwd=work)
    assert Path(where.strip()).is_relative_to(environment)

    run(environment / "bin" / "kdsearch", *SMALL_SEARCH, cwd=work)
    assert_student_was_exported(work)


def test_a_fresh_checkout_searches_and_installs_nothing_the_second_time(outside: Path) -> None:
    checkout, work, broken = outside / "checkout", outside / "elsewhere", outside / "broken"
    for folder in (work, broken, checkout):
        folder.mkdir()
    for name in ("kdsearch", "search_spaces", "launch"):
        shutil.copytree(ROOT / name, checkout / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, checkout)
    run(checkout / "launch" / "local.sh", *SMALL_SEARCH, cwd=work)
    assert_student_was_exported(work)

    for name in ("uv", "pip"):
        (broken / name).symlink_to("/bin/false")
    assert "Usage" in run(checkout / "launch" / "local.sh", "--help", cwd=work, first=broken)
