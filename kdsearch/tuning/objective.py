"""The objective of a real search: a Trainer, with data and teacher shared by the trials of a process."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from kdsearch import files
from kdsearch.results.samples import write_panels

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from kdsearch.data.base import DataSet
    from kdsearch.experiment import Experiment
    from kdsearch.objective import Report
    from kdsearch.settings import Scalar
    from kdsearch.training.teacher import Teacher
    from kdsearch.training.trainer import Trainer

STUDENT, FACTS, CHECKPOINT = "student.safetensors", "facts.json", "last.ckpt"


@dataclass
class TrainerObjectives:
    """Makes a TrainerObjective of each setting; one instance per process."""

    experiment: Experiment
    data: DataSet
    threads: int

    def __call__(self, hyperparameters: Mapping[str, Scalar]) -> TrainerObjective:
        return TrainerObjective(self.trainer(hyperparameters))

    def trainer(self, hyperparameters: Mapping[str, Scalar], seed: int | None = None) -> Trainer:
        """A Trainer of the setting; `seed`: None for the experiment's."""
        import torch  # only the workers need it

        from kdsearch.training.trainer import Trainer

        # n trials of n cores each would fight over n×n threads.
        torch.set_num_threads(self.threads)
        return Trainer(self.experiment, hyperparameters, seed=seed, data=self.resident, teacher=self.teacher)

    @cached_property
    def resident(self) -> DataSet:
        """The data on this process's device, where it fits."""
        from kdsearch.data.splits import resident
        from kdsearch.training.trainer import default_device

        device = default_device()
        return replace(
            self.data, train=resident(self.data.train, device), validation=resident(self.data.validation, device)
        )

    @cached_property
    def teacher(self) -> Teacher | None:
        from kdsearch.training.teacher import load_teacher

        if not self.experiment.method_class.needs_teacher:
            return None
        return load_teacher(self.experiment, self.data)


class TrainerObjective:
    """A Trainer as the search sees it."""

    def __init__(self, trainer: Trainer) -> None:
        self._trainer = trainer

    @property
    def history(self) -> list[Report]:
        return self._trainer.history

    def epoch(self) -> Report:
        return self._trainer.epoch()

    def save(self, folder: Path) -> None:
        self._trainer.save(folder)

    def load(self, folder: Path) -> bool:
        return self._trainer.load(folder)

    def finish(self, folder: Path) -> float:
        from kdsearch.training.outcome import outcome

        result = outcome(self._trainer)
        folder.mkdir(parents=True, exist_ok=True)
        if result.panels:
            write_panels(folder.parent, result.panels)
        for name, picture in result.pictures.items():
            files.write_atomic(folder / f"{name}.png", picture)
        files.write_atomic(folder / STUDENT, self._trainer.student_bytes())
        files.write_atomic(folder / FACTS, json.dumps(result.facts, indent=1).encode())
        value: Any = result.facts["value"]
        return float(value)
