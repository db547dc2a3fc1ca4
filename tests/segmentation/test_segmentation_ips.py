"""Patch swap on pixels: every pixel and its label in exactly one view, and teaching only where the labels agree."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from kdsearch import tasks
from kdsearch.data.base import Batch, Facts
from kdsearch.methods.ips import IPS, IPSHyperparameters, swap_mask

CLASSES = 3
TASK = tasks.find("segmentation")


def make_batch(samples: int = 4, size: tuple[int, int] = (8, 8), seed: int = 0, void: float = 0.1) -> Batch:
    source = torch.Generator().manual_seed(seed)
    pairs = torch.randint(0, CLASSES, (2, samples, *size), generator=source)
    pairs[torch.rand(pairs.shape, generator=source) < void] = 255
    images = torch.randn(2, samples, 2, *size, generator=source)
    return Batch(
        images=images[0],
        targets=pairs[0].to(torch.uint8),
        generator=torch.Generator().manual_seed(seed + 1),
        partners=images[1],
        has_partner=torch.ones(samples, dtype=torch.bool),
        partner_targets=pairs[1].to(torch.uint8),
    )


class PixelStudent(nn.Module):
    """Logits of a pixel from that pixel alone; keeps what it was shown and what it answered."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Conv2d(2, CLASSES, 1)
        self.shown = torch.empty(0)
        self.answered = torch.empty(0)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.shown = images
        self.answered = self.linear(images)
        self.answered.retain_grad()
        return self.answered


def build(student: nn.Module, **hyperparameters: float) -> IPS:
    torch.manual_seed(0)
    facts = Facts(classes=CLASSES, channels=2, size=(8, 8), steps=10, epochs=1)
    return IPS(IPSHyperparameters(**hyperparameters), student, None, TASK, facts)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    size=st.tuples(st.integers(4, 13), st.integers(4, 13)),
    side=st.integers(2, 4),
    probability=st.sampled_from([0.0, 0.5, 1.0]),
)
def test_every_pixel_of_both_images_is_in_exactly_one_view_with_its_label(
    seed: int, size: tuple[int, int], side: int, probability: float
) -> None:
    batch = make_batch(3, size, seed)
    assert batch.partner_targets is not None
    mask = swap_mask(batch.images, side, probability, batch.generator)
    view_a, view_b = TASK.swap(batch, mask)
    for image in range(3):
        for y in range(size[0]):
            for x in range(size[1]):
                own, other = int(batch.targets[image, y, x]), int(batch.partner_targets[image, y, x])
                found = int(view_a[image, y, x]), int(view_b[image, y, x])
                assert found == ((other, own) if bool(mask[image, 0, y, x]) else (own, other))


def test_labels_go_where_their_pixels_go() -> None:
    """An image that shows its own mask still does after the swap, in both views."""
    batch = make_batch(6)
    assert batch.partner_targets is not None
    batch = replace(
        batch,
        images=batch.targets[:, None].float().repeat(1, 2, 1, 1),
        partners=batch.partner_targets[:, None].float().repeat(1, 2, 1, 1),
    )
    student = PixelStudent()
    mask = swap_mask(batch.images, 4, 1.0, torch.Generator().manual_seed(1))  # that of the batch's own generator
    build(student, swap_probability=1.0).losses(batch, 0.0)
    targets = torch.cat(TASK.swap(batch, mask))
    torch.testing.assert_close(student.shown[:, 0], targets.float())
    assert mask.any()


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), void=st.sampled_from([0.0, 0.3, 0.9, 1.0]))
def test_where_the_masks_do_not_agree_nothing_is_taught(seed: int, void: float) -> None:
    batch = make_batch(seed=seed, void=void)
    assert batch.partner_targets is not None
    student = PixelStudent()
    terms = build(student).losses(batch, 0.0)
    assert all(term.isfinite() for term in terms.values())
    terms["divergence"].backward()
    assert student.answered.grad is not None
    gradient = student.answered.grad.abs().sum(1)
    agrees = (batch.targets == batch.partner_targets) & (batch.targets != 255)
    assert not gradient[~agrees.repeat(2, 1, 1)].any()
    assert (gradient[agrees.repeat(2, 1, 1)] > 0).all()


def test_the_divergence_is_the_mean_over_the_pixels_that_agree() -> None:
    temperature, alpha = 2.0, 0.7
    batch = make_batch()
    student = PixelStudent()
    terms = build(student, temperature=temperature, alpha=alpha).losses(batch, 0.0)
    mask = swap_mask(batch.images, 4, 0.5, torch.Generator().manual_seed(1))
    targets_a, targets_b = TASK.swap(batch, mask)
    z_a, z_b = student.answered.detach().chunk(2)
    sums, pixels = 0.0, 0
    for image in range(4):
        for y in range(8):
            for x in range(8):
                label = int(targets_a[image, y, x])
                if label == 255 or label != int(targets_b[image, y, x]):
                    continue
                pixels += 1
                p_a = [math.exp(z / temperature) for z in z_a[image, :, y, x].tolist()]
                p_b = [math.exp(z / temperature) for z in z_b[image, :, y, x].tolist()]
                p_a, p_b = [p / sum(p_a) for p in p_a], [p / sum(p_b) for p in p_b]
                sums += sum((b - a) * math.log(b / a) for a, b in zip(p_a, p_b, strict=True))  # KL both ways
    assert 0 < pixels < 4 * 64
    assert terms["divergence"].item() == pytest.approx(alpha / 2 * temperature**2 * sums / pixels, rel=1e-4)


def test_the_labels_term_is_the_tasks_loss_of_each_view() -> None:
    batch = make_batch()
    student = PixelStudent()
    terms = build(student, gamma=1.3).losses(batch, 0.0)
    mask = swap_mask(batch.images, 4, 0.5, torch.Generator().manual_seed(1))
    targets = TASK.swap(batch, mask)
    each = [TASK.loss(z, y) for z, y in zip(student.answered.chunk(2), targets, strict=True)]
    torch.testing.assert_close(terms["cross_entropy"], 1.3 / 2 * (each[0] + each[1]))


def test_equal_images_with_equal_masks_have_nothing_to_teach() -> None:
    batch = make_batch()
    batch = replace(batch, partners=batch.images, partner_targets=batch.targets)
    terms = build(PixelStudent(), swap_probability=1.0).losses(batch, 0.0)
    assert terms["divergence"].item() == pytest.approx(0, abs=1e-7)
    assert terms["cross_entropy"].item() > 0.1


def test_an_image_without_partner_teaches_nothing() -> None:
    batch = make_batch()
    lonely = torch.tensor([True, False, True, False])
    student = PixelStudent()
    build(student).losses(replace(batch, has_partner=lonely), 0.0)["divergence"].backward()
    assert student.answered.grad is not None
    taught = student.answered.grad.flatten(1).any(1)
    assert taught.tolist() == [True, False, True, False] * 2


def test_the_control_is_the_mean_loss_of_image_and_partner() -> None:
    batch = make_batch()
    assert batch.partners is not None
    assert batch.partner_targets is not None
    student = PixelStudent()
    total = sum(build(student, **IPS.control()).losses(batch, 0.0).values())
    own = TASK.loss(student(batch.images), batch.targets), TASK.loss(student(batch.partners), batch.partner_targets)
    torch.testing.assert_close(total, (own[0] + own[1]) / 2)
