"""Runs that are killed and resumed, and how they are compared with one that was not."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from safetensors.numpy import load_file

from kdsearch.results import Results

TEACHERS = ".teachers"
ROOT = Path(__file__).parents[2]

EXPERIMENT: dict[str, Any] = {
    "method": "kd",
    "teacher": "resnet8",
    "name": "run",
    "space": {"temperature": {"low": 1, "high": 20, "log": True}, "alpha": {"low": 0.1, "high": 0.9}},
    "training": {"epochs": 9, "checkpoint_seconds": 0},
    "search": {"trials": 7, "grace_period": 1},
    "resources": {"gpus_per_trial": 0, "max_concurrent": 1},
}


def start(storage: Path | str, verb: str = "search", **plan: Any) -> subprocess.Popen[str]:
    """A driver in a process of its own, that may be told to die; see `driver.py`."""
    document = {"storage": str(storage), "verb": verb, "experiment": EXPERIMENT, **plan}
    return subprocess.Popen(
        [sys.executable, "-m", "tests.faults.driver", json.dumps(document)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def die(storage: Path | str, verb: str = "search", **plan: Any) -> None:
    """Run a driver to the point where it kills itself, which it must reach."""
    driver = start(storage, verb, **plan)
    output, errors = driver.communicate(timeout=200)
    assert driver.returncode == -signal.SIGKILL, f"it ended with {driver.returncode}\n{output}\n{errors}"


def found(run: Path) -> list[tuple[Any, ...]]:
    """What a search found: everything that must not depend on what befell it."""
    results = Results(run)
    trials = [
        (
            trial.number,
            trial.role,
            trial.hyperparameters,
            trial.state,
            trial.best,
            trial.epochs,
            [(point.epoch, point.value) for point in trial.curve],
            trial.error,
        )
        for trial in results.trials
    ]
    best = results.best
    assert best is not None
    winner = load_file(run / "best" / "student.safetensors")["temperature"].tolist()
    return [(results.state, results.why, best.number, winner), *trials]


def assert_told_once(run: Path) -> None:
    """No trial was begun twice, no value told twice, and none ended twice."""
    operations = [json.loads(line) for line in (run / "study.journal").read_text().splitlines()]
    begun = sum(operation["op_code"] == 4 for operation in operations)
    assert begun == len(Results(run).trials)
    values = Counter((log["trial_id"], log["step"]) for log in operations if log["op_code"] == 7)
    ends = Counter(log["trial_id"] for log in operations if log["op_code"] == 6)
    assert set(values.values()) == {1}
    assert set(ends.values()) == {1}
    assert len(ends) == begun


def assert_tidy(run: Path) -> None:
    """Nothing is left of what was half done."""
    # A chain is the storage of its searches: what their teachers answered lies there.
    assert {path.name for path in run.rglob(".*")} <= {TEACHERS}
    assert not list(run.rglob("*.part"))
