"""The cases of the conformance suite: every method on every family of networks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from kdsearch import methods
from kdsearch.data.base import DataSet
from kdsearch.data.splits import MemorySplit
from kdsearch.experiment import Experiment
from kdsearch.settings import AugmentationSettings
from kdsearch.training.teacher import load_teacher
from kdsearch.training.trainer import Trainer

NETWORKS = Path(__file__).parent / "networks.py"
FAMILIES = ("residual", "vgg", "shufflenet", "mobilenet", "vit", "mvit")
METHODS = [name for name in methods.names() if "classification" in methods.find(name).tasks]
CLASSES = 4
EPOCHS = 4


def small_data() -> DataSet:
    """A few noisy images whose class is a colour: 32×32 RGB."""
    generator = torch.Generator().manual_seed(0)

    def split(count: int) -> MemorySplit:
        targets = torch.arange(count) % CLASSES
        images = torch.randint(0, 160, (count, 3, 32, 32), generator=generator)
        images[torch.arange(count), targets % 3] += 25 * (1 + targets // 3).view(-1, 1, 1)
        return MemorySplit(images.to(torch.uint8), targets)

    return DataSet(
        name="small",
        task="classification",
        train=split(24),
        validation=split(16),
        test=split(16),
        classes=tuple("abcd"),
        channels=3,
        size=(32, 32),
        mean=(0.35, 0.35, 0.35),
        std=(0.2, 0.2, 0.2),
        augmentation=AugmentationSettings(crop=2, flip=True, color_jitter=0.0, cutout=0),
    )


def experiment(method: str, family: str, **training: Any) -> Experiment:
    """One case; a method that needs a teacher gets a residual one with random weights."""
    teacher = {"name": f"{NETWORKS}:residual"} if methods.find(method).needs_teacher else None
    return Experiment(
        method=method,
        student={"name": f"{NETWORKS}:{family}"},
        teacher=teacher,
        training={"epochs": EPOCHS, "batch_size": 8, "learning_rate": 0.01, **training},
        augmentation={"cutmix": 0.3, "mixup": 0.3},
        search={"grace_period": 1},
    )


def trainer(method: str, family: str, data: DataSet, device: torch.device, **training: Any) -> Trainer:
    """A trainer of the case, at a gentle learning rate."""
    made = experiment(method, family, **training)
    torch.manual_seed(7)  # the teacher's random weights
    teacher = load_teacher(made, data, device) if made.method_class.needs_teacher else None
    return Trainer(made, {**made.paper(), "learning_rate": 0.01}, data=data, teacher=teacher, device=device)
