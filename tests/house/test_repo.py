"""What the repository holds: nothing of the machine it was written on, and files that one can read at a sitting."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TOP_LEVEL = {
    ".ci", ".gitignore", "LICENSE", "README.md", "benchmarks", "kdsearch", "launch", "pyproject.toml", "search_spaces",
    "tests",
}  # fmt: skip
LONGEST_FILE = 350  # lines; more is more than one idea

# Written as patterns, so that this file does not match itself.
MACHINE_PATH = re.compile(r"(?<![\w.~}-])/(?:root|work|home/\w+|Users/\w+)/[\w.]")
REGISTRY_HOST = re.compile(
    r"pypi\.org|pythonhosted\.org|registry\.npmjs\.org|\bdeb\.debian\.org|download\.pytorch\.org|anaconda\.org"
)


def files() -> list[Path]:
    """Tracked files, and new ones that would be."""
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    command = ["git", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split("\0")
    return [ROOT / name for name in listed if name and (ROOT / name).is_file()]


def matches(pattern: re.Pattern[str]) -> list[str]:
    found = []
    for path in files():
        for number, line in enumerate(path.read_text(errors="replace").splitlines(), start=1):
            if hit := pattern.search(line):
                found.append(f"{path.relative_to(ROOT)}:{number}: {hit[0]}")
    return found


def test_no_path_of_a_machine_is_in_the_repository() -> None:
    assert MACHINE_PATH.search("data in /" + "root/data")
    assert matches(MACHINE_PATH) == []


def test_no_registry_host_is_in_the_repository() -> None:
    assert REGISTRY_HOST.search("https://files." + "pythonhosted" + ".org/x.whl")
    assert matches(REGISTRY_HOST) == []


def test_the_top_level_holds_what_belongs_there() -> None:
    assert {path.relative_to(ROOT).parts[0] for path in files()} <= TOP_LEVEL


def test_no_module_is_too_long_to_read() -> None:
    lengths = {path: len(path.read_text().splitlines()) for path in (ROOT / "kdsearch").rglob("*.py")}
    assert lengths
    assert {str(path): length for path, length in lengths.items() if length > LONGEST_FILE} == {}
