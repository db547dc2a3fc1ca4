"""A small batch, facts about it and students whose answers a test can compute by hand."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from kdsearch.data.base import Batch, Facts

CLASSES = 3


@pytest.fixture
def facts() -> Facts:
    return Facts(classes=CLASSES, channels=1, size=(8, 8), steps=40, epochs=10)


@pytest.fixture
def make_batch() -> Callable[..., Batch]:
    """Batches of random images with one-hot labels; the same seed gives the same batch and generator."""

    def make(samples: int = 6, channels: int = 1, size: tuple[int, int] = (8, 8), seed: int = 0) -> Batch:
        source = torch.Generator().manual_seed(seed)
        labels = torch.arange(samples) % CLASSES
        return Batch(
            images=torch.randn(samples, channels, *size, generator=source),
            targets=nn.functional.one_hot(labels, CLASSES).float(),
            generator=torch.Generator().manual_seed(seed + 1),
            partners=torch.randn(samples, channels, *size, generator=source),
            has_partner=torch.ones(samples, dtype=torch.bool),
        )

    return make


class LinearStudent(nn.Module):
    """Logits = W·pixels; keeps what it was shown and what it answered."""

    def __init__(self, pixels: int = 64) -> None:
        super().__init__()
        self.linear = nn.Linear(pixels, CLASSES, bias=False)
        self.shown: list[torch.Tensor] = []
        self.answered: list[torch.Tensor] = []

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.shown.append(images)
        answer: torch.Tensor = self.linear(images.flatten(1))
        if answer.requires_grad:
            answer.retain_grad()
        self.answered.append(answer)
        return answer


@pytest.fixture
def linear_student() -> LinearStudent:
    torch.manual_seed(0)
    return LinearStudent()


class StagedStudent(nn.Module):
    """Three stages without batch norm, then a global pool and a linear layer."""

    def __init__(self, channels: int = 1) -> None:
        super().__init__()
        self.stage1 = nn.Sequential(nn.Conv2d(channels, 4, 3, padding=1), nn.ReLU())
        self.stage2 = nn.Sequential(nn.Conv2d(4, 6, 3, stride=2, padding=1), nn.ReLU())
        self.stage3 = nn.Sequential(nn.Conv2d(6, 8, 3, stride=2, padding=1), nn.ReLU())
        self.classifier = nn.Linear(8, CLASSES)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        pooled = self.stage3(self.stage2(self.stage1(images))).mean((2, 3))
        return self.classifier(pooled)  # type: ignore[no-any-return]


@pytest.fixture
def staged_student() -> StagedStudent:
    torch.manual_seed(0)
    return StagedStudent()
