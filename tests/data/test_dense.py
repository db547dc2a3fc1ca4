"""Images with a truth of their own: splits, and batches in which the truth goes where its pixels go."""

from __future__ import annotations

import pickle
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch

from kdsearch import data as data_sets
from kdsearch.data import Batching
from kdsearch.data.base import Batch, DataSet
from kdsearch.data.dense.batches import DenseBatches
from kdsearch.data.dense.loading import dense_dataset
from kdsearch.data.dense.moves import move_boxes, move_map
from kdsearch.data.dense.own import dominant_of_boxes, dominant_of_masks, padded_boxes
from kdsearch.data.dense.source import NO_BOX, OUTSIDE_MASK, DensePart, DenseSource
from kdsearch.data.dense.splits import DenseMemorySplit, DenseStreamedSplit, dense_batches, hold
from kdsearch.errors import BadData, InvalidSetting
from kdsearch.settings import AugmentationSettings, DataSettings

CPU = torch.device("cpu")
SIDE = 12


def masks_and_images(samples: int = 20) -> tuple[np.ndarray, np.ndarray]:
    """Images whose red is their mask times 40, so that a pixel tells which label belongs to it."""
    random = np.random.default_rng(0)
    masks = random.integers(0, 4, (samples, SIDE, SIDE)).astype(np.uint8)
    images = random.integers(0, 255, (samples, 3, SIDE, SIDE)).astype(np.uint8)
    images[:, 0] = masks * 40 + 20
    return images, masks


def segmentation(settings: DataSettings | None = None) -> DataSet:
    images, masks = masks_and_images()
    return dense_dataset({"train": (images, masks)}, settings or DataSettings(name="mine"), "segmentation")


def batches(data: DataSet, seed: int = 0, partners: bool = False, **augmentation: Any) -> DenseBatches:
    resolved = data_sets.resolve(AugmentationSettings(**augmentation), data.augmentation)
    move = partial(move_map, outside=OUTSIDE_MASK)
    return DenseBatches(data, move, Batching(4, resolved, seed, CPU, partners))


def red(batch_images: torch.Tensor, data: DataSet) -> torch.Tensor:
    """The first channel as grey levels again."""
    return ((batch_images[:, 0] * data.std[0] + data.mean[0]) * 255).round()


def same(one: Batch, other: Batch) -> bool:
    return torch.equal(one.images, other.images) and torch.equal(one.targets, other.targets)


def test_a_set_is_divided_in_three_and_nothing_is_in_two_parts() -> None:
    data = segmentation()
    assert (len(data.train), len(data.validation), len(data.test)) == (12, 4, 4)
    seen = [image.numpy().tobytes() for part in (data.train, data.validation, data.test) for image in part.images]  # type: ignore[attr-defined]
    assert len(set(seen)) == 20
    assert data.classes == ("0", "1", "2", "3")


def test_label_fraction_keeps_its_share_and_label_noise_is_refused() -> None:
    assert len(segmentation(DataSettings(name="mine", label_fraction=0.5)).train) == 6
    with pytest.raises(InvalidSetting, match=r"label_noise = 0\.1"):
        segmentation(DataSettings(name="mine", label_noise=0.1))


def test_every_pixel_keeps_its_label_under_crops_and_flips() -> None:
    data = segmentation()
    for batch in batches(data, crop=3, flip=True).epoch(0):
        inside = batch.targets != OUTSIDE_MASK
        assert torch.equal(red(batch.images, data)[inside], batch.targets[inside].float() * 40 + 20)
        assert red(batch.images, data)[~inside].eq(0).all(), "what counts for nothing is what was padded"


def test_pairs_move_apart_and_each_has_its_own_truth() -> None:
    data = segmentation()
    for batch in batches(data, partners=True, crop=2, flip=True).epoch(1):
        assert batch.partners is not None
        assert batch.partner_targets is not None
        inside = batch.partner_targets != OUTSIDE_MASK
        assert torch.equal(red(batch.partners, data)[inside], batch.partner_targets[inside].float() * 40 + 20)
        assert batch.partner_targets.shape == batch.targets.shape


