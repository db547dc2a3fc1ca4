"""SIGKILL of a chain and of a confirmation, at points that are reached for certain; gone on with, they end the same."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from kdsearch.chain import Chain
from kdsearch.experiment import Experiment
from kdsearch.results import Results
from kdsearch.tuning import search
from kdsearch.tuning.chain import resume_chain, run_chain
from kdsearch.tuning.confirm import confirm
from tests.faults import harness

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.slow

VALUE = "kdsearch.tuning.record:Record.value"
COMMON: dict[str, Any] = {
    "name": "run",
    "data": {"name": "digits", "label_fraction": 0.1},
    "training": {"epochs": 2, "batch_size": 32, "checkpoint_seconds": 0},
    "resources": {"gpus_per_trial": 0, "max_concurrent": 1},
}
CHAIN: dict[str, Any] = {
    **COMMON,
    "search": {"trials": 3, "grace_period": 1},
    "generations": [
        {"student": {"name": "resnet8", "arguments": {"width": 0.5}}},
        {"student": {"name": "resnet8", "arguments": {"width": 0.25}}},
    ],
}
CLOCK = ("latency", "seconds", "time")


def timeless(value: Any) -> Any:
    """A document without what a clock says."""
    if isinstance(value, dict):
        return {name: timeless(entry) for name, entry in value.items() if name not in CLOCK}
    return [timeless(entry) for entry in value] if isinstance(value, list) else value


def found(chain: Path) -> list[Any]:
    """What a chain found: its table, its searches, its students."""
    names = ("1-resnet8", "2-resnet8", "scratch")
    students = [(chain / name / "best" / "student.safetensors").read_bytes() for name in names]
    trials = [[(t.hyperparameters, t.state, t.best) for t in Results(chain / name).trials] for name in names]
    return [timeless(json.loads((chain / "chain.json").read_text())), trials, students]


def test_a_chain_that_is_killed_and_moved_ends_with_the_same_students(cluster: str, tmp_path: Path) -> None:
    """Killed in its second generation, moved, killed again when that one has ended; then the teacher lies elsewhere."""
    for place in ("whole", "here", "there"):
        (tmp_path / place).mkdir()
    run_chain(Chain(**CHAIN), storage=tmp_path / "whole")
    whole = tmp_path / "whole" / "run"
    first = sum(len(trial.curve) for trial in Results(whole / "1-resnet8").trials)

    values = [(VALUE, "before", first + 2)]
    harness.die(tmp_path / "here", "chain", address=cluster, experiment=CHAIN, faults=values)
    assert Results(tmp_path / "here" / "run" / "2-resnet8").state == "CRASHED"
    (tmp_path / "here" / "run").rename(tmp_path / "there" / "run")
    (tmp_path / "here").rmdir()
    costs = [("kdsearch.tuning.chain:_with_costs", "before", 2)]
    harness.die(tmp_path / "there", "resume chain", address=cluster, faults=costs)
    chain = tmp_path / "there" / "run"
    assert Results(chain / "2-resnet8").state == "COMPLETE"
    assert Results(chain / "2-resnet8").experiment["teacher"]["weights"] == str(chain / "1-resnet8" / "best")

    assert resume_chain(chain)["state"] == "COMPLETE"
    assert found(chain) == found(whole)
    for run in ("1-resnet8", "2-resnet8", "scratch"):
        harness.assert_told_once(chain / run)
    harness.assert_tidy(chain)


SEARCH: dict[str, Any] = {
    **COMMON,
    "method": "ips",
    "space": {"alpha": {"low": 0.3, "high": 3.0}},
    "search": {"trials": 3, "scheduler": "none", "grace_period": 1},
}
NOTED, REPLACED = "kdsearch.results.confirm_log:Log.add", "kdsearch.results.export:_replace"


def test_a_confirmation_that_is_killed_trains_and_reads_nothing_twice(cluster: str, tmp_path: Path) -> None:
    """Killed before it notes a training, then when all is read and `best/` is about to be replaced."""
    for place in ("whole", "parts"):
        (tmp_path / place).mkdir()
        search(Experiment(**SEARCH), storage=tmp_path / place)
    plan: dict[str, Any] = {"top": 2, "seeds": 2}
    confirm(tmp_path / "whole" / "run", **plan)
    parts = tmp_path / "parts" / "run"
    for point in ((NOTED, "before", 2), (REPLACED, "before", 1)):
        harness.die(tmp_path / "parts", "confirm", address=cluster, confirm=plan, faults=[point])
        assert "confirmation" not in json.loads((parts / "best" / "metrics.json").read_text())
    before = (parts / "confirm" / "results.jsonl").read_bytes()
    confirm(parts, **plan)
    assert (parts / "confirm" / "results.jsonl").read_bytes() == before  # all of it had been done
    lines = [json.loads(line) for line in before.splitlines()]
    assert len({(line["what"], line["trial"], line["seed"]) for line in lines}) == len(lines)
    whole = tmp_path / "whole" / "run"
    documents = [timeless(json.loads((run / "confirm.json").read_text())) for run in (whole, parts)]
    assert documents[0] == documents[1]
    students = [(run / "best" / "student.safetensors").read_bytes() for run in (whole, parts)]
    assert students[0] == students[1]
    harness.assert_tidy(parts)
