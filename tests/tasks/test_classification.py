"""Classification: its metrics against scikit-learn's and against counting by hand."""

from __future__ import annotations

import io
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import pytest
import torch
from PIL import Image
from sklearn import metrics

from kdsearch import tasks
from kdsearch.data.base import DataSet
from kdsearch.errors import UnknownName
from kdsearch.settings import AugmentationSettings
from kdsearch.tasks.classification import Classification, per_class_accuracy

CPU = torch.device("cpu")


@dataclass(frozen=True)
class InMemory:
    """A split whose first pixel holds the image's number."""

    targets: torch.Tensor
    images: torch.Tensor

    def __len__(self) -> int:
        return len(self.targets)

    def fetch(self, batches: Iterable[torch.Tensor]) -> Iterator[torch.Tensor]:
        return (self.images[indices] for indices in batches)


def split_of(targets: torch.Tensor) -> InMemory:
    numbers = torch.arange(len(targets))
    images = torch.zeros(len(targets), 3, 8, 8, dtype=torch.uint8)
    images[:, 0, 0, 0], images[:, 1, 0, 0] = (numbers // 256).byte(), (numbers % 256).byte()
    return InMemory(targets, images)


class Table:
    """Answers each image with its own row of logits."""

    def __init__(self, logits: torch.Tensor) -> None:
        self.logits = logits

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        assert images.dtype == torch.uint8
        numbers = images[:, 0, 0, 0].long() * 256 + images[:, 1, 0, 0].long()
        return self.logits[numbers]


@pytest.fixture
def task() -> Classification:
    found = tasks.find("classification")
    assert isinstance(found, Classification)
    return found


@pytest.fixture
def logits() -> torch.Tensor:
    """More samples than one batch of the evaluation holds."""
    return torch.randn(700, 5, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def split() -> InMemory:
    return split_of(torch.randint(0, 5, (700,), generator=torch.Generator().manual_seed(1)))


def test_metrics_agree_with_scikit_learns(task: Classification, logits: torch.Tensor, split: InMemory) -> None:
    found = task.evaluate(Table(logits), split, CPU)
    guessed = logits.argmax(1)
    assert found["accuracy"] == metrics.accuracy_score(split.targets, guessed)
    expected = metrics.log_loss(split.targets, logits.double().softmax(1).numpy())
    assert found["loss"] == pytest.approx(expected, rel=1e-5)
    assert set(found) == {"accuracy", "loss"}
    assert (task.metric, task.mode, task.worst) == ("accuracy", "max", 0)


def test_confusion_agrees_with_scikit_learns(task: Classification, logits: torch.Tensor, split: InMemory) -> None:
    confusion = task.confusion(Table(logits), split, CPU)
    assert confusion.tolist() == metrics.confusion_matrix(split.targets, logits.argmax(1)).tolist()


def test_a_class_nobody_has_or_guesses_keeps_its_row(task: Classification) -> None:
    split = split_of(torch.tensor([0, 0, 2]))
    logits = torch.tensor([[2.0, 0, 0, 0], [0, 0, 2.0, 0], [0, 0, 2.0, 0]])
    confusion = task.confusion(Table(logits), split, CPU)
    assert confusion.tolist() == [[1, 0, 1, 0], [0, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 0]]
    assert per_class_accuracy(confusion) == [0.5, None, 1.0, None]


def test_half_precision_logits_are_summed_in_single_precision(
    task: Classification, logits: torch.Tensor, split: InMemory
) -> None:
    found = task.evaluate(Table(logits.bfloat16()), split, CPU)
    assert found["loss"] == pytest.approx(task.evaluate(Table(logits.bfloat16().float()), split, CPU)["loss"])


def test_the_loss_takes_mixed_labels(task: Classification) -> None:
    logits = [0.0, 1.0]
    total = math.log(1 + math.e)
    expected = 0.25 * (total - 0) + 0.75 * (total - 1)
    found = task.loss(torch.tensor([logits]), torch.tensor([[0.25, 0.75]]))
    assert found.item() == pytest.approx(expected, rel=1e-6)


def data_of(split: InMemory, classes: tuple[str, ...]) -> DataSet:
    return DataSet(
        name="numbers",
        task="classification",
        train=split,
        validation=split,
        test=split,
        classes=classes,
        channels=3,
        size=(8, 8),
        mean=(0.0, 0.0, 0.0),
        std=(1.0, 1.0, 1.0),
        augmentation=AugmentationSettings(),
    )


def test_evidence_names_each_class_and_draws_pictures(
    task: Classification, logits: torch.Tensor, split: InMemory
) -> None:
    data = data_of(split, ("ant", "bee", "cat", "dog", "eel"))
    assert task.outputs(data) == 5
    evidence = task.evidence(Table(logits), data, CPU)
    confusion = metrics.confusion_matrix(split.targets, logits.argmax(1))
    recall = {name: confusion[i, i] / confusion[i].sum() for i, name in enumerate(data.classes)}
    assert evidence.facts["per_class_accuracy"] == pytest.approx(recall)
    assert set(evidence.pictures) == {"confusion_matrix", "predictions"}
    for png in evidence.pictures.values():
        assert min(Image.open(io.BytesIO(png)).size) > 100


def test_the_most_confident_errors_come_first() -> None:
    """Of 40 images the errors are shown by falling confidence, then the right answers by rising confidence."""
    from kdsearch.tasks.classification import _guess, _telling

    split = split_of(torch.zeros(40, dtype=torch.int64))
    logits = torch.zeros(40, 2)
    logits[:, 0] = torch.linspace(1, 2, 40)  # right, ever surer
    logits[7], logits[30] = torch.tensor([0.0, 1.0]), torch.tensor([0.0, 4.0])  # wrong, and surely wrong
    order = _telling(_guess(Table(logits), split, CPU))
    assert len(order) == 30
    assert order[:4].tolist() == [30, 7, 0, 1]


def test_an_unknown_task_is_answered_with_the_known_ones() -> None:
    with pytest.raises(UnknownName, match="unknown task 'clasification'; did you mean 'classification'"):
        tasks.find("clasification")
    with pytest.raises(UnknownName):
        tasks.find("drawing")
    assert "classification" in tasks.names()