def test_an_epoch_is_a_function_of_its_seed_and_number() -> None:
    data = segmentation()
    first = list(batches(data, seed=5, crop=2, flip=True).epoch(3))
    again = batches(data, seed=5, crop=2, flip=True)
    list(again.epoch(0))
    assert all(same(*pair) for pair in zip(first, again.epoch(3), strict=True))
    assert not same(first[0], next(iter(again.epoch(2))))


def test_streamed_and_held_samples_are_the_same() -> None:
    streamed = segmentation(DataSettings(name="mine", in_memory=False, workers=2))
    held = segmentation(DataSettings(name="mine", in_memory=True))
    assert isinstance(streamed.train, DenseStreamedSplit)
    assert isinstance(held.train, DenseMemorySplit)
    pairs = zip(batches(streamed, flip=True).epoch(0), batches(held, flip=True).epoch(0), strict=True)
    assert all(same(*pair) for pair in pairs)


def test_a_split_travels_without_being_copied() -> None:
    split = segmentation().train
    buffers: list[pickle.PickleBuffer] = []
    content = pickle.dumps(split, protocol=5, buffer_callback=buffers.append)
    assert len(content) < 2000
    again = pickle.loads(content, buffers=buffers)
    assert torch.equal(again.images, split.images)  # type: ignore[attr-defined]
    assert torch.equal(again.truths, split.truths)  # type: ignore[attr-defined]


def test_the_whole_split_comes_once_and_in_order() -> None:
    split = segmentation().validation
    assert isinstance(split, DenseMemorySplit)
    truths = torch.cat([truth for _, truth in dense_batches(split, 3, CPU)])
    assert torch.equal(truths, split.truths[split.rows])
    assert torch.equal(split.rows.sort().values, torch.arange(len(split)))


def test_a_sample_that_stands_many_times_is_held_once() -> None:
    images, masks = masks_and_images(4)
    part = DensePart.of_arrays(images, masks, np.arange(4)).select(np.array([2, 0, 2, 2, 3]))
    split = hold(part)
    assert len(split) == 5
    assert len(split.images) == 3
    shown, truths = next(split.fetch_pairs([torch.arange(5)]))
    assert torch.equal(shown, torch.from_numpy(images[[2, 0, 2, 2, 3]]))
    assert torch.equal(truths, torch.from_numpy(masks[[2, 0, 2, 2, 3]]))
    assert split.targets.tolist() == [2, 0, 2, 2, 3]


@pytest.mark.parametrize("name", ["cutout", "cutmix", "mixup"])
def test_what_has_no_rule_for_truths_is_refused(name: str) -> None:
    with pytest.raises(InvalidSetting, match=f"augmentation.{name}.*no rule for segmentation"):
        batches(segmentation(), **{name: 1})


@dataclass(frozen=True)
class Draws:
    top: torch.Tensor
    left: torch.Tensor
    flip: torch.Tensor


def draws(top: int, left: int, flip: bool) -> Any:
    return Draws(torch.tensor([top]), torch.tensor([left]), torch.tensor([flip]))


def test_boxes_go_where_the_pixels_of_their_objects_go() -> None:
    """Against the map of the same object: moved as a map, its extent is the moved box."""
    random = np.random.default_rng(1)
    for _ in range(50):
        x1, y1 = random.integers(2, 6, 2)
        x2, y2 = random.integers(7, 11, 2)
        mask = torch.zeros(1, SIDE, SIDE, dtype=torch.uint8)
        mask[0, y1:y2, x1:x2] = 1
        drawn = draws(int(random.integers(0, 5)), int(random.integers(0, 5)), bool(random.integers(0, 2)))
        moved = move_boxes(torch.tensor([[[x1, y1, x2, y2, 3.0]]]).float(), drawn, 2, (SIDE, SIDE))
        rows, columns = torch.where(move_map(mask, drawn, 2, 0)[0] == 1)
        extent = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        assert moved[0, 0].tolist() == [float(side) for side in extent] + [3.0]


