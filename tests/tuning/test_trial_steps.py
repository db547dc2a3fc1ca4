"""What a trial's process answers to a step, without Ray: which epochs are told together, and which are saved."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from kdsearch.tuning.checkpoints import CheckpointClock

ROOT = Path(__file__).parents[2]
SCRIPT = """
import json, sys
from pathlib import Path
from kdsearch.tuning import trainable
from kdsearch.tuning.place import Shared
from tests.tuning.stub import StubObjectives

plan = json.loads(sys.argv[1])
made = plan.pop("objectives", {})
trainable.ray.util.get_node_ip_address = lambda: "here"
decisions = plan.pop("decisions")
context = trainable.TrialContext(
    objective=StubObjectives(**made),
    place=Shared(plan.pop("folder")),
    epochs=9,
    checkpoint_every=1,
    decisions=None if decisions is None else frozenset(decisions),
    **plan,
)
actor = object.__new__(trainable.TrialActor)
actor.setup({"number": 0, "hyperparameters": {"temperature": 18.0, "alpha": 0.5}, "begun": False}, context)
answers = []
for _ in range(12):
    answers.append(actor.step())
    if {"value", "diverged"} & answers[-1].keys():
        break
print(json.dumps(answers))
"""


def steps(folder: Path, **plan: Any) -> list[dict[str, Any]]:
    """The answers of one trial; in a process of its own, as importing Ray leaves marks on one."""
    document = json.dumps({"folder": str(folder), "checkpoint_seconds": 1e6, "decisions": [], **plan})
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, document], cwd=ROOT, capture_output=True, text=True, check=True
    )
    answers: list[dict[str, Any]] = json.loads(done.stdout.splitlines()[-1])
    return answers


def epochs(answers: list[dict[str, Any]]) -> list[list[int]]:
    return [[report["epoch"] for report in answer["reports"]] for answer in answers]


@pytest.mark.parametrize(
    ("plan", "expected"),
    [
        ({}, [[1, 2, 3, 4, 5, 6, 7, 8, 9]]),
        ({"decisions": [1, 3]}, [[1], [2, 3], [4, 5, 6, 7, 8, 9]]),  # no further than where it may be ended
        ({"decisions": None}, [[epoch] for epoch in range(1, 10)]),
        ({"checkpoint_seconds": 0}, [[epoch] for epoch in range(1, 10)]),  # each is written, and told at once
        ({"objectives": {"seconds": 0.3}}, [[1, 2], [3, 4], [5, 6], [7, 8], [9]]),  # until half a second has passed
    ],
)
def test_short_epochs_are_told_together_up_to_where_the_driver_is_needed(
    tmp_path: Path, plan: dict[str, Any], expected: list[list[int]]
) -> None:
    answers = steps(tmp_path, **plan)
    assert epochs(answers) == expected
    assert [answer["saved"] for answer in answers[:-1]] == [plan.get("checkpoint_seconds") == 0] * (len(expected) - 1)
    assert "value" in answers[-1]


def test_epochs_before_a_diverged_one_are_told_with_it(tmp_path: Path) -> None:
    (answer,) = steps(tmp_path, objectives={"diverge_above": 10})
    assert [report["epoch"] for report in answer["reports"]] == [1]
    assert answer["epoch"] == 2
    assert "diverged" in answer


def test_a_checkpoint_is_due_when_both_epochs_and_seconds_have_passed() -> None:
    seconds = 0.0
    clock = CheckpointClock(every=2, seconds=10, now=lambda: seconds)
    seen = []
    for epoch in range(1, 9):
        seconds += 4
        seen.append(clock.is_due(epoch))
        if seen[-1]:
            clock.written()
    assert seen == [False, False, False, True, False, False, False, True]
    assert CheckpointClock(every=1, seconds=0, now=lambda: 0.0).is_due(1)
