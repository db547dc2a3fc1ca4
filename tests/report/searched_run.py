"""Runs for the tests of reports: a search over a known function, with rungs at 3, 9 and 27 epochs."""

from __future__ import annotations

import json
import math
import random
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml
from optuna.trial import TrialState

from tests.results.build_run import EXPERIMENT, START, RunBuilder

SPACE = {
    "temperature": {"low": 1.0, "high": 8.0, "log": True},
    "alpha": {"low": 0.3, "high": 3.0, "log": True, "or_zero": True},
    "patches_per_side": {"choices": [2, 4, 8]},
    "learning_rate": {"low": 0.01, "high": 0.3, "log": True},
    "gamma": 1.0,
}
SEARCHED = {
    **EXPERIMENT,
    "space": SPACE,
    "training": {"epochs": 27},
    "search": {"trials": 60, "scheduler": "asha", "sampler": "tpe", "grace_period": 3, "reduction_factor": 3},
}


def drawn(source: random.Random) -> dict[str, Any]:
    """A setting of the space, as a random search draws it."""

    def log(low: float, high: float) -> float:
        return math.exp(source.uniform(math.log(low), math.log(high)))

    return {
        "temperature": log(1, 8),
        "alpha": 0.0 if source.random() < 0.3 else log(0.3, 3),
        "patches_per_side": source.choice([2, 4, 8]),
        "learning_rate": log(0.01, 0.3),
    }


def quality(setting: dict[str, Any]) -> float:
    """What a setting is worth: the learning rate matters most, then the patches, then α."""
    rate = -0.1 * math.log(setting["learning_rate"] / 0.08) ** 2
    return 0.8 + rate + 0.03 * (setting["patches_per_side"] == 2) + 0.01 * (setting["alpha"] > 0)


def curve(setting: dict[str, Any], epochs: int, source: random.Random) -> list[float]:
    """Its scores after each epoch."""
    worth = quality(setting)
    return [worth * (1 - math.exp(-epoch / 3)) + source.gauss(0, 0.01) for epoch in range(1, epochs + 1)]


def searched_run(folder: Path, trials: int = 60, mode: str = "max") -> RunBuilder:
    """A search that has ended: paper, control, trials stopped at the rungs, two that diverged, one that crashed."""
    source = random.Random(0)
    run = RunBuilder(folder, mode, SEARCHED)
    sign = 1 if mode == "max" else -1
    for number in range(trials):
        setting = drawn(source)
        role = {0: "paper", 1: "control"}.get(number, "search")
        epochs = 27 if number < 2 or number % 6 == 0 else 9 if number % 3 == 0 else 3
        values = [sign * value for value in curve(setting, epochs, source)]
        if number in (20, 40):
            error = f"the loss is not finite at step {number}"
            run.trial([*values[:1], -sign], TrialState.PRUNED, error=error, epochs=1, seconds=1.0, **setting)
        elif number == 50:
            run.trial([], TrialState.FAIL, error="out of paper", epochs=0, seconds=0.0, **setting)
        elif epochs == 27:
            run.trial(values, TrialState.COMPLETE, values[-1] + sign * 0.005, role=role, seconds=20.0, **setting)
        else:
            run.trial(values, TrialState.PRUNED, seconds=float(epochs), **setting)
    lines = sum(1 for _ in (folder / "study.journal").open())
    run.describe(state="COMPLETE", why=f"all {trials} trials are done", ended=START + lines)
    return run


def large_run(folder: Path, trials: int) -> None:
    """A search of very many trials; its journal is written without Optuna, which takes a minute for thousands."""
    source = random.Random(0)
    folder.mkdir(parents=True)
    (folder / "experiment.yaml").write_text(yaml.safe_dump(SEARCHED))
    lines: list[dict[str, Any]] = [{"op_code": 0, "study_name": folder.name, "directions": [2]}]
    described = {
        "metric": "accuracy",
        "mode": "max",
        "state": "COMPLETE",
        "started": START,
        "ended": START + 30 * trials,
    }
    lines += [{"op_code": 2, "study_id": 0, "user_attr": {name: value}} for name, value in described.items()]
    for number in range(trials):
        setting, role = drawn(source), {0: "paper", 1: "control"}.get(number, "search")
        epochs = 27 if number % 27 < 2 else 9 if number % 9 < 2 else 3
        began, ended = (datetime.fromtimestamp(START + 30 * number + after, UTC).isoformat() for after in (0, 25))
        lines.append(
            {
                "op_code": 4, "study_id": 0, "datetime_start": began, "state": 0, "value": None, "values": None,
                "distributions": {}, "params": {}, "system_attrs": {}, "intermediate_values": {},
                "user_attrs": {"hyperparameters": setting, "role": role, "seconds": 20.0},
            }
        )  # fmt: skip
        values = curve(setting, epochs, source)
        for step, value in enumerate(values, 1):
            lines.append({"op_code": 7, "trial_id": number, "step": step, "intermediate_value": value})
        state = 1 if epochs == 27 else 2
        end = {"op_code": 6, "trial_id": number, "state": state, "values": [values[-1]], "datetime_complete": ended}
        lines.append(end)
    with (folder / "study.journal").open("w") as file:
        file.writelines(json.dumps({**line, "time": START + place}) + "\n" for place, line in enumerate(lines))
