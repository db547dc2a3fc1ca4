"""Intra-class patch swap: the mask, the views and the loss, against loops written out here."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import torch
from torch import nn

from kdsearch import tasks
from kdsearch.data.base import Batch, Facts
from kdsearch.errors import InvalidSetting
from kdsearch.methods.ips import IPS, IPSHyperparameters, swap_mask

if TYPE_CHECKING:
    from conftest import LinearStudent


def build(student: nn.Module, facts: Facts, **hyperparameters: float) -> IPS:
    return IPS(IPSHyperparameters(**hyperparameters), student, None, tasks.find("classification"), facts)


def masks(count: int, height: int, width: int, side: int, probability: float = 1.0, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return swap_mask(torch.zeros(count, 1, height, width), side, probability, generator)[:, 0]


def softmax(logits: list[float], temperature: float = 1.0) -> list[float]:
    powers = [math.exp(logit / temperature) for logit in logits]
    return [power / sum(powers) for power in powers]


def kl(p: list[float], q: list[float]) -> float:
    return sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))


def test_whole_patches_are_exchanged_and_neither_none_nor_all_of_them() -> None:
    for mask in masks(200, 8, 8, 4):
        patches = mask.view(4, 2, 4, 2).transpose(1, 2).reshape(16, 4)
        assert all(patch.all() or not patch.any() for patch in patches)
        assert 1 <= int(patches.any(1).sum()) <= 15


def test_the_number_of_exchanged_patches_is_uniform() -> None:
    """Not binomial: a number is drawn first and then that many patches, so 1 of 4 is as likely as 2 of 4."""
    counts = Counter((masks(6000, 2, 2, 2).flatten(1).sum(1)).tolist())
    assert set(counts) == {1, 2, 3}
    assert all(abs(count - 2000) < 5 * math.sqrt(2000) for count in counts.values())


def test_every_patch_is_chosen_equally_often() -> None:
    share = masks(6000, 3, 3, 3).float().mean(0)
    torch.testing.assert_close(share, torch.full((3, 3), 0.5), atol=0.04, rtol=0)


def test_a_pair_is_swapped_with_the_probability_asked_for() -> None:
    swapped = masks(6000, 4, 4, 2, probability=0.3).flatten(1).any(1).float().mean()
    assert swapped.item() == pytest.approx(0.3, abs=0.03)
    assert not masks(500, 4, 4, 2, probability=0.0).any()
    assert masks(500, 4, 4, 2, probability=1.0).flatten(1).any(1).all()


@pytest.mark.parametrize(("height", "width", "side"), [(10, 10, 4), (7, 9, 2), (33, 17, 8), (5, 5, 5)])
def test_no_pixel_is_lost_where_the_side_is_no_multiple_of_the_patches(height: int, width: int, side: int) -> None:
    """A published listing cuts ⌊side / patches⌋ pixels a patch and never exchanges the remainder."""
    seen = masks(400, height, width, side)
    assert seen.any(0).all(), "a pixel that no mask of 400 exchanges"
    assert not seen.all(0).any(), "a pixel that every mask exchanges"
    # A pixel's patch is told by its values over many masks: there are side² patches, of sizes that differ by one.
    kinds = Counter(tuple(seen[:, y, x].tolist()) for y in range(height) for x in range(width))
    assert len(kinds) == side**2
    largest, smallest = max(kinds.values()), min(kinds.values())
    assert largest <= math.ceil(height / side) * math.ceil(width / side)
    assert smallest >= (height // side) * (width // side)


def test_the_views_are_complementary_mixtures_of_the_pair(
    linear_student: LinearStudent, facts: Facts, make_batch: Callable[..., Batch]
) -> None:
    batch = make_batch()
    build(linear_student, facts, swap_probability=1.0).losses(batch, 0.0)
    assert len(linear_student.shown) == 1, "both views go through the student in one pass"
    view_a, view_b = linear_student.shown[0].chunk(2)
    assert batch.partners is not None
    from_partner = view_a != batch.images
    assert torch.equal(view_a, torch.where(from_partner, batch.partners, batch.images))
    assert torch.equal(view_b, torch.where(from_partner, batch.images, batch.partners))
    assert from_partner.flatten(1).any(1).all()
    assert not from_partner.flatten(1).all(1).any()


@pytest.mark.parametrize("scale_by_t2", [True, False])
@pytest.mark.parametrize("swap_probability", [0.0, 1.0])
def test_loss_is_the_documents_formula(
    linear_student: LinearStudent,
    facts: Facts,
    make_batch: Callable[..., Batch],
    swap_probability: float,
    scale_by_t2: bool,
) -> None:
    temperature, alpha, gamma = 2.0, 0.7, 1.3
    batch = make_batch(samples=4)
    method = build(
        linear_student,
        facts,
        temperature=temperature,
        alpha=alpha,
        gamma=gamma,
        swap_probability=swap_probability,
        scale_by_t2=scale_by_t2,
    )
    terms = method.losses(batch, 0.0)

    weight = linear_student.linear.weight.tolist()
    pixels = linear_student.shown[0].flatten(1).tolist()
    logits = [[sum(w * x for w, x in zip(row, image, strict=True)) for row in weight] for image in pixels]
    cross_entropy = divergence = 0.0
    for i, label in enumerate(batch.targets.argmax(1).tolist()):
        z_a, z_b = logits[i], logits[i + 4]
        cross_entropy -= (math.log(softmax(z_a)[label]) + math.log(softmax(z_b)[label])) / 4
        p_a, p_b = softmax(z_a, temperature), softmax(z_b, temperature)
        divergence += (kl(p_b, p_a) + kl(p_a, p_b)) / 4
    factor = temperature**2 if scale_by_t2 else 1
    assert terms["cross_entropy"].item() == pytest.approx(gamma / 2 * cross_entropy, rel=1e-4)
    assert terms["divergence"].item() == pytest.approx(alpha / 2 * factor * divergence, rel=1e-4)
    assert set(terms) == {"cross_entropy", "divergence"}


def test_pairs_that_were_not_swapped_teach_each_other_too(
    linear_student: LinearStudent, facts: Facts, make_batch: Callable[..., Batch]
) -> None:
    terms = build(linear_student, facts, swap_probability=0.0).losses(make_batch(), 0.0)
    assert terms["divergence"].item() > 0.01


def test_the_teaching_view_gets_no_gradient_unless_asked(
    linear_student: LinearStudent, facts: Facts, make_batch: Callable[..., Batch]
) -> None:
    """d/dz_a of T²·KL(sg p_b ‖ p_a) is T·(p_a − p_b); without sg the other direction's gradient comes on top."""
    temperature, gradients = 2.0, {}
    for detach in (True, False):
        method = build(linear_student, facts, temperature=temperature, detach=detach)
        method.losses(make_batch(samples=4), 0.0)["divergence"].backward()
        gradients[detach] = linear_student.answered[-1].grad
    z_a, z_b = linear_student.answered[0].detach().chunk(2)
    p_a, p_b = (z_a / temperature).softmax(1), (z_b / temperature).softmax(1)
    by_hand = torch.cat([p_a - p_b, p_b - p_a]) * temperature / 2 / 4
    torch.testing.assert_close(gradients[True], by_hand)
    assert (gradients[False] - by_hand).abs().max() > 1e-3


