"""kdsearch with trials that only sleep: 64 × 20 epochs of 10 ms. What is left of the slots' time is orchestration."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any

import workload

from kdsearch.experiment import Experiment
from kdsearch.objective import Report
from kdsearch.tuning import search

if TYPE_CHECKING:
    from pathlib import Path

TRIALS, EPOCHS, SECONDS = 64, 20, 0.01


class Sleeper:
    """An objective that sleeps; a slot's training time is what it asked for, not what the sleep took."""

    def __init__(self, setting: Any) -> None:
        self.history: list[Report] = []
        self._name = str(time.time_ns())

    def epoch(self) -> Report:
        time.sleep(SECONDS)
        workload.log(time.time(), SECONDS, self._name)
        self.history.append(Report(len(self.history) + 1, value=0.5, seconds=SECONDS))
        return self.history[-1]

    def save(self, folder: Path) -> None:
        """Nothing to save."""

    def load(self, folder: Path) -> bool:
        return False

    def finish(self, folder: Path) -> float:
        return 0.5


if __name__ == "__main__":
    budget = {"search.trials": TRIALS, "search.scheduler": "none", "training.epochs": EPOCHS}
    experiment = Experiment.load("ips", {**budget, "resources.max_concurrent": workload.SLOTS})
    search(experiment, storage=f"{sys.argv[1]}/stub", objectives=Sleeper)
