"""Edge distillation against its formula, pixel by pixel."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import nn

from kdsearch import tasks
from kdsearch.data.base import Batch, Facts
from kdsearch.data.dense.source import OUTSIDE_EDGES
from kdsearch.experiment import Experiment
from kdsearch.methods.edge_kd import EdgeKD, EdgeKDHyperparameters

TRUTH = torch.tensor([[[1, 0], [0, 6]], [[0, OUTSIDE_EDGES], [2, 0]]], dtype=torch.int16)
STUDENT = torch.tensor([[[[0.4, -0.3], [1.1, 2.0]]], [[[-2.0, 9.0], [0.1, 0.6]]]])
TAUGHT = torch.tensor([[[[1.4, -3.0], [0.0, 3.0]]], [[[-1.0, -9.0], [2.5, -0.6]]]])


class Fixed(nn.Module):
    """Answers with its parameter, whatever it is shown."""

    def __init__(self) -> None:
        super().__init__()
        self.answer = nn.Parameter(STUDENT.clone())

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.answer


@pytest.fixture
def batch() -> Batch:
    return Batch(images=torch.zeros(2, 3, 2, 2), targets=TRUTH, generator=torch.Generator())


@pytest.fixture
def build() -> Callable[..., EdgeKD]:
    facts = Facts(classes=1, channels=3, size=(2, 2), steps=4, epochs=2)

    def make(**hyperparameters: object) -> EdgeKD:
        settings = EdgeKDHyperparameters.model_validate(hyperparameters)
        return EdgeKD(settings, Fixed(), lambda images: TAUGHT, tasks.find("edges"), facts)

    return make


def sigmoid(value: float) -> float:
    return 1 / (1 + math.exp(-value))


def counting() -> list[tuple[float, float, bool]]:
    """Student, teacher and edge at each of the seven pixels that count."""
    pixels = zip(STUDENT.flatten().tolist(), TAUGHT.flatten().tolist(), TRUTH.flatten().tolist(), strict=True)
    return [(s, t, bits != 0) for s, t, bits in pixels if not bits & OUTSIDE_EDGES]


def cross_entropy(pos_weight: float) -> float:
    each = [-pos_weight * math.log(sigmoid(s)) if edge else -math.log(1 - sigmoid(s)) for s, _, edge in counting()]
    return sum(each) / 7


@pytest.mark.parametrize("kind", ["mse", "bce"])
def test_loss_is_the_documents_formula(build: Callable[..., EdgeKD], batch: Batch, kind: str) -> None:
    terms = build(alpha=0.3, pos_weight=4.0, imitation=kind).losses(batch, 0.0)
    squares = [(sigmoid(s) - sigmoid(t)) ** 2 for s, t, _ in counting()]
    crossed = [
        -sigmoid(t) * math.log(sigmoid(s)) - (1 - sigmoid(t)) * math.log(1 - sigmoid(s)) for s, t, _ in counting()
    ]
    assert set(terms) == {"cross_entropy", "imitation"}
    assert terms["cross_entropy"].item() == pytest.approx(0.7 * cross_entropy(4.0), rel=1e-5)
    assert terms["imitation"].item() == pytest.approx(0.3 * sum(squares if kind == "mse" else crossed) / 7, rel=1e-5)


def test_the_defaults_are_the_documents(build: Callable[..., EdgeKD], batch: Batch) -> None:
    plain, stated = build().losses(batch, 0.0), build(alpha=0.5, pos_weight=10, imitation="mse").losses(batch, 0.0)
    assert {name: term.item() for name, term in plain.items()} == {name: term.item() for name, term in stated.items()}
    experiment = Experiment.load("edge_kd", {"training": {}})
    training = experiment.resolve(experiment.paper()).training
    assert (training.optimizer, training.learning_rate, training.batch_size) == ("adam", 3e-4, 16)
    assert (training.schedule, training.patience, training.weight_decay) == ("plateau", 2, 0.0)


def test_the_control_is_weighted_cross_entropy_alone(build: Callable[..., EdgeKD], batch: Batch) -> None:
    assert EdgeKD.control() == {"alpha": 0.0}
    terms = build(**EdgeKD.control()).losses(batch, 0.0)
    assert terms["imitation"].item() == 0
    assert terms["cross_entropy"].item() == pytest.approx(cross_entropy(10.0), rel=1e-5)


@pytest.mark.parametrize("kind", ["mse", "bce"])
def test_with_alpha_1_a_student_ends_as_its_teacher_where_pixels_count(
    build: Callable[..., EdgeKD], batch: Batch, kind: str
) -> None:
    method = build(alpha=1.0, imitation=kind)
    optimizer = torch.optim.Adam(method.parameters(), lr=0.1)
    for _ in range(400):
        optimizer.zero_grad()
        sum(method.losses(batch, 0.0).values(), torch.zeros(())).backward()
        optimizer.step()
    answer = method.student.answer
    inside = (TRUTH & OUTSIDE_EDGES == 0).unsqueeze(1)
    torch.testing.assert_close(answer.sigmoid()[inside], TAUGHT.sigmoid()[inside], atol=1e-2, rtol=0)
    assert answer[~inside].item() == 9.0  # untouched


def test_hyperparameters_may_be_tensors(build: Callable[..., EdgeKD], batch: Batch) -> None:
    method, plain = build(), build(alpha=0.3, pos_weight=4.0)
    values = {"alpha": torch.tensor(0.3), "pos_weight": torch.tensor(4.0), "imitation": "mse"}
    method.hyperparameters = EdgeKDHyperparameters.model_construct(**values)  # type: ignore[arg-type]
    for name, term in plain.losses(batch, 0.0).items():
        assert method.losses(batch, 0.0)[name].item() == pytest.approx(term.item(), rel=1e-6)


def test_the_first_rung_of_the_shipped_search_is_late() -> None:
    """At two thirds of its budget the report's scratch control still led."""
    experiment = Experiment.load("edge_kd")
    assert experiment.search.grace_period >= 2 / 3 * experiment.training.epochs
    assert any("epoch 10" in note for note in EdgeKD.notes)