def test_equal_views_have_nothing_to_teach(
    linear_student: LinearStudent, facts: Facts, make_batch: Callable[..., Batch]
) -> None:
    batch = make_batch()
    batch = replace(batch, partners=batch.images)
    terms = build(linear_student, facts, swap_probability=1.0).losses(batch, 0.0)
    assert terms["divergence"].item() == pytest.approx(0, abs=1e-7)
    assert terms["cross_entropy"].item() > 0.1


def test_an_image_without_partner_has_no_divergence_and_keeps_its_label(
    facts: Facts, make_batch: Callable[..., Batch]
) -> None:
    """Dropout makes even the two equal views of a lonely image differ; their divergence still must not count."""
    batch = make_batch(samples=4)
    assert batch.partners is not None
    partners = batch.partners.clone()
    partners[1] = batch.images[1]
    torch.manual_seed(0)
    student = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(64, 3))
    lonely = torch.tensor([True, False, True, True])
    kept: list[torch.Tensor] = []
    student.register_forward_hook(lambda module, images, logits: kept.append(logits.detach()))
    method = build(student, facts, temperature=1.0, swap_probability=0.5)
    terms = method.losses(replace(batch, partners=partners, has_partner=lonely), 0.0)
    z_a, z_b = kept[0].chunk(2)
    assert not torch.equal(z_a[1], z_b[1])
    each = [
        kl(softmax(b), softmax(a)) + kl(softmax(a), softmax(b)) for a, b in zip(z_a.tolist(), z_b.tolist(), strict=True)
    ]
    assert terms["divergence"].item() == pytest.approx((each[0] + each[2] + each[3]) / 2 / 4, rel=1e-4)
    both = torch.cat([z_a, z_b]), batch.targets.argmax(1).repeat(2)
    torch.testing.assert_close(terms["cross_entropy"], nn.functional.cross_entropy(*both))


