"""Batches: what is in them, and that they are a function of seed and epoch alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from kdsearch.data import Batch, Batching, DataSet
from kdsearch.data.batches import Batches, preprocess
from kdsearch.data.partners import Partners
from kdsearch.data.randomness import stream
from kdsearch.errors import InvalidSetting
from kdsearch.settings import AugmentationSettings
from tests.counting import calls

MakeData = Callable[..., DataSet]
CPU = torch.device("cpu")
EVERYTHING = AugmentationSettings(crop=2, flip=True, color_jitter=0.3, cutout=3, cutmix=0.3, mixup=0.3)
NOTHING = AugmentationSettings(crop=0, flip=False, color_jitter=0, cutout=0)


def numbered(make_data: MakeData, classes: list[int], side: int = 6, channels: int = 3, **changes: Any) -> DataSet:
    """Image i is the constant i."""
    values = torch.arange(len(classes)).view(-1, 1, 1, 1).expand(-1, channels, side, side)
    return make_data(values, classes, **changes)


def batches(
    data: DataSet, batch_size: int = 8, augmentation: AugmentationSettings = NOTHING, **changes: Any
) -> Batches:
    arguments: dict[str, Any] = {"seed": 0, "device": CPU, **changes}
    return Batches(data, Batching(batch_size, augmentation, **arguments))


def numbers(images: torch.Tensor) -> list[int]:
    """Which image of `numbered` each is."""
    return (images[:, 0, 0, 0] * 255).round().long().tolist()


def same(one: Batch, other: Batch) -> bool:
    pairs = [(one.images, other.images), (one.targets, other.targets), (one.partners, other.partners)]
    return all(torch.equal(a, b) for a, b in pairs if a is not None and b is not None)


def test_an_epoch_has_every_sample_once_with_its_label_and_drops_the_incomplete_batch(make_data: MakeData) -> None:
    data = numbered(make_data, [index % 5 for index in range(30)])
    source = batches(data, 8)
    epoch = list(source.epoch(0))
    assert source.steps == len(epoch) == 3
    seen = [number for batch in epoch for number in numbers(batch.images)]
    assert len(set(seen)) == 24
    assert [int(label) for batch in epoch for label in batch.targets.argmax(1)] == [number % 5 for number in seen]
    assert all(batch.targets.sum() == 8 for batch in epoch)
    assert epoch[0].partners is None
    left_out = [set(range(30)) - {n for b in source.epoch(e) for n in numbers(b.images)} for e in range(3)]
    assert left_out[0] != left_out[1]  # each epoch drops others


def test_a_set_smaller_than_a_batch_is_one_batch(make_data: MakeData) -> None:
    source = batches(numbered(make_data, [0, 1, 0, 1, 0]), 8)
    assert source.steps == 1
    assert sorted(numbers(next(source.epoch(0)).images)) == [0, 1, 2, 3, 4]


def test_without_augmentation_images_are_those_of_evaluation(make_data: MakeData) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (16, 3, 6, 9), dtype=np.uint8)
    data = make_data(pixels, [0, 1] * 8, mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.1))
    for size in ((6, 9), (12, 12)):
        (batch,) = batches(data, 16, size=size).epoch(0)
        expected = preprocess(data.train.images, data.mean, data.std, size)  # type: ignore[attr-defined]
        order = [int((expected == image).flatten(1).all(1).nonzero()) for image in batch.images]
        assert sorted(order) == list(range(16))


@pytest.mark.parametrize("partners", [False, True])
def test_an_epoch_is_a_function_of_seed_and_number_alone(make_data: MakeData, partners: bool) -> None:
    data = numbered(make_data, [index % 5 for index in range(64)])
    source = batches(data, 16, EVERYTHING, partners=partners)
    for batch in source.epoch(0):  # earlier epochs, their interruption and what a method draws change nothing
        torch.rand(100, generator=batch.generator)
        break
    torch.manual_seed(99)
    later = list(source.epoch(5))
    fresh = list(batches(data, 16, EVERYTHING, partners=partners).epoch(5))
    assert all(same(one, other) for one, other in zip(later, fresh, strict=True))
    draws = [torch.rand(3, generator=batch.generator) for batch in later]
    assert all(torch.equal(draw, torch.rand(3, generator=b.generator)) for draw, b in zip(draws, fresh, strict=True))
    assert not torch.equal(draws[0], draws[1])
    for changed in (source.epoch(6), batches(data, 16, EVERYTHING, partners=partners, seed=1).epoch(5)):
        assert not any(same(one, other) for one, other in zip(later, changed, strict=True))


def test_asking_for_partners_leaves_the_images_alone(make_data: MakeData) -> None:
    data = numbered(make_data, [index % 5 for index in range(64)])
    for one, other in zip(
        batches(data, 16, EVERYTHING).epoch(2), batches(data, 16, EVERYTHING, partners=True).epoch(2), strict=True
    ):
        assert torch.equal(one.images, other.images)
        assert torch.equal(one.targets, other.targets)


@given(st.lists(st.integers(0, 6), min_size=1, max_size=60), st.integers(0, 2**32))
def test_a_partner_is_another_sample_of_the_class_unless_there_is_none(labels: list[int], seed: int) -> None:
    targets = np.array(labels)
    found = Partners(targets)
    indices = np.arange(len(labels))
    partners = found.draw(indices, stream(seed))
    assert np.array_equal(targets[partners], targets)
    alone = np.array([labels.count(label) == 1 for label in labels])
    assert np.array_equal(found.alone, alone)
    assert np.array_equal(partners == indices, alone)


def test_partners_are_uniform_over_the_whole_class() -> None:
    targets = np.array([0, 1, 0, 0, 1, 0, 0])
    drawn = Partners(targets).draw(np.full(40_000, 3), stream(0))
    counts = np.bincount(drawn, minlength=7)
    assert counts[[1, 3, 4]].tolist() == [0, 0, 0]
    # Four others, 10,000 ± 87 each; five deviations.
    assert np.abs(counts[[0, 2, 5, 6]] - 10_000).max() < 440


def test_batches_bring_partners_of_the_same_class(make_data: MakeData) -> None:
    classes = [0] * 10 + [1] * 10 + [2]
    source = batches(numbered(make_data, classes), 21, partners=True)
    (batch,) = source.epoch(0)
    assert batch.partners is not None
    assert batch.has_partner is not None
    for number, partner, has in zip(
        numbers(batch.images), numbers(batch.partners), batch.has_partner.tolist(), strict=True
    ):
        assert classes[number] == classes[partner]
        assert has == (number != partner) == (number != 20)


def test_partners_are_augmented_by_themselves_and_mixed_together(make_data: MakeData) -> None:
    pixels = np.random.default_rng(0).integers(1, 256, (8, 1, 12, 12), dtype=np.uint8)
    alone = make_data(pixels, list(range(8)))  # every image is its own partner: only augmentation tells them apart
    (batch,) = batches(alone, 8, AugmentationSettings(crop=4, flip=True), partners=True).epoch(0)
    assert batch.partners is not None
    assert not any(torch.equal(a, b) for a, b in zip(batch.images, batch.partners, strict=True))
    (mixed,) = batches(alone, 8, AugmentationSettings(cutmix=1), partners=True).epoch(0)
    assert mixed.partners is not None
    assert torch.equal(mixed.images, mixed.partners)


def test_cutout_is_zero_after_normalisation_and_grows_with_the_input(make_data: MakeData) -> None:
    data = make_data(torch.full((4, 3, 8, 8), 200), [0, 1] * 2, mean=(0.3, 0.4, 0.5), std=(0.2, 0.2, 0.2))
    for side, most in ((8, 4), (32, 16)):
        (batch,) = batches(data, 4, AugmentationSettings(cutout=4), size=(side, side)).epoch(0)
        cleared = batch.images == 0
        assert cleared.any((1, 2, 3)).all()
        assert int(cleared[:, 0].any(2).sum(1).max()) <= most
        assert int(cleared[:, 0].sum((1, 2)).max()) > (most // 2) ** 2 - 1


def test_batches_are_laid_out_as_asked(make_data: MakeData) -> None:
    data = numbered(make_data, [0, 1] * 8)
    plain, last = (
        next(batches(data, 8, EVERYTHING, partners=True, channels_last=layout).epoch(0)) for layout in (False, True)
    )
    assert last.partners is not None
    assert last.images.is_contiguous(memory_format=torch.channels_last)
    assert last.partners.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(plain.images, last.images)


@pytest.mark.parametrize(
    ("augmentation", "channels", "reason"),
    [
        ({"color_jitter": 0.2}, 1, r"augmentation.color_jitter = 0.2: the images of 'made' have 1 channel"),
        ({"crop": 6}, 3, r"augmentation.crop = 6: must be below their side"),
        ({"cutout": 7}, 3, r"augmentation.cutout = 7: must not exceed their side"),
    ],
)
def test_augmentation_that_the_images_cannot_have_is_refused(
    make_data: MakeData, augmentation: dict[str, Any], channels: int, reason: str
) -> None:
    data = numbered(make_data, [0, 1] * 8, channels=channels)
    with pytest.raises(InvalidSetting, match=reason):
        batches(data, 8, AugmentationSettings(**augmentation))


def test_a_batch_is_augmented_as_a_whole_and_not_image_by_image(make_data: MakeData) -> None:
    def calls_of(batch_size: int) -> int:
        images = np.random.default_rng(0).integers(0, 256, (4 * batch_size, 3, 32, 32), dtype=np.uint8)
        source = batches(make_data(images, np.arange(len(images)) % 10), batch_size, EVERYTHING)
        list(source.epoch(0))  # imports
        return calls(lambda: list(source.epoch(1)))

    assert 100 < calls_of(128) == calls_of(16)
