"""Build what a training will build, and take a few steps: mistakes show before anything runs for hours."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from kdsearch import models
from kdsearch.errors import UserError
from kdsearch.settings import Choices
from kdsearch.students import STUDENT, naming
from kdsearch.training.teaching import blank_outputs, keeps_outputs
from kdsearch.training.trainer import Trainer, default_device, state_bytes

if TYPE_CHECKING:
    from kdsearch.data.base import DataSet
    from kdsearch.experiment import Experiment
    from kdsearch.methods.base import Teacher


@dataclass(frozen=True)
class Rehearsal:
    """What a few steps of the paper's setting cost on this machine."""

    parameters: int
    steps_per_epoch: int
    seconds_per_step: float
    validation_seconds: float
    memory_bytes: int | None
    """Largest memory of the GPU; None on a CPU."""
    checkpoint_bytes: int

    @property
    def seconds_per_epoch(self) -> float:
        return self.steps_per_epoch * self.seconds_per_step + self.validation_seconds


def rehearse(experiment: Experiment, data: DataSet) -> Trainer:
    """Build student, teacher and method on the CPU, of several methods or students each.

    Of several students, also with each value of the method's own choices: heads on stages that one of them has,
    another may lack. Raises UserError for what does not fit.
    """
    device = torch.device("cpu")
    teacher = None
    if experiment.needs_teacher:
        from kdsearch.training.teacher import load_teacher

        keeps_outputs(experiment, data)  # raises for settings of the teacher that do not fit
        teacher = load_teacher(experiment, data, device)
    trainers = []
    for setting in experiment.papers():
        try:
            trainers.append(Trainer(experiment, setting, data=data, teacher=teacher, device=device))
        except UserError as error:
            if not experiment.students:
                raise
            raise naming(str(setting[STUDENT]), error) from None
    for name in experiment.students:
        _rehearse_choices(experiment.with_students(name), name, data, teacher)
    return trainers[0]


def _rehearse_choices(experiment: Experiment, student: str, data: DataSet, teacher: Teacher | None) -> None:
    """Build one student with each value of the choices that are the method's own."""
    known = experiment.hyperparameters
    for key, dimension in experiment.dimensions.items():
        if not isinstance(dimension, Choices) or known[key].section != "method":
            continue
        for value in dimension.choices:
            setting = experiment.paper() | {key: value}
            try:
                Trainer(experiment, setting, data=data, teacher=teacher, device=torch.device("cpu"))
            except UserError as error:
                raise naming(student, UserError(f"with {key} = {value!r}: {error}")) from None


def measure(experiment: Experiment, data: DataSet, teacher: Teacher | None, steps: int = 5) -> Rehearsal:
    """Take a few steps and one validation, and say what they cost; of several students the slowest."""
    if experiment.students:
        each = [measure(experiment.with_students(name), data, teacher, steps) for name in experiment.students]
        return max(each, key=lambda rehearsal: rehearsal.seconds_per_epoch)
    device = default_device()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    taught = blank_outputs(experiment, data) if keeps_outputs(experiment, data) else None
    trainer = Trainer(experiment, experiment.paper(), data=data, teacher=teacher, taught=taught, device=device)
    per_step = trainer.rehearse_steps(steps)
    started = time.perf_counter()
    trainer.validate()
    validation = time.perf_counter() - started
    return Rehearsal(
        parameters=models.count_parameters(trainer.student),
        steps_per_epoch=trainer.batches.steps,
        seconds_per_step=per_step,
        validation_seconds=validation,
        memory_bytes=torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None,
        checkpoint_bytes=len(state_bytes(trainer.state_dict())),
    )
