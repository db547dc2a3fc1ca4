"""The task of edges: its loss and its Dice against counting by hand, what does not count, and its pictures."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torchmetrics.functional import f1_score

from kdsearch import tasks
from kdsearch.data import Batching
from kdsearch.data.base import DataSet
from kdsearch.data.dense.batches import DenseBatches
from kdsearch.data.dense.source import OUTSIDE_EDGES
from kdsearch.data.dense.splits import DenseMemorySplit
from kdsearch.errors import BadData
from kdsearch.settings import AugmentationSettings
from kdsearch.tasks.edges import Edges, dice_coefficients, edge_loss

CPU = torch.device("cpu")


@pytest.fixture
def task() -> Edges:
    found = tasks.find("edges")
    assert isinstance(found, Edges)
    return found


def data_of(truths: torch.Tensor) -> DataSet:
    """Images whose red channel is 255 where bit 0 is set."""
    images = torch.zeros(len(truths), 3, *truths.shape[1:], dtype=torch.uint8)
    images[:, 0] = (truths & 1).to(torch.uint8) * 255
    split = DenseMemorySplit(images, truths, torch.zeros(len(truths), dtype=torch.int64))
    return DataSet(
        name="bits",
        task="edges",
        train=split,
        validation=split,
        test=split,
        classes=("edge",),
        channels=3,
        size=(truths.shape[1], truths.shape[2]),
        mean=(0.5, 0.5, 0.5),
        std=(0.5, 0.5, 0.5),
        augmentation=AugmentationSettings(),
    )


def red(images: torch.Tensor) -> torch.Tensor:
    """Sure of an edge where an image is red, and of none elsewhere."""
    return (images[:, :1].float() / 255 - 0.5) * 20


def random_truths(images: int = 5, side: int = 12) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    bits = torch.randint(0, 8, (images, side, side), generator=generator)
    return torch.where(torch.rand(bits.shape, generator=generator) < 0.8, 0, bits).to(torch.int16)


def test_loss_is_weighted_cross_entropy_over_the_pixels_that_count() -> None:
    logits = torch.tensor([[[[0.3, -1.2], [2.0, 0.7]]]])
    truth = torch.tensor([[[5, 0], [0, OUTSIDE_EDGES | 1]]], dtype=torch.int16)

    def log_sigmoid(value: float) -> float:
        return -math.log(1 + math.exp(-value))

    by_hand = -(7 * log_sigmoid(0.3) + log_sigmoid(1.2) + log_sigmoid(-2.0)) / 3
    assert edge_loss(logits, truth, 7.0).item() == pytest.approx(by_hand, rel=1e-6)
    assert edge_loss(logits, truth, torch.tensor(7.0)).item() == pytest.approx(by_hand, rel=1e-6)


def test_an_image_that_does_not_count_anywhere_has_no_loss(task: Edges) -> None:
    truth = torch.full((1, 2, 2), OUTSIDE_EDGES, dtype=torch.int16)
    logits = torch.randn(1, 1, 2, 2, requires_grad=True)
    loss = task.loss(logits, truth)
    loss.backward()
    assert loss.item() == 0
    assert logits.grad is not None
    assert not logits.grad.any()


def test_dice_is_the_f1_score_of_each_image() -> None:
    random = torch.Generator().manual_seed(1)
    predicted, edges = (torch.rand(6, 1, 9, 7, generator=random) < 0.4 for _ in range(2))
    expected = [f1_score(p, e, task="binary") for p, e in zip(predicted, edges.int(), strict=True)]
    torch.testing.assert_close(dice_coefficients(predicted, edges), torch.stack(expected).double(), atol=1e-6, rtol=0)


def test_dice_of_nothing_is_1_where_nothing_is_there_and_0_elsewhere() -> None:
    none, some = torch.zeros(1, 1, 2, 2, dtype=torch.bool), torch.ones(1, 1, 2, 2, dtype=torch.bool)
    assert dice_coefficients(none, none).item() == 1
    assert dice_coefficients(none, some).item() == dice_coefficients(some, none).item() == 0


def test_evaluation_is_the_mean_over_images_of_what_counts(task: Edges) -> None:
    truths = torch.zeros(2, 4, 4, dtype=torch.int16)
    truths[0, 0] = torch.tensor([1, 3, 2, 4], dtype=torch.int16)  # red sees the first two of four
    truths[1, 1, :2] = 1
    truths[1, 2] = OUTSIDE_EDGES | 1  # neither right nor wrong
    metrics = task.evaluate(red, data_of(truths).validation, CPU)
    assert metrics["dice"] == pytest.approx((2 * 2 / (2 + 4) + 1) / 2, abs=1e-12)
    sure, wrong = math.log1p(math.exp(-10)), math.log1p(math.exp(10))
    # Of 28 pixels that count 4 are edges that are seen, 2 are edges that are not, 22 are ground.
    assert metrics["loss"] == pytest.approx((10 * (4 * sure + 2 * wrong) + 22 * sure) / 28, rel=1e-5)


def test_the_truth_of_one_annotator_has_full_marks(task: Edges) -> None:
    truths = torch.zeros(2, 30, 40, dtype=torch.int16)
    truths[0, 5, 3:30] = 1
    truths[1, 4:20, 7] = 1
    found = task.final_metrics(red, data_of(truths).validation, CPU)
    assert found["ods"] == found["ois"] == 1
    assert 0 < found["ods_threshold"] < 1


def test_a_thick_line_is_thinned_before_it_is_matched(task: Edges) -> None:
    truths = torch.zeros(1, 30, 40, dtype=torch.int16)
    truths[0, 10:13, 5:35] = 1
    truths[0, 11, 5:35] |= 2
    truths[0, [10, 12]] *= OUTSIDE_EDGES + 1  # annotator 0 only makes the picture red
    data = data_of(truths)
    thin = truths.clone()
    thin[0, [10, 12]] = 0
    split = DenseMemorySplit(data.validation.images, (thin & 2), torch.zeros(1, dtype=torch.int64))  # type: ignore[attr-defined]
    found = task.final_metrics(red, split, CPU)
    assert found["ods"] > 0.95  # a line of 30 that thinning shortens at its ends


def test_targets_move_with_their_images_and_what_comes_in_does_not_count(task: Edges) -> None:
    data = data_of(random_truths(8))
    settings = AugmentationSettings(crop=3, flip=True, color_jitter=0.0, cutout=0)
    batches = task.batches(data, Batching(8, settings, seed=0, device=CPU))
    assert isinstance(batches, DenseBatches)
    (batch,) = batches.epoch(0)
    inside = (batch.targets & OUTSIDE_EDGES) == 0
    assert torch.equal(batch.images[:, 0] > 0, (batch.targets & 1 == 1) & inside)
    assert 0 < (~inside).sum() < inside.sum()


@pytest.mark.parametrize("taught", [False, True])
def test_panels_show_probabilities_beside_the_edges(task: Edges, taught: bool) -> None:
    data = data_of(random_truths(6))
    panels = task.panels(red, data, CPU, (lambda images: 0 * red(images)) if taught else None)
    assert list(panels) == ["input", "target", *(["teacher"] if taught else []), "student"]
    assert {len(column) for column in panels.values()} == {4}
    truths = data.validation.truths  # type: ignore[attr-defined]
    assert np.array_equal(panels["target"][0][0] == 255, truths[0].numpy() != 0)
    assert np.array_equal(panels["student"][0][0] > 127, truths[0].numpy() & 1 == 1)
    if taught:
        assert {int(value) for picture in panels["teacher"] for value in np.unique(picture)} == {128}


def test_the_output_is_one_logit_a_pixel(task: Edges) -> None:
    data = data_of(random_truths(2))
    assert task.outputs(data) == 1
    assert task.shape(data) == (1, 12, 12)
    assert task.shape(replace(data, size=(3, 5))) == (1, 3, 5)


def test_a_training_set_without_any_edge_is_refused(task: Edges) -> None:
    with pytest.raises(BadData, match="has an edge: there is nothing to learn"):
        task.batches(
            data_of(torch.zeros_like(random_truths(4))), Batching(4, AugmentationSettings(), seed=0, device=CPU)
        )
