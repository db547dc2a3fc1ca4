"""The objective of a real search: a Trainer, with data and teacher shared by the trials of a process."""

from __future__ import annotations

import json
import sys
import tempfile
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdsearch import files
from kdsearch.results.samples import write_panels

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from kdsearch.data.base import DataSet
    from kdsearch.data.teacher_outputs import TeacherOutputs
    from kdsearch.experiment import Experiment
    from kdsearch.methods.base import Teacher
    from kdsearch.objective import Report
    from kdsearch.settings import Scalar
    from kdsearch.training.devices import Device
    from kdsearch.training.staged import StagedTraining
    from kdsearch.training.trainer import Trainer

STUDENT, FACTS, CHECKPOINT = "student.safetensors", "facts.json", "last.ckpt"


def first_gpu() -> Device:
    """The GPU that this process sees first."""
    from kdsearch.training.devices import CudaDevice

    return CudaDevice()


def assigned_gpus() -> float:
    """GPUs, or the share of one, that Ray gave to this process; 1 in a process that is none of its workers."""
    ray = sys.modules.get("ray")  # a worker has it
    if ray is None or not ray.is_initialized() or ray.get_runtime_context().worker.mode != ray.WORKER_MODE:
        return 1.0
    assigned: dict[str, float] = ray.get_runtime_context().get_assigned_resources()
    # In a placement group, as Tune makes one for each trial, the resource has the group's name at its end.
    return max((amount for name, amount in assigned.items() if name.split("_group_")[0] == "GPU"), default=0.0)


@dataclass
class TrainerObjectives:
    """Makes a TrainerObjective of each setting; one instance per process."""

    experiment: Experiment
    data: DataSet
    threads: int
    device: Device = field(default_factory=first_gpu)
    """Whose memory trials are held to their share of; tests put one in its place that runs out of memory."""
    teacher_files: Mapping[str, bytes] = field(default_factory=dict)
    """The trained teacher, where no folder is seen by all nodes; empty: it lies where the experiment says."""
    taught: TeacherOutputs | None = None
    """What the teacher says of the training images, where that is kept; None: it is asked at every step."""

    def __call__(self, hyperparameters: Mapping[str, Scalar]) -> TrainerObjective:
        stages = self.experiment.search.stages(self.experiment.training.epochs)
        if len(stages) == 1:
            trainer = self.trainer(hyperparameters)
            return TrainerObjective(trainer, lambda: trainer)
        from kdsearch.training.staged import StagedTraining

        staged = StagedTraining(lambda budget: self.trainer(hyperparameters, epochs=budget), stages)
        return TrainerObjective(staged, lambda: staged.trainer)

    def trainer(
        self, hyperparameters: Mapping[str, Scalar], seed: int | None = None, epochs: int | None = None
    ) -> Trainer:
        """A Trainer of the setting; `seed` and `epochs`: None for the experiment's."""
        import torch  # only the workers need it

        from kdsearch.training.devices import hold_to
        from kdsearch.training.staged import with_epochs
        from kdsearch.training.trainer import Trainer

        # n trials of n cores each would fight over n×n threads.
        torch.set_num_threads(self.threads)
        hold_to(self.device, assigned_gpus())  # before anything is on the GPU
        data, taught = self.resident, self.resident_outputs
        experiment = self.experiment if epochs is None else with_epochs(self.experiment, epochs)
        return Trainer(experiment, hyperparameters, seed=seed, data=data, teacher=self.teacher, taught=taught)

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
    def resident_outputs(self) -> TeacherOutputs | None:
        """The teacher's outputs on this process's device, where they fit."""
        from kdsearch.training.trainer import default_device

        return None if self.taught is None else self.taught.on(default_device())

    @cached_property
    def teacher(self) -> Teacher | None:
        from kdsearch.training.teacher import LateTeacher
        from kdsearch.training.trainer import default_device

        if not self.experiment.needs_teacher:
            return None
        return self._loaded() if self.taught is None else LateTeacher(self._loaded, default_device())

    def _loaded(self) -> Teacher:
        from kdsearch.training.teacher import load_teacher

        if not self.teacher_files:
            return load_teacher(self.experiment, self.data)
        assert self.experiment.teacher is not None
        with tempfile.TemporaryDirectory(prefix="kdsearch-teacher-") as folder:
            for name, content in self.teacher_files.items():
                (Path(folder) / name).write_bytes(content)
            teacher = self.experiment.teacher.model_copy(update={"weights": folder})
            return load_teacher(self.experiment.model_copy(update={"teacher": teacher}), self.data)


class TrainerObjective:
    """A training as the search sees it.

    Args:
        training: its epochs.
        trainer: the one whose student is the trial's, once it has ended.
    """

    def __init__(self, training: Trainer | StagedTraining, trainer: Callable[[], Trainer]) -> None:
        self._training = training
        self._trainer = trainer

    @property
    def history(self) -> list[Report]:
        return self._training.history

    def epoch(self) -> Report:
        return self._training.epoch()

    def save(self, folder: Path) -> None:
        self._training.save(folder)

    def load(self, folder: Path) -> bool:
        return self._training.load(folder)

    def finish(self, folder: Path) -> float:
        return write_student(self._trainer(), folder)


def write_student(trainer: Trainer, folder: Path) -> float:
    """Write the best student of a training that has ended, its facts and pictures; its value."""
    from kdsearch.training.outcome import outcome

    result = outcome(trainer)
    folder.mkdir(parents=True, exist_ok=True)
    if result.panels:
        write_panels(folder.parent, result.panels)
    for name, picture in result.pictures.items():
        files.write_atomic(folder / f"{name}.png", picture)
    files.write_atomic(folder / STUDENT, trainer.student_bytes())
    files.write_atomic(folder / FACTS, json.dumps(result.facts, indent=1).encode())
    value: Any = result.facts["value"]
    return float(value)
