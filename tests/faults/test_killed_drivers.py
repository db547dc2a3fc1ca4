"""SIGKILL of the driver at named points; then a resume; then an exact comparison with a run that nothing befell."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from kdsearch.experiment import Experiment
from kdsearch.results import Results
from kdsearch.tuning import resume, search
from tests.faults import harness
from tests.faults.objectives import FaultyObjectives

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.slow

VALUE, END = "kdsearch.tuning.record:Record.value", "optuna.storages:JournalStorage.set_trial_state_values"
WRITE, EXPORT = "kdsearch.tuning.journal:os.write", "kdsearch.results.export:_replace"

# One line is one run: the first point kills the search, each further one the resume that went on from there.
POINTS: dict[str, list[dict[str, Any]]] = {
    "before and while the study is made, and before the first report": [
        {"faults": [("kdsearch.tuning.driving:Record", "before", 1)]},
        {"faults": [("kdsearch.tuning.record:Record.describe", "before", 1)]},
        {"faults": [("kdsearch.tuning.record:Record.begin", "after", 1)]},
    ],
    "between checkpoint and study, and between study and Ray": [
        {"faults": [(VALUE, "before", 12)]},
        {"faults": [(VALUE, "after", 3)]},
    ],
    "mid-journal line, of a value and of a new trial": [
        {"faults": [(WRITE, "half", 24, "intermediate_value")]},
        {"faults": [(WRITE, "half", 1, '"op_code":4')]},
    ],
    "mid-checkpoint: before the old one is set aside, and before the new one takes its place": [
        {"objectives": {"kill_in_checkpoint": (5, 1)}},
        {"objectives": {"kill_in_checkpoint": (7, 2)}},
    ],
    "while stopping a trial: before its end is written, and after": [
        {"faults": [(END, "before", 3)]},
        {"faults": [(END, "after", 2)]},
    ],
    "when all trials are done, before that is written; mid-export: before the folder appears, and after": [
        {"faults": [("kdsearch.tuning.driving:_describe_end", "before", 1)]},
        {"faults": [(EXPORT, "before", 1)]},
        {"faults": [(EXPORT, "after", 1)]},
    ],
    "while a resume reads what was": [
        {"faults": [(VALUE, "after", 20)]},
        {"faults": [("kdsearch.tuning.ledger:Ledger.restore", "before", 1)]},
        {"faults": [("kdsearch.tuning.ledger:Ledger.restore", "after", 1)]},
    ],
}


@pytest.mark.parametrize("point", POINTS)
def test_a_driver_that_is_killed_loses_nothing(
    point: str, cluster: str, expected: list[tuple[Any, ...]], tmp_path: Path
) -> None:
    for number, plan in enumerate(POINTS[point]):
        harness.die(tmp_path, "resume" if number else "search", address=cluster, **plan)
    results = resume(tmp_path / "run", objectives=FaultyObjectives())
    assert results.state == "COMPLETE"
    assert harness.found(tmp_path / "run") == expected
    harness.assert_told_once(tmp_path / "run")
    harness.assert_tidy(tmp_path / "run")


def test_a_killed_run_goes_on_where_it_was_moved_to(
    cluster: str, expected: list[tuple[Any, ...]], tmp_path: Path
) -> None:
    (tmp_path / "here").mkdir()
    harness.die(tmp_path / "here", address=cluster, faults=[(VALUE, "after", 14)])
    (tmp_path / "there").mkdir()
    (tmp_path / "here" / "run").rename(tmp_path / "there" / "renamed")
    resume(tmp_path / "there" / "renamed", objectives=FaultyObjectives())
    assert harness.found(tmp_path / "there" / "renamed") == expected
    harness.assert_told_once(tmp_path / "there" / "renamed")


REAL: dict[str, Any] = {
    "method": "ips",
    "name": "run",
    "data": {"name": "digits", "label_fraction": 0.2},
    "training": {"epochs": 4, "batch_size": 32, "checkpoint_seconds": 0},
    "search": {"trials": 4, "grace_period": 2},
    "resources": {"gpus_per_trial": 0, "max_concurrent": 1},
}


def test_students_of_a_killed_search_are_the_same_to_the_bit(cluster: str, tmp_path: Path) -> None:
    """Real training: the trial that was cut off goes on from its checkpoint as if nothing had been."""
    for name in ("whole", "parts"):
        (tmp_path / name).mkdir()
    search(Experiment(**REAL), storage=tmp_path / "whole")
    harness.die(tmp_path / "parts", address=cluster, experiment=REAL, real=True, faults=[(VALUE, "before", 7)])
    resume(tmp_path / "parts" / "run")
    whole, parts = (Results(tmp_path / name / "run") for name in ("whole", "parts"))
    assert parts.state == "COMPLETE"
    assert [(t.hyperparameters, t.state, t.best, [point.value for point in t.curve]) for t in parts.trials] == [
        (t.hyperparameters, t.state, t.best, [point.value for point in t.curve]) for t in whole.trials
    ]
    students = [results.folder / "best" / "student.safetensors" for results in (whole, parts)]
    assert students[0].read_bytes() == students[1].read_bytes()
    harness.assert_told_once(parts.folder)
    harness.assert_tidy(parts.folder)
