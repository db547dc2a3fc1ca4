"""The driver that `soak.py` kills: a search, or its resume, whose every epoch leaves a line when it begins."""

from __future__ import annotations

import json
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdsearch import data as data_sets
from kdsearch.experiment import Experiment
from kdsearch.tuning import resume, search

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kdsearch.objective import Report


@dataclass
class Logged:
    """Makes the objectives of another, whose epochs are logged and take so many seconds more."""

    inner: Any
    log: str
    process: int
    """Which of the soak's drivers this is."""
    seconds: float

    def __call__(self, hyperparameters: Mapping[str, Any]) -> LoggedObjective:
        return LoggedObjective(self, self.inner(hyperparameters), json.dumps(dict(hyperparameters), sort_keys=True))


class LoggedObjective:
    def __init__(self, made_by: Logged, inner: Any, setting: str) -> None:
        self.made_by = made_by
        self.inner = inner
        self.setting = setting

    @property
    def history(self) -> list[Report]:
        found: list[Report] = self.inner.history
        return found

    def epoch(self) -> Any:
        line = {
            "driver": self.made_by.process,
            "worker": os.getpid(),
            "setting": self.setting,
            "epoch": len(self.history) + 1,
            "time": time.time(),
        }
        with Path(self.made_by.log).open("a") as file:
            file.write(json.dumps(line) + "\n")
        time.sleep(self.made_by.seconds)
        return self.inner.epoch()

    def save(self, folder: Path) -> None:
        self.inner.save(folder)

    def load(self, folder: Path) -> bool:
        return bool(self.inner.load(folder))

    def finish(self, folder: Path) -> float:
        return float(self.inner.finish(folder))


def objectives(experiment: Experiment, mode: str) -> Any:
    if mode == "stub":
        from tests.faults.driver import ship
        from tests.faults.objectives import FaultyObjectives

        ship()
        return FaultyObjectives(epochs=experiment.training.epochs)
    from kdsearch.tuning.objective import TrainerObjectives

    return TrainerObjectives(experiment, data_sets.load(experiment.data, experiment.task), threads=1)


def main() -> None:
    plan = json.loads(sys.argv[1])
    experiment = Experiment(**plan["experiment"])
    made = Logged(objectives(experiment, plan["mode"]), plan["log"], plan["driver"], plan["seconds"])
    if plan["verb"] == "search":
        search(experiment, storage=plan["storage"], objectives=made)
    else:
        resume(Path(plan["storage"]) / "run", objectives=made)


if __name__ == "__main__":
    main()
