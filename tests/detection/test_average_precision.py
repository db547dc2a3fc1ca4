"""COCO's mean average precision, against torchmetrics with pycocotools and against cases counted by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torchmetrics.detection import MeanAveragePrecision

from kdsearch.tasks.average_precision import average_precision, mean_or_zero

Case = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


def random_case(seed: int, images: int = 30, detections: int = 20, rows: int = 5, classes: int = 4) -> Case:
    """Detections scattered around the objects; some images have neither, some classes no object."""
    random = np.random.default_rng(seed)
    truth = np.zeros((images, rows, 5), np.float32)
    truth[..., :2] = random.uniform(0, 60, (images, rows, 2))
    truth[..., 2:4] = truth[..., :2] + random.uniform(5, 40, (images, rows, 2))
    truth[..., 4] = random.integers(0, classes - 1, (images, rows))
    truth[random.random((images, rows)) < 0.4, 4] = -1
    seen = random.integers(0, rows, (images, detections))
    origin = np.take_along_axis(truth, seen[..., None], 1)
    boxes = origin[..., :4] + random.normal(0, 2, (images, detections, 4)).astype(np.float32)
    boxes[..., 2:] = np.maximum(boxes[..., 2:], boxes[..., :2] + 1)
    labels = np.where(random.random((images, detections)) < 0.7, origin[..., 4], random.integers(0, classes))
    labels = labels.astype(np.int64)
    labels[random.random(images) < 0.2] = -1
    scores = -np.sort(-random.random((images, detections)).astype(np.float32), axis=1)
    place = np.argsort(labels < 0, axis=1, kind="stable")  # as `detect` fills them: the unused places last
    boxes, labels = (np.take_along_axis(part, place[..., None], 1) for part in (boxes, labels[..., None]))
    return boxes, scores, labels[..., 0], truth


def torchmetrics_of(case: Case) -> dict[str, torch.Tensor]:
    # Its own thresholds are rounded to float32, which moves recalls such as 7/25 to the next point: give it COCO's.
    metric = MeanAveragePrecision(
        class_metrics=True,
        iou_thresholds=np.linspace(0.5, 0.95, 10).tolist(),
        rec_thresholds=np.linspace(0, 1, 101).tolist(),
    )
    boxes, scores, labels, truth = (torch.from_numpy(part) for part in case)
    for image in range(len(truth)):
        found, there = labels[image] >= 0, truth[image, :, 4] >= 0
        prediction = {"boxes": boxes[image][found], "scores": scores[image][found], "labels": labels[image][found]}
        target = {"boxes": truth[image, there, :4], "labels": truth[image, there, 4].long()}
        metric.update([prediction], [target])
    answer: dict[str, torch.Tensor] = metric.compute()
    return answer


@pytest.mark.parametrize("seed", range(6))
def test_it_is_that_of_torchmetrics_to_four_digits(seed: int) -> None:
    case = random_case(seed)
    values = average_precision(*case, classes=4)
    expected = torchmetrics_of(case)
    assert 0.05 < expected["map"] < 0.9, "the case says something"
    assert mean_or_zero(values) == pytest.approx(expected["map"].item(), abs=1e-4)
    assert mean_or_zero(values[0]) == pytest.approx(expected["map_50"].item(), abs=1e-4)
    per_class = dict(zip(expected["classes"].tolist(), expected["map_per_class"].tolist(), strict=True))
    for label in range(4):
        if np.isnan(values[0, label]):
            assert per_class.get(label, -1) == -1
        else:
            assert values[:, label].mean() == pytest.approx(per_class[label], abs=1e-4)


def test_images_are_judged_in_portions_of_any_size(monkeypatch: pytest.MonkeyPatch) -> None:
    from kdsearch.tasks import average_precision as module

    case = random_case(1)
    whole = average_precision(*case, classes=4)
    monkeypatch.setattr(module, "IMAGES", 7)
    assert np.array_equal(average_precision(*case, classes=4), whole, equal_nan=True)


def one_image(objects: list[list[float]], found: list[list[float]]) -> Case:
    """Objects (x1, y1, x2, y2, class) and detections (x1, y1, x2, y2, score, class) of one image."""
    rows = np.array(found, np.float32).reshape(1, -1, 6)
    truth = np.array(objects, np.float32).reshape(1, -1, 5)
    return rows[..., :4], rows[..., 4], rows[..., 5].astype(np.int64), truth


def test_half_of_the_objects_found_at_every_recall_up_to_a_half() -> None:
    """Two objects, one found and one missed: precision 1 at the 51 recalls 0 to 0.5 of 101, else 0."""
    case = one_image([[0, 0, 10, 10, 0], [20, 20, 40, 40, 0]], [[0, 0, 10, 10, 0.9, 0]])
    assert average_precision(*case, classes=1)[:, 0] == pytest.approx(np.full(10, 51 / 101))


def test_a_wrong_box_before_the_right_one_halves_the_precision() -> None:
    case = one_image([[0, 0, 10, 10, 0]], [[50, 50, 60, 60, 0.9, 0], [0, 0, 10, 10, 0.8, 0]])
    assert average_precision(*case, classes=1)[:, 0] == pytest.approx(np.full(10, 0.5))


def test_a_box_counts_up_to_its_overlap() -> None:
    """A box 10 wide and 7 high of one 10 wide and 10 high: an overlap of 0.7 is enough for five of ten thresholds."""
    case = one_image([[0, 0, 10, 10, 0]], [[0, 0, 10, 7, 0.9, 0]])
    assert average_precision(*case, classes=1)[:, 0].tolist() == [1] * 5 + [0] * 5


def test_a_second_detection_of_an_object_is_wrong() -> None:
    objects: list[list[float]] = [[0, 0, 10, 10, 0], [20, 20, 30, 30, 0]]
    found: list[list[float]] = [[0, 0, 10, 10, 0.9, 0], [0, 0, 10, 10, 0.8, 0], [20, 20, 30, 30, 0.7, 0]]
    # Precision 1 up to recall 0.5 (51 of 101 points), then 2/3.
    assert average_precision(*one_image(objects, found), classes=1)[0, 0] == pytest.approx((51 + 50 * 2 / 3) / 101)


def test_a_box_of_another_class_finds_nothing() -> None:
    case = one_image([[0, 0, 10, 10, 0]], [[0, 0, 10, 10, 0.9, 1]])
    values = average_precision(*case, classes=3)
    assert values[:, 0].tolist() == [0] * 10
    assert np.isnan(values[:, 1:]).all()


def test_difficult_objects_are_neither_missed_nor_falsely_found() -> None:
    easy: list[float] = [0, 0, 10, 10, 0]
    hard: list[float] = [20, 20, 30, 30, -2]
    found: list[list[float]] = [[20, 20, 30, 30, 0.95, 0], [0, 0, 10, 10, 0.9, 0]]
    assert average_precision(*one_image([easy, hard], found), classes=1)[:, 0].tolist() == [1] * 10
    assert average_precision(*one_image([easy, hard], found[1:]), classes=1)[:, 0].tolist() == [1] * 10
    # One of another class is no excuse.
    other = average_precision(*one_image([easy, [20, 20, 30, 30, -3]], found), classes=2)
    assert other[:, 0].tolist() == [0.5] * 10
    assert np.isnan(other[:, 1]).all()


@pytest.mark.parametrize("objects", [[], [[0, 0, 0, 0, -1]], [[0, 0, 5, 5, 1]]])
def test_nothing_there_or_nothing_found_gives_zero(objects: list[list[float]]) -> None:
    nothing: list[list[float]] = [[0, 0, 0, 0, 0, -1]]
    for found in ([], nothing):
        case = one_image(objects or [[0, 0, 0, 0, -1]], found)
        assert mean_or_zero(average_precision(*case, classes=2)) == 0


def test_a_hundred_images_take_no_time() -> None:
    """It is asked for twice in every epoch."""
    import time

    case = random_case(0, images=100, detections=100)
    started = time.process_time()
    average_precision(*case, classes=4)
    assert time.process_time() - started < 1
