"""Augmentations against torchvision's per-image functions on the same draws, and against hand-made images."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.transforms.v2 import functional as reference

from kdsearch.data.augmentation import color_jitter_, crop_and_flip, cutout_, mix, mix_targets
from kdsearch.data.draws import draw_mix, draw_views, mix_draws, view_draws
from kdsearch.data.preprocessing import preprocess
from kdsearch.data.randomness import stream
from kdsearch.settings import AugmentationSettings

CPU = torch.device("cpu")


def noise(*shape: int) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8))


@pytest.mark.parametrize(("height", "width"), [(12, 12), (9, 14)])
@pytest.mark.parametrize("padding", [0, 3])
def test_crop_and_flip_equal_torchvisions(height: int, width: int, padding: int) -> None:
    images = noise(20, 3, height, width)
    chosen = AugmentationSettings(crop=padding, flip=True)
    draws = view_draws(draw_views(chosen, (height, width), 0, 20, stream(0)), CPU)
    ours = crop_and_flip(images, draws.top, draws.left, draws.flip, padding)
    for index, image in enumerate(images):
        theirs = reference.crop(
            reference.pad(image, [padding] * 4), int(draws.top[index]), int(draws.left[index]), height, width
        )
        theirs = reference.horizontal_flip(theirs) if draws.flip[index] else theirs
        assert torch.equal(ours[index], theirs)


def test_offsets_and_flips_are_uniform() -> None:
    draws = view_draws(draw_views(AugmentationSettings(crop=2, flip=True), (8, 8), 0, 50_000, stream(0)), CPU)
    for offsets in (draws.top, draws.left):
        # Five offsets of 10,000 ± 89 each; five deviations.
        assert (offsets.bincount(minlength=5) - 10_000).abs().max() < 450
        assert offsets.max() == 4
    assert draws.flip.float().mean() == pytest.approx(0.5, abs=0.012)


def test_color_jitter_equals_torchvisions() -> None:
    images = noise(16, 3, 10, 10).float() / 255
    draws = view_draws(draw_views(AugmentationSettings(color_jitter=0.4), (10, 10), 0, 16, stream(0)), CPU)
    assert 0.6 <= draws.brightness.min() < 0.75
    assert 1.2 < draws.saturation.max() <= 1.4
    ours = color_jitter_(images.clone(), draws.brightness, draws.contrast, draws.saturation)
    for index, image in enumerate(images):
        theirs = reference.adjust_brightness(image, float(draws.brightness[index]))
        theirs = reference.adjust_contrast(theirs, float(draws.contrast[index]))
        theirs = reference.adjust_saturation(theirs, float(draws.saturation[index]))
        torch.testing.assert_close(ours[index], theirs, atol=2e-6, rtol=0)


def test_cutout_clears_a_square_that_the_border_may_cut() -> None:
    images = torch.ones(400, 2, 9, 9)
    drawn = draw_views(AugmentationSettings(cutout=4), (9, 9), 4, 400, stream(0))
    gone = cutout_(images, view_draws(drawn, CPU).box) == 0
    assert torch.equal(gone[:, 0], gone[:, 1])
    rows, columns = gone[:, 0].any(2).sum(1), gone[:, 0].any(1).sum(1)
    assert torch.equal(gone[:, 0].sum((1, 2)), rows * columns)  # a rectangle
    assert (int(rows.max()), int(columns.max())) == (4, 4)
    assert int(rows.min()) == 2  # its middle lies in the image
    assert gone[:, 0].any(0).all()  # every pixel has its turn


@settings(max_examples=40)
@given(st.integers(0, 2**32), st.integers(2, 9), st.integers(3, 17), st.integers(3, 17))
def test_cutmix_labels_are_the_shares_of_the_pixels(seed: int, samples: int, height: int, width: int) -> None:
    # Image i is the constant i, and its own class.
    images = torch.arange(samples).float().view(1, samples, 1, 1, 1).expand(1, samples, 3, height, width)
    draws = mix_draws(draw_mix(AugmentationSettings(cutmix=1), (height, width), samples, stream(seed)), CPU)
    mixed, labels = mix(images, draws), mix_targets(torch.eye(samples), draws)
    for index in range(samples):
        counted = mixed[0, index, 0].flatten().long().bincount(minlength=samples) / (height * width)
        torch.testing.assert_close(labels[index], counted, atol=1e-6, rtol=0)


def test_cutmix_cuts_as_much_as_its_paper_says() -> None:
    draws = mix_draws(draw_mix(AugmentationSettings(cutmix=1), (512, 512), 20_000, stream(0)), CPU)
    # Unclipped, λ ~ U(0, 1) gives a mean area of 1/2. A side of r around a uniform centre keeps r − r²/4 on average,
    # so the clipped area has the mean ∫ (√u − u/4)² du = 1/2 − 1/5 + 1/48 = 0.3208.
    assert 1 - float(draws.share.mean()) == pytest.approx(0.3208, abs=0.01)


def test_mixup_mixes_images_and_labels_alike() -> None:
    images = torch.rand(1, 32, 3, 5, 5)
    labels = torch.eye(32)
    draws = mix_draws(draw_mix(AugmentationSettings(mixup=1, mixup_alpha=1), (5, 5), 32, stream(0)), CPU)
    share = draws.weight.view(-1, 1)
    torch.testing.assert_close(mix_targets(labels, draws), share * labels + (1 - share) * labels[draws.other])
    expected = share[..., None, None] * images[0] + (1 - share[..., None, None]) * images[0, draws.other]
    torch.testing.assert_close(mix(images, draws)[0], expected)
    assert 0.2 < draws.weight.std() < 0.37  # one λ for each sample; U(0, 1) deviates by 0.289


def test_the_kinds_of_mixture_have_their_probabilities_and_exclude_each_other() -> None:
    chosen = AugmentationSettings(cutmix=0.3, mixup=0.5, mixup_alpha=1)
    draws = mix_draws(draw_mix(chosen, (32, 32), 20_000, stream(0)), CPU)
    top, left, bottom, right = draws.box
    boxed = (bottom > top) & (right > left)
    mixed = draws.weight < 1
    assert not (boxed & mixed).any()
    assert float(boxed.float().mean()) == pytest.approx(0.3, abs=0.02)
    assert float(mixed.float().mean()) == pytest.approx(0.5, abs=0.02)
    untouched = ~boxed & ~mixed
    assert (draws.share[untouched] == 1).all()


def test_what_is_not_mixed_stays_bit_for_bit() -> None:
    images, labels = torch.randn(2, 64, 3, 8, 8), torch.eye(64)
    draws = mix_draws(draw_mix(AugmentationSettings(cutmix=0.2), (8, 8), 64, stream(0)), CPU)
    untouched = draws.share == 1
    assert 30 < int(untouched.sum()) < 64
    assert torch.equal(mix(images, draws)[:, untouched], images[:, untouched])
    assert torch.equal(mix_targets(labels, draws)[untouched], labels[untouched])


def test_partners_mix_with_the_partner_of_the_mixing_partner_under_the_same_box() -> None:
    # View a of sample i is the constant i, view b is 100 + i.
    values = torch.stack([torch.arange(8.0), 100 + torch.arange(8.0)])
    views = values.view(2, 8, 1, 1, 1).expand(2, 8, 1, 16, 16)
    for chosen in (AugmentationSettings(cutmix=1), AugmentationSettings(mixup=1)):
        draws = mix_draws(draw_mix(chosen, (16, 16), 8, stream(1)), CPU)
        mixed = mix(views, draws)
        torch.testing.assert_close(mixed[1], mixed[0] + 100)
        assert not torch.equal(mixed[0], views[0])


def test_a_setting_leaves_the_draws_of_the_others_alone() -> None:
    plain = draw_views(AugmentationSettings(crop=4, flip=True), (32, 32), 0, 16, stream(0))
    jittered = draw_views(AugmentationSettings(crop=4, flip=True, color_jitter=0.5), (32, 32), 8, 16, stream(0))
    assert np.array_equal(plain[:3], jittered[:3])
    assert not np.array_equal(plain[3:], jittered[3:])


def test_preprocess_scales_resizes_and_normalises() -> None:
    images = noise(3, 2, 8, 8)
    mean, std = (0.4, 0.5), (0.2, 0.25)
    unit = images.float() / 255
    expected = torch.stack([(unit[:, 0] - 0.4) / 0.2, (unit[:, 1] - 0.5) / 0.25], 1)
    torch.testing.assert_close(preprocess(images, mean, std, (8, 8)), expected)
    torch.testing.assert_close(preprocess(images, torch.tensor(mean), torch.tensor(std), (8, 8)), expected)
    resized = preprocess(images, (0.0, 0.0), (1.0, 1.0), (4, 6))
    torch.testing.assert_close(resized, reference.resize(unit, [4, 6], antialias=True), atol=1e-6, rtol=0)
    flat = preprocess(torch.full((1, 2, 8, 8), 51, dtype=torch.uint8), (0.2, 0.0), (0.1, 0.1), (32, 32))
    torch.testing.assert_close(flat[0, :, 5, 7], torch.tensor([0.0, 2.0]), atol=1e-6, rtol=0)
