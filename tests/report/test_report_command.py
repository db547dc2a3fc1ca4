"""`kdsearch report`: what it writes where."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.report.page_reader import Page
from tests.results.build_run import sample_run

if TYPE_CHECKING:
    from tests.conftest import Cli


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run in its storage."""
    found: Path = tmp_path_factory.mktemp("place")
    sample_run(found / "runs" / "my-run")
    return found


def test_the_report_lies_in_the_run_unless_told_otherwise(cli: Cli, place: Path) -> None:
    result = cli("report", "my-run", cwd=place)
    assert result.returncode == 0, result.stderr
    assert "runs/my-run/report.html" in result.stdout
    page = Page((place / "runs" / "my-run" / "report.html").read_text())
    assert page.data["winner"]["number"] == 2


def test_the_name_of_the_file_tells_its_format(cli: Cli, place: Path) -> None:
    result = cli("report", "my-run", "--to", "found.md", "--json", cwd=place)
    assert result.returncode == 0, result.stderr
    written = (place / "found.md").read_bytes()
    assert written.startswith(b"# my-run")
    assert json.loads(result.stdout) == {"run": "my-run", "to": "found.md", "format": "md", "bytes": len(written)}


def test_the_format_that_is_asked_for_is_written(cli: Cli, place: Path) -> None:
    assert cli("report", "my-run", "--to", "page.md", "--format", "html", cwd=place).returncode == 0
    assert (place / "page.md").read_text().startswith("<!doctype html>")


@pytest.mark.parametrize(("to", "why"), [("runs", "is a folder"), ("nowhere/report.html", "No such file")])
def test_a_place_that_cannot_be_written_is_one_sentence(cli: Cli, place: Path, to: str, why: str) -> None:
    result = cli("report", "my-run", "--to", to, cwd=place)
    assert result.returncode == 2
    assert result.stderr.count("\n") == 1
    assert to in result.stderr
    assert why in result.stderr


def test_a_run_that_is_not_there_is_named(cli: Cli, place: Path) -> None:
    result = cli("report", "my-rum", cwd=place)
    assert result.returncode == 2
    assert "did you mean 'my-run'?" in result.stderr
