"""Distillation on pixels: per pixel and per channel, against numbers worked out by hand and the paper's formula."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import nn

from kdsearch import tasks
from kdsearch.data.base import Batch, Facts
from kdsearch.errors import InvalidSetting
from kdsearch.methods.kd import KD, KDHyperparameters, channel_divergence
from kdsearch.methods.supervised import Supervised

CLASSES = 4
TASK = tasks.find("segmentation")
FACTS = Facts(classes=CLASSES, channels=3, size=(5, 6), steps=10, epochs=1)


def batch_of(void: float = 0.2, seed: int = 0) -> Batch:
    source = torch.Generator().manual_seed(seed)
    targets = torch.randint(0, CLASSES, (3, 5, 6), generator=source)
    targets[torch.rand(targets.shape, generator=source) < void] = 255
    images = torch.randn(3, 3, 5, 6, generator=source)
    return Batch(images, targets.to(torch.uint8), torch.Generator().manual_seed(0))


def networks() -> tuple[nn.Module, nn.Module]:
    torch.manual_seed(0)
    return nn.Conv2d(3, CLASSES, 1), nn.Conv2d(3, CLASSES, 1).requires_grad_(False)


def build(**hyperparameters: Any) -> tuple[KD, nn.Module, nn.Module]:
    student, teacher = networks()
    return KD(KDHyperparameters(**hyperparameters), student, teacher, TASK, FACTS), student, teacher


def softmax(values: list[float]) -> list[float]:
    highest = max(values)
    powers = [math.exp(value - highest) for value in values]
    return [power / sum(powers) for power in powers]


def kl(p: list[float], q: list[float]) -> float:
    return sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))


@pytest.mark.parametrize("form", ["pixel", "channel"])
def test_loss_is_the_formula_over_the_pixels_that_count(form: str) -> None:
    temperature, alpha = 3.0, 0.7
    batch = batch_of()
    method, student, teacher = build(temperature=temperature, alpha=alpha, form=form)
    terms = method.losses(batch, 0.0)
    with torch.no_grad():
        z_s, z_t = student(batch.images) / temperature, teacher(batch.images) / temperature
    places = [[(y, x) for y in range(5) for x in range(6) if batch.targets[i, y, x] != 255] for i in range(3)]
    if form == "pixel":
        sums = [
            kl(softmax(z_t[i, :, y, x].tolist()), softmax(z_s[i, :, y, x].tolist()))
            for i in range(3)
            for y, x in places[i]
        ]
    else:
        sums = [
            kl(
                softmax([z_t[i, c, y, x].item() for y, x in places[i]]),
                softmax([z_s[i, c, y, x].item() for y, x in places[i]]),
            )
            for i in range(3)
            for c in range(CLASSES)
        ]
    by_hand = alpha * temperature**2 * sum(sums) / len(sums)
    assert terms["divergence"].item() == pytest.approx(by_hand, rel=1e-4)
    torch.testing.assert_close(terms["cross_entropy"], (1 - alpha) * TASK.loss(student(batch.images), batch.targets))


def test_the_channel_form_is_the_papers_where_every_pixel_counts() -> None:
    """φ(y_c) = exp(y_{c,i}/T) / Σ_i exp(y_{c,i}/T); φ(y^T, y^S) = T²/C · Σ_c Σ_i φ(y^T_{c,i}) · log(φ(y^T_{c,i}) /
    φ(y^S_{c,i})): equations 4 and 5 of Shu et al. 2021, for one image after the other."""
    source = torch.Generator().manual_seed(1)
    taught, logits = torch.randn(2, 2, CLASSES, 5, 6, generator=source, dtype=torch.float64)
    temperature, each = 4.0, []
    for y_t, y_s in zip(taught.flatten(2), logits.flatten(2), strict=True):
        phi_t = torch.exp(y_t / temperature) / torch.exp(y_t / temperature).sum(1, keepdim=True)
        phi_s = torch.exp(y_s / temperature) / torch.exp(y_s / temperature).sum(1, keepdim=True)
        each.append(temperature**2 / CLASSES * (phi_t * torch.log(phi_t / phi_s)).sum())
    torch.testing.assert_close(channel_divergence(taught, logits, temperature), (each[0] + each[1]) / 2)
    everywhere = torch.ones(2, 5, 6)
    torch.testing.assert_close(channel_divergence(taught, logits, temperature, everywhere), (each[0] + each[1]) / 2)


@pytest.mark.parametrize("form", ["pixel", "channel"])
def test_pixels_that_do_not_count_teach_nothing(form: str) -> None:
    batch = batch_of(0.5)
    batch.targets[1] = 255  # an image without any pixel that counts
    method, _, _ = build(form=form)
    answered = []
    method.student.register_forward_hook(
        lambda module, images, logits: (logits.retain_grad(), answered.append(logits))[0]
    )
    term = method.losses(batch, 0.0)["divergence"]
    term.backward()
    assert term.isfinite()
    gradient = answered[0].grad.abs().sum(1)
    assert not gradient[batch.targets == 255].any()
    assert (gradient[batch.targets != 255] > 0).all()


@pytest.mark.parametrize("form", ["pixel", "channel"])
def test_a_student_that_is_its_teacher_has_no_divergence(form: str) -> None:
    student, _ = networks()
    method = KD(KDHyperparameters(form=form), student, student, TASK, FACTS)
    assert method.losses(batch_of(), 0.0)["divergence"].item() == pytest.approx(0, abs=1e-6)


def test_the_two_forms_differ() -> None:
    values = {form: build(form=form)[0].losses(batch_of(), 0.0)["divergence"].item() for form in ("pixel", "channel")}
    assert abs(values["pixel"] - values["channel"]) > 1e-3


def test_the_channel_form_ignores_what_is_the_same_for_all_pixels_and_the_pixel_form_for_all_classes() -> None:
    taught, logits = torch.randn(2, 2, CLASSES, 5, 6)
    shifted = logits + torch.randn(2, CLASSES, 1, 1)
    torch.testing.assert_close(channel_divergence(taught, shifted, 2.0), channel_divergence(taught, logits, 2.0))


def test_the_channel_form_needs_pixels() -> None:
    with pytest.raises(InvalidSetting, match="form = 'channel'"):
        KD(KDHyperparameters(form="channel"), nn.Linear(2, 2), None, tasks.find("classification"), FACTS)


@pytest.mark.parametrize("form", ["pixel", "channel"])
def test_the_control_is_the_tasks_loss(form: str) -> None:
    batch = batch_of()
    method, student, _ = build(**{"form": form} | KD.control())
    torch.testing.assert_close(sum(method.losses(batch, 0.0).values()), TASK.loss(student(batch.images), batch.targets))


def test_supervised_is_the_tasks_loss_alone() -> None:
    batch = batch_of()
    student, _ = networks()
    method = Supervised(Supervised.Hyperparameters(), student, None, TASK, FACTS)
    torch.testing.assert_close(
        method.losses(batch, 0.0), {"supervised": TASK.loss(student(batch.images), batch.targets)}
    )
    assert Supervised.control() == {}
