"""What a teacher says of the training images, computed once: whether it is kept, under which name, in which file."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import replace
from importlib import metadata
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from kdsearch import __version__, files, tasks
from kdsearch import data as data_sets
from kdsearch.data.base import IN_MEMORY_BYTES
from kdsearch.data.dense.splits import DenseMemorySplit
from kdsearch.data.draws import view_draws
from kdsearch.data.splits import MemorySplit, resident
from kdsearch.data.teacher_outputs import TeacherOutputs, fixed_views
from kdsearch.data.view_bank import ViewBank
from kdsearch.data.views import Views
from kdsearch.errors import InvalidSetting
from kdsearch.settings import AugmentationSettings
from kdsearch.training.layout import memory_format
from kdsearch.training.randomness import seeded
from kdsearch.user_code import loaded_modules

if TYPE_CHECKING:
    from pathlib import Path

    from torch import nn

    from kdsearch.data.base import DataSet
    from kdsearch.experiment import Experiment
    from kdsearch.methods.base import Teacher

AS_THEY_ARE = ViewBank(1, AugmentationSettings(), seed=0)
"""Images that are never augmented: one view of each, which nothing is drawn for."""


def keeps_outputs(experiment: Experiment, data: DataSet) -> bool:
    """Whether the teacher's outputs for the training images are kept.

    They are where some method learns from a teacher, the images of its paper's setting look the same in every epoch or
    come from a bank of views, and the outputs take less than data may in memory. Raises InvalidSetting for a
    `cache_top_k` or `cache_views` that they cannot have.
    """
    settings, task = experiment.teacher, tasks.find(experiment.task)
    if settings is None or not experiment.needs_teacher:
        return False
    shape = task.shape(data)
    top_k, classes = settings.cache_top_k, shape[0]
    if top_k is not None and (classes is None or top_k >= classes):
        raise InvalidSetting(
            "teacher.cache_top_k", top_k, f"must be below the number of the teacher's outputs, {classes}"
        )
    bank = view_bank(experiment, data)
    if settings.cache == "off" or not task.whole_images:
        return False
    small = _nbytes(experiment, data, bank) < IN_MEMORY_BYTES
    if bank is not None and not small:
        why = f"outputs for so many views of {len(data.train):,} images take more than 4 GiB: take fewer views"
        raise InvalidSetting("teacher.cache_views", bank.views, why)
    return small and (bank is not None or any(map(fixed_views, _augmentations(experiment, data))))


def view_bank(experiment: Experiment, data: DataSet) -> ViewBank | None:
    """The views that the teacher is asked about; None: it is asked about the images as they are, or at each step.

    Raises InvalidSetting for `cache_views` where there can be none.
    """
    settings = experiment.teacher
    if settings is None or settings.cache_views is None or not experiment.needs_teacher:
        return None
    augmentations = _augmentations(experiment, data)
    if any(map(fixed_views, augmentations)):
        return None  # there is one view of each image
    if experiment.task != "classification":
        why = f"views are kept for classification alone, not for {experiment.task}: leave it out"
        raise InvalidSetting("teacher.cache_views", settings.cache_views, why)
    augmentation = augmentations[0]
    if augmentation.cutmix or augmentation.mixup:
        why = "cutmix and mixup make an image of two, which is no view of either: set them to 0 or leave this out"
        raise InvalidSetting("teacher.cache_views", settings.cache_views, why)
    return ViewBank(settings.cache_views, augmentation, experiment.data.seed)


def _augmentations(experiment: Experiment, data: DataSet) -> list[AugmentationSettings]:
    """That of each paper's setting, resolved."""
    return [
        data_sets.resolve(experiment.resolve(setting).augmentation, data.augmentation)
        for setting in experiment.papers()
    ]


def _nbytes(experiment: Experiment, data: DataSet, bank: ViewBank | None) -> float:
    """What the outputs would take; infinite where their length is not known."""
    settings, shape = experiment.teacher, tasks.find(experiment.task).shape(data)
    assert settings is not None
    known = [length for length in shape if length is not None]
    if len(known) < len(shape):
        return math.inf
    each, positions = 4 if settings.cache_dtype == "float32" else 2, math.prod(known[1:])
    kept = known[0] * each if settings.cache_top_k is None else settings.cache_top_k * (each + 4) + each
    return _rows(data, bank) * positions * kept


