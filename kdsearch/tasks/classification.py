"""One label out of K for each image."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import torch
from torch.nn import functional

from kdsearch import models
from kdsearch.data.batches import Batches
from kdsearch.data.splits import evaluation_batches
from kdsearch.results.pictures import confusion_matrix, predictions
from kdsearch.tasks.base import Evidence, Task

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from torch import nn

    from kdsearch.data.base import Batch, Batching, DataSet, Split
    from kdsearch.settings import NetworkSettings
    from kdsearch.tasks.base import Predict

BATCH = 256
SHOWN = 30


class Classification(Task):
    """Cross-entropy for training, the share of right answers as the metric."""

    name = "classification"
    metric = "accuracy"
    mode = "max"
    worst = 0.0
    data = "digits"
    student = "resnet8"
    teacher: ClassVar[Mapping[str, Any]] = {"name": "resnet20"}
    teacher_method = "ce"

    def loss(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Cross-entropy of logits [B, K] with distributions [B, K] or class indices [B], a mean over the batch."""
        return functional.cross_entropy(outputs, targets)

    def outputs(self, data: DataSet) -> int:
        """K, one logit a class."""
        return len(data.classes)

    def shape(self, data: DataSet) -> tuple[int | None, ...]:
        """(K,)."""
        return (self.outputs(data),)

    def input_size(self, module: nn.Module, network: NetworkSettings, data: DataSet) -> tuple[int, int]:
        """That of the images, or larger where they would vanish in the network."""
        return models.resolve_size(module, network, data.channels, data.size)

    def batches(self, data: DataSet, batching: Batching) -> Batches:
        """Images with a distribution over the classes each."""
        return Batches(data, batching)

    def swap(self, batch: Batch, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The label, which both images of a pair have."""
        return batch.targets, batch.targets

    def agreement(
        self, outputs: torch.Tensor, targets_a: torch.Tensor, targets_b: torch.Tensor, batch: Batch
    ) -> torch.Tensor | None:
        """0 for images that are alone in their class: they have nothing to teach themselves, and still count."""
        return batch.has_partner

    def evaluate(self, predict: Predict, split: Split, device: torch.device) -> dict[str, float]:
        """`accuracy`, the share of right answers, and `loss`, the mean cross-entropy."""
        right = torch.zeros((), dtype=torch.int64, device=device)
        loss = torch.zeros((), device=device)
        for logits, targets in _answers(predict, split, device):
            right += (logits.argmax(1) == targets).sum()
            loss += functional.cross_entropy(logits.float(), targets, reduction="sum")
        return {"accuracy": int(right) / len(split), "loss": float(loss) / len(split)}

    def confusion(self, predict: Predict, split: Split, device: torch.device) -> torch.Tensor:
        """How often class i was taken for class j: int64 [K, K], on the CPU; its sum is the size of the split."""
        return _confusion(_guess(predict, split, device))

    def evidence(self, predict: Predict, data: DataSet, device: torch.device) -> Evidence:
        """`per_class_accuracy`: that of each class; pictures: the confusion matrix, the most telling 30 guesses."""
        guesses = _guess(predict, data.validation, device)
        confusion = _confusion(guesses)
        accuracies = dict(zip(data.classes, per_class_accuracy(confusion), strict=True))
        pictures = {
            "confusion_matrix": confusion_matrix(confusion.tolist(), data.classes),
            "predictions": _panel(guesses, data),
        }
        return Evidence({"per_class_accuracy": accuracies}, pictures)


def per_class_accuracy(confusion: torch.Tensor) -> list[float | None]:
    """The share of each class that was recognised, of a confusion matrix [K, K]; None for a class without samples."""
    right, samples = confusion.diagonal().tolist(), confusion.sum(1).tolist()
    return [hits / total if total else None for hits, total in zip(right, samples, strict=True)]


class _Guesses(NamedTuple):
    """What each of N images was taken for, on the CPU."""

    guessed: torch.Tensor
    confidence: torch.Tensor
    true: torch.Tensor
    classes: int


def _guess(predict: Predict, split: Split, device: torch.device) -> _Guesses:
    found, classes = [], 0
    for logits, _ in _answers(predict, split, device):
        classes = logits.shape[1]
        found.append(logits.float().softmax(1).max(1))
    confidence, guessed = (torch.cat(parts).cpu() for parts in zip(*found, strict=True))
    return _Guesses(guessed, confidence, split.targets.cpu(), classes)


def _confusion(guesses: _Guesses) -> torch.Tensor:
    pairs = guesses.true * guesses.classes + guesses.guessed
    return pairs.bincount(minlength=guesses.classes**2).view(guesses.classes, guesses.classes)


def _telling(guesses: _Guesses) -> torch.Tensor:
    """Indices of the images worth looking at: the surest errors, then the least sure right answers."""
    right = guesses.guessed == guesses.true
    return torch.where(right, 1 + guesses.confidence, -guesses.confidence).argsort(stable=True)[:SHOWN]


def _panel(guesses: _Guesses, data: DataSet) -> bytes:
    order = _telling(guesses)
    (images,) = data.validation.fetch([order.to(data.validation.targets.device)])
    columns = (guesses.true[order], guesses.guessed[order], guesses.confidence[order])
    true, guessed, confidence = (column.tolist() for column in columns)
    return predictions(images.cpu().numpy(), true, guessed, confidence, data.classes)


@torch.no_grad()
def _answers(predict: Predict, split: Split, device: torch.device) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Logits [b, K] and targets [b] of the whole split, in order, on the device."""
    for images, targets in evaluation_batches(split, BATCH, device):
        yield predict(images), targets
