"""The workload that every system is given: the experiment, and one trial of it with a line of log for each epoch."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from kdsearch.experiment import Experiment

PARAMETERS = 77_754
METHOD = "ips"
GRACE, REDUCTION = 3, 3
SLOTS = 2


def trials() -> int:
    return int(os.environ["BENCHMARK_TRIALS"])


def epochs() -> int:
    return int(os.environ["BENCHMARK_EPOCHS"])


def seed() -> int:
    return int(os.environ["BENCHMARK_SEED"])


def experiment() -> Experiment:
    """What `kdsearch search ips` searches, with the benchmark's budget."""
    from kdsearch.experiment import Experiment

    settings = {
        "student": "resnet8",
        "data": "digits",
        "seed": seed(),
        "training.epochs": epochs(),
        "training.batch_size": 64,
    }
    return Experiment.load(METHOD, settings)


def space() -> dict[str, dict[str, Any]]:
    """The searched part of the space as plain values: `low`, `high`, `log`, or `choices`.

    `or_zero` becomes a choice of its own, `NAME_on`, as kdsearch does it.
    """
    found = {}
    for name, dimension in experiment().dimensions.items():
        entry = dimension.model_dump()
        if entry.pop("or_zero", False):
            found[f"{name}_on"] = {"choices": (True, False)}
        found[name] = entry
    return found


def train(setting: Mapping[str, Any]) -> Iterator[float]:
    """Train one trial with the very Trainer of kdsearch; the validation accuracy after each epoch."""
    import torch

    from kdsearch import models
    from kdsearch.training.trainer import Trainer

    torch.set_num_threads(1)
    off = [name.removesuffix("_on") for name, on in setting.items() if name.endswith("_on") and not on]
    plain = {name: value for name, value in setting.items() if not name.endswith("_on")}
    trainer = Trainer(experiment(), plain | dict.fromkeys(off, 0.0))
    assert models.count_parameters(trainer.student) == PARAMETERS
    trial = f"{os.getpid()}-{time.time_ns()}"
    while not trainer.finished:
        report = trainer.epoch()
        log(time.time(), report.seconds, trial)
        yield report.value


def log(ended: float, seconds: float, trial: str = "") -> None:
    """One epoch: when it ended (seconds since the epoch) and what it took. Processes share the file."""
    line = json.dumps({"ended": ended, "seconds": seconds, "trial": trial}) + "\n"
    with Path(os.environ["BENCHMARK_LOG"]).open("a") as file:
        file.write(line)