@torch.no_grad()
def compute_outputs(experiment: Experiment, data: DataSet, teacher: Teacher, device: torch.device) -> TeacherOutputs:
    """Show the teacher each training image, or each view of the bank, once, as the student sees it; the outputs lie on
    the CPU.

    They are those of a forward pass at a training step, up to the order of sums (a convolution may be computed
    otherwise in batches of another size or layout), and always of full precision.
    """
    settings, student = experiment.teacher, _student(experiment, data)
    assert settings is not None
    size = tasks.find(experiment.task).input_size(student, experiment.student, data)
    layout = memory_format(experiment.training, device, student)
    bank = view_bank(experiment, data)
    asked = AS_THEY_ARE if bank is None else bank
    views = Views(data, asked.augmentation, size or data.size, device)
    drawn = asked.draw(views, len(data.train))
    order = torch.split(torch.arange(drawn.shape[1]), experiment.training.batch_size)
    images_of = (rows // asked.views for rows in order)
    parts = []
    for rows, images in zip(order, resident(data.train, device).fetch(images_of), strict=True):
        shown = views.of(images.to(device, non_blocking=True), view_draws(drawn[:, rows.numpy()], device))
        logits = teacher(shown.contiguous(memory_format=layout)).cpu()
        parts.append(TeacherOutputs.of(logits, settings.cache_dtype, settings.cache_top_k))
    return replace(TeacherOutputs.joined(parts), bank=bank)


def _rows(data: DataSet, bank: ViewBank | None) -> int:
    """How many outputs there are."""
    return len(data.train) * (1 if bank is None else bank.views)


def blank_outputs(experiment: Experiment, data: DataSet) -> TeacherOutputs:
    """Outputs of the right size that say nothing: what a step costs does not depend on what they say."""
    settings = experiment.teacher
    shape = tasks.find(experiment.task).shape(data)
    assert settings is not None
    one = TeacherOutputs.of(
        torch.zeros(1, *(int(side or 0) for side in shape)), settings.cache_dtype, settings.cache_top_k
    )
    bank = view_bank(experiment, data)
    every = {name: tensor.expand(_rows(data, bank), *tensor.shape[1:]) for name, tensor in one.tensors.items()}
    return TeacherOutputs(outputs=one.outputs, bank=bank, **every)


def outputs_name(experiment: Experiment, data: DataSet, teacher: Teacher) -> str | None:
    """Everything that determines the outputs, as a short name; None for images that are not in memory.

    The teacher's weights and the images enter by their content, the code by the versions of what it is part of.
    """
    settings, split = experiment.teacher, data.train
    assert settings is not None
    if not isinstance(split, MemorySplit | DenseMemorySplit):
        return None
    images = [split.images] if isinstance(split, MemorySplit) else [split.images, split.rows]
    bank = view_bank(experiment, data)
    content: dict[str, Any] = {
        "teacher": settings.model_dump(mode="json", include={"name", "stem", "input_size", "arguments"}),
        "weights": _digest(list(teacher.module.state_dict().values())),
        "images": _digest(images),
        "normalisation": [data.mean, data.std],
        "size": _size(experiment, data),
        "task": experiment.task,
        "kept": [settings.cache_dtype, settings.cache_top_k],
        "versions": [__version__, metadata.version("torch")],
        "code": sorted(module.__name__ for module in loaded_modules()),  # their names hold a digest of the files
    }
    if bank is not None:
        content["views"] = [bank.views, bank.augmentation.model_dump(mode="json"), bank.seed]
    return f"outputs-{hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]}"


def write_outputs(path: Path, outputs: TeacherOutputs) -> None:
    """Keep outputs in a file, whole or not at all, behind a checksum."""
    path.parent.mkdir(parents=True, exist_ok=True)
    files.remove_checked(path)
    files.write_checked(path, save(outputs.tensors, {"outputs": str(outputs.outputs)}))


def read_outputs(path: Path, experiment: Experiment, data: DataSet) -> TeacherOutputs | None:
    """The outputs in a file; None where there are none, or not these, or it cannot be read."""
    try:
        content = files.read_checked(path)
        tensors = {} if content is None else load(content)
    except (OSError, SafetensorError):
        return None
    classes, bank = tasks.find(experiment.task).shape(data)[0], view_bank(experiment, data)
    if classes is None or "values" not in tensors or len(tensors["values"]) != _rows(data, bank):
        return None
    return TeacherOutputs(outputs=classes, bank=bank, **tensors)


def _size(experiment: Experiment, data: DataSet) -> tuple[int, int] | None:
    """What training images are resized to: the teacher sees what the student sees."""
    return tasks.find(experiment.task).input_size(_student(experiment, data), experiment.student, data)


def _student(experiment: Experiment, data: DataSet) -> nn.Module:
    with seeded(0, torch.device("cpu")):
        return tasks.find(experiment.task).build(experiment.student, data)


def _digest(tensors: list[torch.Tensor]) -> str:
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(f"{tensor.dtype} {list(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
