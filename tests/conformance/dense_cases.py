"""The cases of the conformance suite beside classification: every method on every other task that it is for."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from kdsearch import data as data_sets
from kdsearch import methods
from kdsearch.data.base import DataSet
from kdsearch.data.dense.splits import DenseMemorySplit
from kdsearch.experiment import Experiment
from kdsearch.settings import DataSettings
from kdsearch.training.teacher import load_teacher
from kdsearch.training.trainer import Trainer

EPOCHS = 3
CASES = [
    (method, task)
    for method in methods.names()
    for task in sorted(methods.find(method).tasks)
    if task != "classification"
]
DATA: dict[str, dict[str, Any]] = {
    "super_resolution": {"name": "photographs", "patch_size": 32, "samples": 12},
    "segmentation": {"name": "scenes"},
    "detection": {"name": "drawn_boxes"},
    "edges": {"name": "drawn_edges"},
}
STUDENTS: dict[str, dict[str, Any]] = {
    "super_resolution": {"name": "attention_sr", "arguments": {"width": 8, "blocks": 2}},
    "segmentation": {"name": "unet", "arguments": {"width": 4}},
    "detection": {"name": "ssd"},
    "edges": {"name": "unet", "arguments": {"width": 4}},
}


def small_data(task: str) -> DataSet:
    """The built-in set of a task, with 16 training and 8 validation images where they are of one size."""
    data = data_sets.load(DataSettings(**DATA[task]), task)
    return replace(data, train=first(data.train, 16), validation=first(data.validation, 8), test=first(data.test, 8))


def first(split: Any, count: int) -> Any:
    if not isinstance(split, DenseMemorySplit):
        return split
    return DenseMemorySplit(split.images[:count].clone(), split.truths[:count].clone(), split.targets[:count].clone())


def experiment(method: str, task: str) -> Experiment:
    teacher = STUDENTS[task] if methods.find(method).needs_teacher else None
    return Experiment(
        method=method,
        task=task,
        data=DATA[task],
        student=STUDENTS[task],
        teacher=teacher,
        space={"learning_rate": 0.002},
        training={"epochs": EPOCHS, "batch_size": 4, "learning_rate": 0.002, "schedule": "cosine"},
        search={"grace_period": 1},
    )


def trainer(method: str, task: str, data: DataSet, device: torch.device) -> Trainer:
    """A trainer of the case; a method that needs a teacher gets one like the student with other random weights."""
    made = experiment(method, task)
    torch.manual_seed(7)  # the teacher's random weights
    teacher = load_teacher(made, data, device) if made.method_class.needs_teacher else None
    return Trainer(made, made.paper(), data=data, teacher=teacher, device=device)
