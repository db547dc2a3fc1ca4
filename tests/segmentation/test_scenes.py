"""The drawn scenes: a function of the seed, whose masks tell the truth about the pictures."""

from __future__ import annotations

import numpy as np
import torch

from kdsearch import data as data_sets
from kdsearch.data.base import DataSet
from kdsearch.data.randomness import stream
from kdsearch.data.sets import scenes
from kdsearch.settings import DataSettings


def loaded(**settings: int) -> DataSet:
    return data_sets.load(DataSettings(name="scenes", **settings), "segmentation")  # type: ignore[arg-type]


def test_the_set_is_what_its_name_promises() -> None:
    data = loaded(samples=40)
    assert [len(part) for part in (data.train, data.validation, data.test)] == [40, 150, 150]
    assert data.classes == ("background", "disc", "ring", "square", "triangle", "cross")
    assert (data.channels, data.size, data.task) == (3, (48, 48), "segmentation")
    ((images, masks),) = data.train.fetch_pairs([torch.arange(40)])  # type: ignore[attr-defined]
    assert (images.shape, images.dtype) == ((40, 3, 48, 48), torch.uint8)
    assert (masks.shape, masks.dtype) == ((40, 48, 48), torch.uint8)
    assert set(masks.unique().tolist()) == {0, 1, 2, 3, 4, 5, 255}


def test_the_same_seed_draws_the_same_and_validation_does_not_depend_on_the_number_of_samples() -> None:
    first, again, more, other = loaded(samples=20), loaded(samples=20), loaded(samples=30), loaded(samples=20, seed=1)
    assert torch.equal(first.train.images, again.train.images)  # type: ignore[attr-defined]
    assert torch.equal(first.train.truths, again.train.truths)  # type: ignore[attr-defined]
    assert torch.equal(first.validation.images, more.validation.images)  # type: ignore[attr-defined]
    assert not torch.equal(first.train.images, other.train.images)  # type: ignore[attr-defined]


def test_figures_stand_out_from_the_ground_where_the_mask_says_so() -> None:
    """Inside a figure the colour is its own up to noise; across its outline it changes."""
    part = scenes.draw(200, stream(0, "test"))
    samples = [part.read(row) for row in range(200)]
    inside, across = [], []
    for image, mask in samples:
        grey = image.astype(np.float64)
        for label in range(1, 6):
            pixels = grey[:, mask == label]
            if pixels.shape[1] > 60:
                inside.append(pixels.std(1).mean())
                across.append(np.abs(pixels.mean(1) - grey[:, mask == 0].mean(1)).max())
    assert np.mean(across) > 2 * np.mean(inside)


def test_classes_are_drawn_alike_and_most_of_a_scene_is_ground() -> None:
    part = scenes.draw(600, stream(0, "test"))
    masks = np.stack([part.read(row)[1] for row in range(600)])
    counts = np.bincount(masks.ravel(), minlength=256)
    assert 0.5 < counts[0] / masks.size < 0.8
    assert 0.02 < counts[255] / masks.size < 0.1
    present = np.array([[(mask == label).any() for label in range(1, 6)] for mask in masks]).mean(0)
    assert (present > 0.3).all()
    assert (np.bincount(part.labels, minlength=6)[1:] > 40).all()


def test_the_dominant_class_is_the_most_frequent_beside_the_ground() -> None:
    part = scenes.draw(30, stream(3, "test"))
    for row, label in enumerate(part.labels.tolist()):
        mask = part.read(row)[1]
        counts = [int((mask == other).sum()) for other in range(1, 6)]
        assert counts[label - 1] == max(counts) > 0
