"""Loss, metrics and pictures of segmentation, against torchmetrics and cases worked out by hand."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch.nn import functional

from kdsearch import tasks
from kdsearch.data import Batching
from kdsearch.data.base import DataSet
from kdsearch.data.dense.splits import DenseMemorySplit
from kdsearch.errors import BadData
from kdsearch.settings import AugmentationSettings
from kdsearch.tasks.segmentation import BATCH, OUTSIDE_COLOUR, class_iou, palette

CPU = torch.device("cpu")
CLASSES = 5
TASK = tasks.find("segmentation")


def split_of(truths: torch.Tensor) -> DenseMemorySplit:
    """Images whose first two channels hold their row in the split, so that a prediction can be looked up."""
    count, height, width = truths.shape
    images = torch.randint(0, 256, (count, 3, height, width), dtype=torch.uint8)
    images[:, 0], images[:, 1] = (
        torch.arange(count).view(-1, 1, 1).div(256, rounding_mode="floor"),
        torch.arange(count).view(-1, 1, 1) % 256,
    )
    return DenseMemorySplit(images, truths, torch.zeros(count, dtype=torch.int64))


def looked_up(logits: torch.Tensor) -> Callable[[torch.Tensor], torch.Tensor]:
    """A prediction for each image of `split_of`: the logits of its row."""

    def predict(images: torch.Tensor) -> torch.Tensor:
        return logits[images[:, 0, 0, 0].long() * 256 + images[:, 1, 0, 0].long()]

    return predict


def data_of(split: DenseMemorySplit, train: DenseMemorySplit | None = None) -> DataSet:
    return DataSet(
        name="small",
        task="segmentation",
        train=train or split,
        validation=split,
        test=split,
        classes=tuple("abcde"),
        channels=3,
        size=(split.truths.shape[1], split.truths.shape[2]),
        mean=(0.5, 0.5, 0.5),
        std=(0.2, 0.2, 0.2),
        augmentation=AugmentationSettings(crop=0, flip=False, color_jitter=0.0, cutout=0),
    )


def random_case(count: int = BATCH + 5, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Truths of four of the five classes, a fifth of them not counting, and logits that are right half of the time."""
    source = torch.Generator().manual_seed(seed)
    truths = torch.randint(0, CLASSES - 1, (count, 9, 11), generator=source)
    logits = torch.randn(count, CLASSES, 9, 11, generator=source)
    logits += 2 * functional.one_hot(truths, CLASSES).permute(0, 3, 1, 2)
    truths[torch.rand(truths.shape, generator=source) < 0.2] = 255
    return truths.to(torch.uint8), logits


def test_loss_is_the_mean_over_the_pixels_that_count() -> None:
    truths, logits = random_case(4)
    by_hand = []
    log_p = logits.log_softmax(1)
    for image in range(4):
        for y in range(9):
            for x in range(11):
                label = int(truths[image, y, x])
                if label != 255:
                    by_hand.append(-log_p[image, label, y, x].item())
    assert TASK.loss(logits, truths).item() == pytest.approx(sum(by_hand) / len(by_hand), rel=1e-5)


def test_where_nothing_counts_the_loss_is_nothing_and_so_is_its_gradient() -> None:
    logits = torch.randn(2, 3, 4, 4, requires_grad=True)
    loss = TASK.loss(logits, torch.full((2, 4, 4), 255, dtype=torch.uint8))
    loss.backward()
    assert loss.item() == 0
    assert logits.grad is not None
    assert not logits.grad.any()


def test_miou_is_that_of_a_case_worked_out_by_hand() -> None:
    """Class 0: 2 pixels shared of 3; class 1: 2 of 2; class 2 is found where there is none: 0 of 1; class 3 does not
    occur, and class 4 only where it does not count."""
    truths = torch.tensor([[[0, 0, 0], [1, 1, 255]]], dtype=torch.uint8)
    found = torch.tensor([[[0, 0, 2], [1, 1, 4]]])
    logits = functional.one_hot(found, CLASSES).permute(0, 3, 1, 2).float()
    measured = TASK.evaluate(looked_up(logits), split_of(truths), CPU)
    assert measured["miou"] == pytest.approx((2 / 3 + 2 / 2 + 0 / 1) / 3)
    assert measured["pixel_accuracy"] == pytest.approx(4 / 5)
    right, wrong = math.log(math.e + 4) - 1, math.log(math.e + 4)
    assert measured["loss"] == pytest.approx((4 * right + wrong) / 5, rel=1e-5)


