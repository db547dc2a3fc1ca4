"""The F-measure of boundaries as in the Berkeley benchmark: one-to-one matching of pixels, then ODS and OIS.

P. Arbeláez, M. Maire, C. Fowlkes, J. Malik: Contour Detection and Hierarchical Image Segmentation, TPAMI 2011; its
matching: D. Martin, C. Fowlkes, J. Malik: Learning to Detect Natural Image Boundaries, TPAMI 2004.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from kdsearch.data.dense.edge_maps import thin

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Mask = NDArray[np.bool_]
    Places = NDArray[np.int64]

RADIUS = 0.0075
"""How far apart two matched pixels may lie, as a share of the image's diagonal."""
THRESHOLDS = np.arange(1, 34) / 34
"""33 probabilities, evenly over (0, 1) as the benchmark spaces its 99."""


@dataclass(frozen=True)
class Counts:
    """Pixels of an image, or of several together, at each of T thresholds: int64 [T] each."""

    found: NDArray[np.int64]
    """Annotated pixels with a predicted one of their own, summed over annotators."""
    annotated: NDArray[np.int64]
    """Annotated pixels, summed over annotators."""
    right: NDArray[np.int64]
    """Predicted pixels that were matched with one of some annotator."""
    predicted: NDArray[np.int64]

    def f_measure(self) -> NDArray[np.float64]:
        """2·P·R / (P + R) with precision P = right / predicted and recall R = found / annotated; 0 where both are 0."""
        precision = self.right / np.maximum(self.predicted, 1)
        recall = self.found / np.maximum(self.annotated, 1)
        total = precision + recall
        measure: NDArray[np.float64] = 2 * precision * recall / np.where(total > 0, total, 1)
        return measure

    def at(self, place: int) -> Counts:
        """The counts at one threshold alone, T = 1."""
        return Counts(*(values[place : place + 1] for values in self.columns))

    @property
    def columns(self) -> tuple[NDArray[np.int64], ...]:
        return self.found, self.annotated, self.right, self.predicted


class FMeasures(NamedTuple):
    """Of a set of images."""

    ods: float
    """At the one threshold that is best for all images together (optimal dataset scale)."""
    ois: float
    """At the threshold that is best for each image (optimal image scale)."""
    threshold: float
    """That of `ods`."""


def f_measures(counts: Sequence[Counts], thresholds: NDArray[np.float64] = THRESHOLDS) -> FMeasures:
    """ODS and OIS of the counts of each image; both are F-measures of counts that are summed over the images.

    OIS can lie below ODS by a little: the best of each image need not sum to the best of all.
    The benchmark also interpolates between neighbouring thresholds, which can add to the third decimal; here the best
    of the thresholds is taken as it is.
    """
    together = _sum(counts).f_measure()
    best = int(together.argmax())
    each = _sum([image.at(int(image.f_measure().argmax())) for image in counts]).f_measure()
    return FMeasures(float(together[best]), float(each[0]), float(thresholds[best]))


def count(
    probabilities: NDArray[np.float32],
    annotators: Sequence[Mask],
    counted: Mask,
    thresholds: NDArray[np.float64] = THRESHOLDS,
) -> Counts:
    """What of one image's boundaries is found at each threshold.

    At each threshold the pixels whose probability reaches it are thinned to lines (`edge_maps.thin`, the algorithm that
    the benchmark applies). Published detectors suppress what is no maximum across an edge before; here nothing but the
    thinning stands between a network's output and the matching.

    Args:
        probabilities: [H, W] in [0, 1].
        annotators: maps [H, W] of those who mark anything; matched as they are.
        counted: [H, W], the picture within its frame: nothing beyond it is predicted, and the diagonal is its own.
        thresholds: T of them.
    """
    radius = RADIUS * _diagonal(counted)
    annotated = [np.argwhere(marks) for marks in annotators]
    total = sum(map(len, annotated))
    columns = []
    for threshold in thresholds:
        lines = np.argwhere(thin((probabilities >= threshold) & counted))
        right = np.zeros(len(lines), dtype=bool)
        found = 0
        for marks in annotated:
            of_lines, of_marks = match(lines, marks, radius)
            right[of_lines] = True
            found += len(of_marks)
        columns.append((found, total, int(right.sum()), len(lines)))
    return Counts(*np.array(columns, dtype=np.int64).T)


def match(first: Places, second: Places, radius: float) -> tuple[Places, Places]:
    """Pairs of two sets of pixels, at most `radius` apart, each pixel in one pair only.

    Of all ways to pair as many as possible, one with the least sum of distances, as the benchmark's (which gives an
    unmatched pixel a cost of 100 radii). With dilation one pixel could stand for all that are near it.

    Args:
        first: rows and columns, int64 [N, 2].
        second: likewise [M, 2].
        radius: in pixels.

    Returns:
        The indices of the pixels of each pair among the first and among the second, int64 [P] each.
    """
    from scipy.sparse import csr_array  # type: ignore[import-untyped]
    from scipy.sparse.csgraph import min_weight_full_bipartite_matching  # type: ignore[import-untyped]
    from scipy.spatial import cKDTree  # type: ignore[import-untyped]

    none = np.empty(0, dtype=np.int64)
    if not len(first) or not len(second):
        return none, none
    pairs = cKDTree(first).sparse_distance_matrix(cKDTree(second), radius, output_type="ndarray")
    if not len(pairs):
        return none, none
    near, row = np.unique(pairs["i"], return_inverse=True)
    # Each row may take a column of its own in place of a partner, at a price that no saving of distances can pay.
    alone = np.arange(len(near))
    price = np.full(len(near), (radius + 1) * (len(near) + 1))
    cost = np.concatenate([pairs["v"], price]) + 1  # an entry of 0 would be none; 1 a row changes no comparison
    place = np.concatenate([row, alone]), np.concatenate([pairs["j"], len(second) + alone])
    table = csr_array((cost, place), shape=(len(near), len(second) + len(near)))
    rows, partners = min_weight_full_bipartite_matching(table)
    real = partners < len(second)
    return near[rows[real]].astype(np.int64), partners[real].astype(np.int64)


def _diagonal(counted: Mask) -> float:
    """Of the rectangle around the pixels that count."""
    if not counted.any():
        return 0.0
    sides = [np.flatnonzero(counted.any(axis)) for axis in (0, 1)]
    return float(np.hypot(*(side[-1] - side[0] + 1 for side in sides)))


def _sum(counts: Sequence[Counts]) -> Counts:
    return Counts(*(np.sum(columns, axis=0) for columns in zip(*(one.columns for one in counts), strict=True)))
