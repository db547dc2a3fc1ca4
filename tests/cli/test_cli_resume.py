"""`kdsearch resume`: what the flags ask of the search."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

import kdsearch.tuning
from kdsearch.cli import main
from kdsearch.experiment import Experiment
from kdsearch.results import Results
from tests.results.build_run import sample_run


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What a resume is asked for, in the place of doing it, in a storage with one interrupted run."""
    run = sample_run(tmp_path / "runs" / "my-run")
    made = Experiment(method="ips", name="my-run", data="digits", training={"epochs": 3})
    (run.folder / "experiment.yaml").write_text(made.to_yaml())
    run.describe(state="INTERRUPTED", why="interrupted by SIGINT")
    seen: dict[str, Any] = {}

    def resume(folder: Path, **keywords: Any) -> Results:
        seen.update(keywords, folder=folder)
        return Results(folder)

    monkeypatch.setattr(kdsearch.tuning, "resume", resume)
    monkeypatch.chdir(tmp_path)
    return seen


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["kdsearch", "resume", "my-run", *arguments])
    with pytest.raises(SystemExit) as end:
        main()
    return int(end.value.code or 0)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ((), (0, False, False)),
        (("--retry-failed",), (0, True, False)),
        (("--trials", "5", "--allow-code"), (5, False, True)),
    ],
)
def test_flags_reach_the_search(
    arguments: tuple[str, ...],
    expected: tuple[int, bool, bool],
    asked: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert run(monkeypatch, *arguments) == 0
    assert (asked["more_trials"], asked["retry_failed"], asked["allow_code"]) == expected


@pytest.mark.parametrize("student", ["resnet8", "my_net.py:build"])
def test_the_command_that_goes_on_holds_the_flag_that_it_will_need(
    student: str, asked: dict[str, Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    made = Experiment(method="ips", name="my-run", data="digits", student=student, training={"epochs": 3})
    (Path("runs") / "my-run" / "experiment.yaml").write_text(made.to_yaml())
    own = student != "resnet8"
    assert run(monkeypatch) == (2 if own else 0)
    answer = capsys.readouterr()
    assert ("student.name = 'my_net.py:build'" in answer.err) is own
    assert run(monkeypatch, "--allow-code") == 0
    command = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("Go on with:"))
    assert ("--allow-code" in command) is own
