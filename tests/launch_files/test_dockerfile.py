"""The Dockerfile holds what the project needs and starts as nobody in particular; hadolint has the rest."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def instructions() -> list[tuple[str, str]]:
    """`(INSTRUCTION, arguments)` in order; comments gone, continued lines joined."""
    lines = [line for line in (ROOT / "launch" / "Dockerfile").read_text().splitlines() if not line.startswith("#")]
    joined = re.sub(r"\s*\\\n\s*", " ", "\n".join(lines))
    return [(line.split(maxsplit=1)[0], line.split(maxsplit=1)[1]) for line in joined.splitlines() if line]


def test_it_is_one_slim_image_that_runs_kdsearch_as_an_ordinary_user() -> None:
    steps = instructions()
    names = [name for name, _ in steps]
    assert set(names) <= {"FROM", "RUN", "COPY", "ENV", "USER", "WORKDIR", "ENTRYPOINT", "CMD"}
    assert steps[0] == ("FROM", "python:3.12-slim-bookworm")
    assert dict(steps)["ENTRYPOINT"] == '["kdsearch"]'
    assert dict(steps)["USER"].isdigit(), "Kubernetes knows from a number that it is not root"
    assert dict(steps)["USER"] != "0"
    assert names.index("USER") > max(number for number, name in enumerate(names) if name in ("RUN", "COPY"))


def test_all_that_is_copied_exists_and_nothing_is_installed_but_under_the_constraints() -> None:
    steps = instructions()
    copied = [source for name, arguments in steps if name == "COPY" for source in arguments.split()[:-1]]
    assert {"pyproject.toml", "README.md", "kdsearch", "search_spaces", "launch/constraints.txt"} == set(copied)
    assert [source for source in copied if not (ROOT / source).exists()] == []
    installs = [arguments for name, arguments in steps if name == "RUN" and "pip install" in arguments]
    assert installs
    assert all("--constraint /opt/kdsearch/launch/constraints.txt" in arguments for arguments in installs)


def hadolint(text: str) -> list[str]:
    """What the linter finds in a Dockerfile: the names of its rules. The test extra brings the program as a wheel."""
    program = Path(sys.executable).with_name("hadolint")
    found = subprocess.run([program, "--no-color", "-"], input=text, capture_output=True, text=True, check=False)
    assert found.returncode in (0, 1), found.stderr
    return re.findall(r"\b((?:DL|SC)\d{4})\b", found.stdout)


def test_hadolint_finds_nothing_that_is_not_excused_with_a_reason() -> None:
    text = (ROOT / "launch" / "Dockerfile").read_text()
    assert hadolint(text) == []
    assert hadolint(text.replace("# hadolint ignore=", "# ")) == re.findall(r"# hadolint ignore=(\w+)", text)