def test_a_box_whose_centre_leaves_the_image_is_gone_and_padding_stays() -> None:
    truth = torch.tensor([[[0.0, 0, 4, 4, 1], [0, 0, 0, 0, NO_BOX]]])
    moved = move_boxes(truth, draws(8, 4, False), 4, (SIDE, SIDE))  # four pixels up: the centre lies at −2
    assert moved.tolist() == [[[0, 0, 0, 0, NO_BOX]] * 2]


def test_the_dominant_class_is_the_most_frequent_one_that_is_there() -> None:
    masks = np.full((3, 4, 4), OUTSIDE_MASK, np.uint8)
    masks[0, :2], masks[0, 2, :2], masks[0, 3, 0] = 0, 2, 1
    masks[1] = 0
    assert dominant_of_masks(masks).tolist() == [2, 0, 0]
    two_small_one_large = [[0, 0, 1, 1, 1], [2, 2, 3, 3, 1], [0, 0, 9, 9, 0]]
    tie = [[0, 0, 1, 1, 0], [2, 2, 9, 9, 1]]
    boxes = padded_boxes([np.array(rows, np.float32).reshape(-1, 5) for rows in (two_small_one_large, tie, [])])
    assert dominant_of_boxes(boxes).tolist() == [1, 1, 2]


def test_a_persons_boxes_become_rows_and_bad_ones_are_named() -> None:
    images = np.zeros((8, 3, SIDE, SIDE), np.uint8)
    good = [(np.array([[1, 1, 5, 5]]), np.array([0]))] * 8
    data = dense_dataset({"train": (images, good), "classes": ["cat"]}, DataSettings(name="mine"), "detection")
    assert data.classes == ("cat",)
    assert data.train.truths[0].tolist() == [[1, 1, 5, 5, 0]]  # type: ignore[attr-defined]
    bad = [*good[:7], (np.array([[1, 1, 50, 5]]), np.array([0]))]
    with pytest.raises(BadData, match="image 7 has the box 1, 1, 50, 5"):
        dense_dataset({"train": (images, bad)}, DataSettings(name="mine"), "detection")


def test_edges_of_annotators_are_bits() -> None:
    images = np.zeros((6, 3, SIDE, SIDE), np.uint8)
    edges = np.zeros((6, 2, SIDE, SIDE), bool)
    edges[:, 0, 3], edges[:, 1, 3, :4] = True, True
    data = dense_dataset({"train": (images, edges)}, DataSettings(name="mine"), "edges")
    assert data.train.truths[0, 3].tolist() == [3] * 4 + [1] * 8  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("part", "sentence"),
    [
        ((np.zeros((4, 3, 8, 8), np.uint8), np.zeros((4, 8, 6), np.uint8)), "truths are 8×6, images 8×8"),
        ((np.zeros((4, 3, 8, 8), np.uint8), np.zeros((3, 8, 8), np.uint8)), "4 images but 3 truths"),
        ((np.zeros((4, 3, 8, 8), np.uint8), np.zeros((4, 8, 8), np.float32)), "integers .* are needed"),
        ((np.zeros((4, 3, 8, 8), np.uint8), np.full((4, 8, 8), 300)), "masks hold 300 to 300"),
        (np.zeros((4, 3, 8, 8), np.uint8), "a part is a pair"),
    ],
)
def test_truths_that_do_not_fit_are_refused_in_a_sentence(part: Any, sentence: str) -> None:
    with pytest.raises(BadData, match=sentence):
        dense_dataset({"train": part}, DataSettings(name="mine"), "segmentation")


def test_a_row_that_stands_twice_is_two_samples() -> None:
    images, masks = masks_and_images(8)
    part = DensePart.of_arrays(images, masks, dominant_of_masks(masks))
    doubled = part.select(np.array([0, 1, 2, 0]))
    source = DenseSource(doubled, ("a", "b", "c", "d"), 3, (SIDE, SIDE), validation=part, test=part)
    data = dense_dataset(source, DataSettings(name="mine"), "segmentation")
    assert len(data.train) == 4
    (seen,) = data.train.fetch([torch.arange(4)])
    assert torch.equal(seen[0], seen[3])