def test_the_number_of_lonely_images_is_logged(
    linear_student: LinearStudent, facts: Facts, make_batch: Callable[..., Batch]
) -> None:
    method = build(linear_student, replace(facts, without_partner=7))
    assert method.diagnostics(make_batch(), 0.0) == {"without_partner": 7.0}


def test_mixed_images_are_swapped_after_mixing_and_both_views_take_the_mixed_label(
    linear_student: LinearStudent, facts: Facts, make_batch: Callable[..., Batch]
) -> None:
    """The pair shares one mixing partner and one λ, so its views are mixtures of swapped images in the same shares."""
    plain = make_batch(samples=2)
    assert plain.partners is not None
    share = 0.3
    images = share * plain.images + (1 - share) * plain.images.flip(0)
    partners = share * plain.partners + (1 - share) * plain.partners.flip(0)
    targets = share * plain.targets + (1 - share) * plain.targets.flip(0)
    batch = replace(plain, images=images, partners=partners, targets=targets)
    terms = build(linear_student, facts, swap_probability=1.0).losses(batch, 0.0)
    for view in linear_student.shown[0].chunk(2):
        assert ((view == images) | (view == partners)).all()
    expected = 0.0
    for logits in linear_student.answered[0].chunk(2):
        log_p = logits.log_softmax(1)
        expected -= sum(share * log_p[i, i] + (1 - share) * log_p[i, 1 - i] for i in range(2)).item() / 2 / 2
    assert terms["cross_entropy"].item() == pytest.approx(expected, rel=1e-5)


def test_the_control_is_cross_entropy_on_image_and_partner_as_they_are(
    linear_student: LinearStudent, facts: Facts, make_batch: Callable[..., Batch]
) -> None:
    batch = make_batch()
    assert batch.partners is not None
    method = build(linear_student, facts, **IPS.control())
    total = sum(method.losses(batch, 0.0).values())
    labels = batch.targets.argmax(1)
    plain = [nn.functional.cross_entropy(linear_student(images), labels) for images in (batch.images, batch.partners)]
    torch.testing.assert_close(total, (plain[0] + plain[1]) / 2)
    assert torch.equal(linear_student.shown[0], torch.cat([batch.images, batch.partners]))


def test_a_grid_finer_than_the_image_is_refused(linear_student: LinearStudent, facts: Facts) -> None:
    with pytest.raises(InvalidSetting, match="patches_per_side = 16: the images have only 8 pixels a side"):
        build(linear_student, facts, patches_per_side=16)


def test_randomness_comes_from_the_batch_alone(
    linear_student: LinearStudent, facts: Facts, make_batch: Callable[..., Batch]
) -> None:
    method = build(linear_student, facts)
    losses = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        before = torch.get_rng_state()
        losses.append(sum(method.losses(make_batch(), 0.0).values()).item())
        assert torch.equal(torch.get_rng_state(), before)
    assert losses[0] == losses[1]
    other = replace(make_batch(), generator=torch.Generator().manual_seed(99))
    assert sum(method.losses(other, 0.0).values()).item() != losses[0]
