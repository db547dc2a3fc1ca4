"""The teacher: given as weights or trained once, in eval mode, without gradient, fed its own normalisation."""

from __future__ import annotations

import hashlib
import json
import shutil
from functools import cached_property
from typing import TYPE_CHECKING

import torch
from torch.nn import functional

from kdsearch import methods, models, tasks
from kdsearch.experiment import Experiment
from kdsearch.models import exported
from kdsearch.results.export import write_export
from kdsearch.settings import NetworkSettings
from kdsearch.training.outcome import outcome
from kdsearch.training.randomness import seeded
from kdsearch.training.trainer import Trainer, default_device

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from torch import nn

    from kdsearch.data.base import DataSet
    from kdsearch.methods import base
    from kdsearch.objective import Report
    from kdsearch.settings import TeacherSettings


class Teacher:
    """A network that teaches: images normalised for the student [B, C, H, W] → outputs, without gradient.

    Its own input normalisation and size are honoured (size None: any): a teacher fed the student's is a silent loss.
    """

    def __init__(
        self,
        module: nn.Module,
        data: DataSet,
        size: tuple[int, int] | None,
        normalisation: tuple[tuple[float, ...], tuple[float, ...]] | None,
        device: torch.device,
    ) -> None:
        self.module = module.to(device).eval().requires_grad_(False)
        self.size = size
        mean, std = normalisation or (data.mean, data.std)
        # x = (image − mean_s)/std_s for the student; the teacher wants (image − mean_t)/std_t = x·scale + shift.
        student_mean, student_std = _channels(data.mean, device), _channels(data.std, device)
        teacher_mean, teacher_std = _channels(mean, device), _channels(std, device)
        same = torch.equal(student_mean, teacher_mean) and torch.equal(student_std, teacher_std)
        self._affine = None if same else (student_std / teacher_std, (student_mean - teacher_mean) / teacher_std)

    @torch.no_grad()
    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        if self._affine is not None:
            scale, shift = self._affine
            images = images * scale + shift
        if self.size is not None and images.shape[-2:] != self.size:
            images = functional.interpolate(images, self.size, mode="bilinear", antialias=True)
        logits: torch.Tensor = self.module(images)
        return logits


class LateTeacher:
    """A teacher that is loaded when it is first asked: with its outputs kept most processes never do."""

    def __init__(self, load: Callable[[], base.Teacher], device: torch.device) -> None:
        self._load = load
        self._device = device

    @cached_property
    def _teacher(self) -> base.Teacher:
        with seeded(0, self._device):  # a network is built with random weights first: no draw of the training's
            return self._load()

    @property
    def module(self) -> nn.Module:
        """The network behind it."""
        return self._teacher.module

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        return self._teacher(images)


def is_trained(settings: TeacherSettings) -> bool:
    """Whether a teacher has weights: its own, or those of the export whose folder its name is. Raises BadWeights."""
    return exported.resolve(settings).weights is not None


def load_teacher(experiment: Experiment, data: DataSet, device: torch.device | None = None) -> Teacher:
    """The teacher of an experiment whose weights are there. Raises BadWeights when they do not fit."""
    settings = experiment.teacher
    assert settings is not None, "the experiment has no teacher"
    network = NetworkSettings(**settings.model_dump(include=set(NetworkSettings.model_fields)))
    task = tasks.find(experiment.task)
    module = task.build(network, data)
    size = task.input_size(module, network, data)
    normalisation = models.normalisation(network, module, experiment.task)
    return Teacher(module, data, size, normalisation, device or default_device())


def teacher_experiment(experiment: Experiment) -> Experiment:
    """The training of a teacher that comes without weights: by labels alone, on the same data and augmentation."""
    settings = experiment.teacher
    assert settings is not None, "the experiment has no teacher"
    method = tasks.find(experiment.task).teacher_method
    training = experiment.training.model_dump(mode="json") | {
        "epochs": settings.epochs or experiment.training.epochs,
        "learning_rate": settings.learning_rate,
        "weight_decay": settings.weight_decay,
        "optimizer": settings.optimizer,
    }
    return Experiment(
        method=method,
        task=experiment.task,
        seed=experiment.seed,
        data=experiment.data,
        student=settings.model_dump(mode="json", include=set(NetworkSettings.model_fields)),
        space=methods.find(method).control(),
        training=training,
        augmentation=experiment.augmentation,
        search={"grace_period": 1},
    )


def fingerprint(experiment: Experiment) -> str:
    """What determines a trained teacher, as a short name: equal ones are trained once."""
    content = teacher_experiment(experiment).model_dump(mode="json", exclude={"search", "resources", "name"})
    text = json.dumps(content, sort_keys=True)
    return f"{_plain(content['student']['name'])}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"


def train_teacher(
    experiment: Experiment, data: DataSet, folder: Path, device: torch.device | None = None
) -> Iterator[Report]:
    """Train the teacher of `experiment` epoch by epoch and export it to `folder`; interrupted, it goes on there."""
    own = teacher_experiment(experiment)
    trainer = Trainer(own, own.paper() | _rates(own), data=data, device=device)
    scratch = folder.with_name(f".{folder.name}.training")
    trainer.load(scratch)
    while not trainer.finished:
        yield trainer.epoch()
        trainer.save(scratch)
    facts = {**outcome(trainer).facts, "search": None}
    write_export(folder, weights=trainer.student_bytes(), facts=facts, hyperparameters=trainer.hyperparameters)
    shutil.rmtree(scratch, ignore_errors=True)


def _rates(experiment: Experiment) -> dict[str, float | str]:
    """The teacher's own rates, which the method's published ones must not replace."""
    training = experiment.training
    return {
        "learning_rate": training.learning_rate,
        "weight_decay": training.weight_decay,
        "optimizer": training.optimizer,
    }


def _channels(values: tuple[float, ...], device: torch.device) -> torch.Tensor:
    return torch.tensor(values, device=device).view(1, -1, 1, 1)


def _plain(name: str) -> str:
    return "".join(letter if letter.isalnum() or letter in "._-" else "-" for letter in name).strip(".-")
