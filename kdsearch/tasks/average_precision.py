"""Average precision as COCO measures it, over all images and thresholds at once.

T.-Y. Lin et al., "Microsoft COCO: Common Objects in Context", ECCV 2014; the same numbers as pycocotools' (all areas,
100 detections an image), in a hundredth of its time: it is asked for in every epoch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.floating]

THRESHOLDS = np.linspace(0.5, 0.95, 10)
IMAGES = 500
"""Images whose overlaps are in memory at once."""
_RECALLS = np.linspace(0, 1, 101)


def average_precision(
    boxes: Floats, scores: Floats, labels: NDArray[np.int64], truth: Floats, classes: int
) -> NDArray[np.float64]:
    """Average precision [10, K] at overlaps 0.50 to 0.95 of each class; NaN for classes without objects.

    Of one class and image the surest detection comes first and takes the object it overlaps most of those not taken.
    A detection that takes none but overlaps a difficult object is left out of account.

    Args:
        boxes: detections [N, D, 4], in each image the surest first.
        scores: [N, D].
        labels: int64 [N, D], −1 where there is no detection.
        truth: [N, M, 5]; class c < −1 is a difficult object of class −2 − c, −1 is no object.
        classes: K.
    """
    objects = truth[..., 4].astype(np.int64)
    places = [slice(first, first + IMAGES) for first in range(0, len(truth), IMAGES)]
    judged = [_judge(boxes[place], labels[place], truth[place], objects[place]) for place in places]
    right, excused = (np.concatenate(parts, axis=1) for parts in zip(*judged, strict=True))
    values = np.full((len(THRESHOLDS), classes), np.nan)
    for label in range(classes):
        total = int((objects == label).sum())
        if total:
            own = labels == label
            order = np.argsort(-scores[own], kind="stable")
            values[:, label] = [
                _interpolated(hit[own][order], ~(hit | excuse)[own][order], total)
                for hit, excuse in zip(right, excused, strict=True)
            ]
    return values


def mean_or_zero(values: NDArray[np.float64]) -> float:
    """The mean over classes that have objects; 0 where none has."""
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else 0.0


def _judge(
    boxes: Floats, labels: NDArray[np.int64], truth: Floats, objects: NDArray[np.int64]
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Which detections take an object and which are excused by a difficult one, at each threshold: [10, N, D] each."""
    overlaps = _overlaps(boxes.astype(np.float64), truth[..., :4].astype(np.float64))
    here = labels >= 0
    sought = np.where((labels[:, :, None] == objects[:, None]) & here[:, :, None], overlaps, -1.0)
    hard = np.where((labels[:, :, None] == -2 - objects[:, None]) & here[:, :, None], overlaps, -1.0).max(2)
    thresholds = THRESHOLDS[:, None]
    right = np.zeros((len(THRESHOLDS), *labels.shape), dtype=bool)
    taken = np.zeros((len(THRESHOLDS), len(truth), truth.shape[1]), dtype=bool)
    images = np.arange(len(truth))
    for place in range(int(here.sum(1).max(initial=0))):
        free = np.where(taken, -1.0, sought[:, place])
        best = free.argmax(2)
        hit = np.take_along_axis(free, best[..., None], 2)[..., 0] >= thresholds
        right[:, :, place] = hit
        level, image = np.nonzero(hit)
        taken[level, images[image], best[level, image]] = True
    return right, ~right & (hard >= thresholds[..., None])


def _overlaps(boxes: NDArray[np.float64], others: NDArray[np.float64]) -> NDArray[np.float64]:
    """Intersection over union: [N, D, 4] and [N, M, 4] → [N, D, M]."""
    low = np.maximum(boxes[:, :, None, :2], others[:, None, :, :2])
    high = np.minimum(boxes[:, :, None, 2:], others[:, None, :, 2:])
    common = np.clip(high - low, 0, None).prod(-1)
    areas = [(rows[..., 2:] - rows[..., :2]).prod(-1) for rows in (boxes, others)]
    union = areas[0][:, :, None] + areas[1][:, None] - common
    overlaps: NDArray[np.float64] = common / np.maximum(union, np.finfo(float).tiny)
    return overlaps


def _interpolated(right: NDArray[np.bool_], wrong: NDArray[np.bool_], total: int) -> float:
    """Mean over 101 recalls of the best precision at that recall or beyond it; detections the surest first."""
    hits = right.cumsum()
    recall = hits / total
    precision = hits / np.maximum(hits + wrong.cumsum(), 1)
    precision = np.maximum.accumulate(precision[::-1])[::-1]
    place = np.searchsorted(recall, _RECALLS, side="left")
    return float(np.append(precision, 0.0)[place].mean())
