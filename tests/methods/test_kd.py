"""Hinton's distillation against numbers worked out by hand."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest
import torch
from torch import nn

from kdsearch import methods, tasks
from kdsearch.data.base import Batch, Facts
from kdsearch.methods.ce import CrossEntropy, CrossEntropyHyperparameters
from kdsearch.methods.kd import KD, KDHyperparameters

if TYPE_CHECKING:
    from conftest import LinearStudent


def build(student: nn.Module, teacher_weight: torch.Tensor, facts: Facts, **hyperparameters: float) -> KD:
    def teacher(images: torch.Tensor) -> torch.Tensor:
        return images.flatten(1) @ teacher_weight.T

    return KD(KDHyperparameters(**hyperparameters), student, teacher, tasks.find("classification"), facts)


def log_softmax(logits: list[float]) -> list[float]:
    total = math.log(sum(math.exp(logit) for logit in logits))
    return [logit - total for logit in logits]


def test_loss_is_the_documents_formula(
    linear_student: LinearStudent, facts: Facts, make_batch: Callable[..., Batch]
) -> None:
    temperature, alpha = 3.0, 0.7
    teacher_weight = torch.randn(3, 64)
    batch = make_batch(samples=4)
    terms = build(linear_student, teacher_weight, facts, temperature=temperature, alpha=alpha).losses(batch, 0.0)

    images, weight = batch.images.flatten(1).tolist(), linear_student.linear.weight.tolist()
    divergence = cross_entropy = 0.0
    for image, target in zip(images, batch.targets.tolist(), strict=True):
        student = [sum(w * x for w, x in zip(row, image, strict=True)) for row in weight]
        taught = [sum(w * x for w, x in zip(row, image, strict=True)) for row in teacher_weight.tolist()]
        log_p = log_softmax([logit / temperature for logit in taught])
        log_q = log_softmax([logit / temperature for logit in student])
        divergence += sum(math.exp(p) * (p - q) for p, q in zip(log_p, log_q, strict=True)) / 4
        cross_entropy -= sum(t * q for t, q in zip(target, log_softmax(student), strict=True)) / 4
    assert terms["divergence"].item() == pytest.approx(alpha * temperature**2 * divergence, rel=1e-4)
    assert terms["cross_entropy"].item() == pytest.approx((1 - alpha) * cross_entropy, rel=1e-4)
    assert set(terms) == {"divergence", "cross_entropy"}


def test_a_student_that_is_its_teacher_has_no_divergence(
    linear_student: LinearStudent, facts: Facts, make_batch: Callable[..., Batch]
) -> None:
    method = build(linear_student, linear_student.linear.weight.detach(), facts)
    assert method.losses(make_batch(), 0.0)["divergence"].item() == pytest.approx(0, abs=1e-6)


def test_the_teacher_sees_the_mixed_image_and_the_labels_are_mixed(
    linear_student: LinearStudent, facts: Facts, make_batch: Callable[..., Batch]
) -> None:
    plain = make_batch(samples=2)
    mixed_images = 0.3 * plain.images + 0.7 * plain.images.flip(0)
    mixed_targets = 0.3 * plain.targets + 0.7 * plain.targets.flip(0)
    batch = Batch(images=mixed_images, targets=mixed_targets, generator=plain.generator)
    shown: list[torch.Tensor] = []

    def teacher(images: torch.Tensor) -> torch.Tensor:
        shown.append(images)
        return images.flatten(1)[:, :3]

    hyperparameters = KDHyperparameters(alpha=0.5)
    method = KD(hyperparameters, linear_student, teacher, tasks.find("classification"), facts)
    terms = method.losses(batch, 0.0)
    assert torch.equal(shown[0], mixed_images)
    log_p = linear_student(mixed_images).log_softmax(1)
    by_labels = [-(0.3 * log_p[i, i] + 0.7 * log_p[i, 1 - i]) for i in range(2)]
    torch.testing.assert_close(terms["cross_entropy"], 0.5 * torch.stack(by_labels).mean())


def test_the_control_is_plain_cross_entropy(
    linear_student: LinearStudent, facts: Facts, make_batch: Callable[..., Batch]
) -> None:
    batch = make_batch()
    method = build(linear_student, torch.randn(3, 64), facts, **KD.control())
    plain = nn.functional.cross_entropy(linear_student(batch.images), batch.targets.argmax(1))
    torch.testing.assert_close(sum(method.losses(batch, 0.0).values()), plain)


def test_teacher_is_neither_a_parameter_nor_saved(linear_student: LinearStudent, facts: Facts) -> None:
    teacher = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
    method = KD(KDHyperparameters(), linear_student, teacher, tasks.find("classification"), facts)
    assert {name.split(".")[0] for name in method.state_dict()} == {"student"}
    assert len(list(method.parameters())) == 1


def test_cross_entropy_smooths_labels_and_its_control_does_not(
    linear_student: LinearStudent, facts: Facts, make_batch: Callable[..., Batch]
) -> None:
    batch = make_batch()
    labels = batch.targets.argmax(1)
    for hyperparameters, smoothing in (
        (CrossEntropyHyperparameters(label_smoothing=0.25), 0.25),
        (CrossEntropyHyperparameters(**CrossEntropy.control()), 0.0),
    ):
        method = methods.find("ce")(hyperparameters, linear_student, None, tasks.find("classification"), facts)
        expected = nn.functional.cross_entropy(linear_student(batch.images), labels, label_smoothing=smoothing)
        torch.testing.assert_close(sum(method.losses(batch, 0.5).values()), expected)


def test_a_mixed_label_is_smoothed_after_mixing(
    linear_student: LinearStudent, facts: Facts, make_batch: Callable[..., Batch]
) -> None:
    plain = make_batch(samples=1)
    batch = Batch(images=plain.images, targets=torch.tensor([[0.6, 0.4, 0.0]]), generator=plain.generator)
    hyperparameters = CrossEntropyHyperparameters(label_smoothing=0.3)
    method = CrossEntropy(hyperparameters, linear_student, None, tasks.find("classification"), facts)
    log_p = linear_student(plain.images).log_softmax(1)[0]
    expected = -(0.52 * log_p[0] + 0.38 * log_p[1] + 0.1 * log_p[2])
    torch.testing.assert_close(method.losses(batch, 0.0)["cross_entropy"], expected)