@pytest.mark.parametrize("seed", range(3))
def test_metrics_agree_with_torchmetrics(seed: int) -> None:
    from torchmetrics import classification

    truths, logits = random_case(seed=seed)
    measured = TASK.evaluate(looked_up(logits), split_of(truths), CPU)
    options = {"num_classes": CLASSES, "ignore_index": 255}
    iou = classification.MulticlassJaccardIndex(average="macro", **options)(logits, truths.long())
    accuracy = classification.MulticlassAccuracy(average="micro", **options)(logits, truths.long())
    assert measured["miou"] == pytest.approx(iou.item(), abs=1e-6)
    assert measured["pixel_accuracy"] == pytest.approx(accuracy.item(), abs=1e-6)
    loss = functional.cross_entropy(logits, truths.long(), ignore_index=255)
    assert measured["loss"] == pytest.approx(loss.item(), rel=1e-5)
    alone = classification.MulticlassJaccardIndex(average="none", **options)(logits, truths.long())
    evidence = TASK.evidence(looked_up(logits), data_of(split_of(truths)), CPU).facts["per_class_iou"]
    assert list(evidence) == list("abcde")
    assert [evidence[name] for name in "abcd"] == pytest.approx(alone[:4].tolist(), abs=1e-6)


def test_a_class_that_neither_occurs_nor_is_found_has_no_iou() -> None:
    assert class_iou(torch.tensor([[3, 1, 0], [0, 2, 0], [0, 0, 0]])) == [3 / 4, 2 / 3, None]


def test_a_perfect_answer_scores_one_and_a_void_split_the_worst() -> None:
    truths, _ = random_case(3)
    right = functional.one_hot(truths.long() % 255, CLASSES).permute(0, 3, 1, 2).float()
    assert TASK.evaluate(looked_up(right), split_of(truths), CPU)["miou"] == 1
    void = TASK.evaluate(looked_up(right), split_of(torch.full_like(truths, 255)), CPU)
    assert void == {"miou": TASK.worst, "pixel_accuracy": 0.0, "loss": 0.0}


def test_the_palette_is_that_of_voc() -> None:
    """The colours that the development kit's documentation prints."""
    colours = palette()
    published = {0: (0, 0, 0), 1: (128, 0, 0), 2: (0, 128, 0), 7: (128, 128, 128), 8: (64, 0, 0), 15: (192, 128, 128)}
    assert {label: tuple(colours[label].tolist()) for label in (*published, 20)} == published | {20: (0, 64, 128)}
    assert len({tuple(colour) for colour in colours[:21].tolist()} | {OUTSIDE_COLOUR}) == 22


def test_panels_show_the_same_images_beside_truth_and_answers() -> None:
    truths, logits = random_case(9)
    split = split_of(truths)
    panels = TASK.panels(looked_up(logits), data_of(split), CPU)
    assert list(panels) == ["input", "target", "student"]
    rows = [0, 2, 5, 8]
    for place, row in enumerate(rows):
        np.testing.assert_array_equal(panels["input"][place], split.images[row].numpy())
        shown = palette()[truths[row].numpy()].transpose(2, 0, 1)
        np.testing.assert_array_equal(panels["target"][place], shown)
        np.testing.assert_array_equal(
            panels["student"][place], palette()[logits[row].argmax(0).numpy()].transpose(2, 0, 1)
        )
    taught = TASK.panels(looked_up(logits), data_of(split), CPU, looked_up(-logits))
    assert list(taught) == ["input", "target", "teacher", "student"]
    assert not np.array_equal(taught["teacher"][0], taught["student"][0])


def test_a_crop_brings_in_pixels_that_do_not_count_and_masks_follow_their_images() -> None:
    truths = torch.randint(0, CLASSES, (8, 12, 12), dtype=torch.uint8)
    split = split_of(truths)
    split.images[:, 2] = 20 * truths + 40
    data = data_of(split)
    augmentation = AugmentationSettings(crop=3, flip=True, color_jitter=0.0, cutout=0)
    made = TASK.batches(data, Batching(4, augmentation, seed=0, device=CPU, partners=True))
    outside = 0
    for batch in made.epoch(0):
        assert batch.partners is not None
        assert batch.partner_targets is not None
        for images, masks in ((batch.images, batch.targets), (batch.partners, batch.partner_targets)):
            blue = ((images[:, 2] * 0.2 + 0.5) * 255).round()
            counts = masks != 255
            outside += int((~counts).sum())
            torch.testing.assert_close(blue[counts], masks[counts] * 20.0 + 40)
            assert not blue[~counts].any()
    assert outside > 0


def test_one_training_image_is_too_few() -> None:
    split = split_of(torch.zeros(1, 8, 8, dtype=torch.uint8))
    with pytest.raises(BadData, match="at least two"):
        TASK.batches(data_of(split), Batching(4, AugmentationSettings(), seed=0, device=CPU))


def test_masks_of_which_no_pixel_counts_are_refused() -> None:
    split = split_of(torch.full((4, 8, 8), 255, dtype=torch.uint8))
    with pytest.raises(BadData, match="has a pixel that counts: there is nothing to learn"):
        TASK.batches(data_of(split), Batching(4, AugmentationSettings(), seed=0, device=CPU))
