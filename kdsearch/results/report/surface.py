"""A smooth estimate of the score over two hyperparameters, for the eye: no value of it is reported."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from kdsearch.results.report.axes import Axis

CELLS = 48
"""Along a range."""
FAR = 1.6
"""Bandwidths from the nearest trial, beyond which nothing is estimated."""


class Stretch(NamedTuple):
    """Neighbouring cells of a row in one band."""

    left: float
    right: float
    bottom: float
    top: float
    band: int


def bands(
    across: Axis, up: Axis, places: NDArray[np.float64], values: NDArray[np.float64], count: int
) -> tuple[list[Stretch], list[float]]:
    """The mean score near each place of two axes, in `count` bands of equal width, and the bands' edges.

    Nadaraya–Watson regression with a Gaussian kernel; choices, and off and on, are no neighbours of each other. Cells
    far from every trial are left out.

    Args:
        across, up: the axes.
        places: [N, 2], positions on them.
        values: [N], the scores.
        count: the number of bands.
    """
    bandwidth = max(0.05, 0.3 * len(values) ** (-1 / 6))  # Scott's rule for two dimensions, of a uniform spread
    columns, rows = across.cells(CELLS), up.cells(CELLS)
    distance_across = _distances(across, columns, places[:, 0], bandwidth)
    distance_up = _distances(up, rows, places[:, 1], bandwidth)
    estimates = np.full((len(rows), len(columns)), np.nan)
    for row in range(len(rows)):
        squared = distance_across + distance_up[row]  # [columns, N]
        near = squared.min(axis=1) < FAR**2
        weights = np.exp(-squared[near] / 2)
        estimates[row, near] = weights @ values / weights.sum(axis=1)
    low, high = float(np.nanmin(estimates)), float(np.nanmax(estimates))
    edges = np.linspace(low, high, count + 1) if high > low else np.asarray([low, high])
    banded = np.clip(np.searchsorted(edges[1:-1], estimates, side="right"), 0, len(edges) - 2)
    banded[np.isnan(estimates)] = -1
    return [stretch for row in range(len(rows)) for stretch in _runs(banded[row], columns, rows[row])], edges.tolist()


def _distances(
    axis: Axis, cells: Sequence[tuple[float, float]], places: NDArray[np.float64], bandwidth: float
) -> NDArray[np.float64]:
    """Squared distances in bandwidths between the middle of each cell and each place, [cells, N]; infinite between
    segments."""
    middles = np.asarray([(start + end) / 2 for start, end in cells])
    squared = ((middles[:, None] - places[None]) / bandwidth) ** 2
    segments = np.asarray([axis.segment(place) for place in places])
    same = np.asarray([axis.segment(middle) for middle in middles])[:, None] == segments[None]
    discrete = bool(axis.choices)
    return np.where(same, 0.0 if discrete else squared, np.inf)


def _runs(banded: NDArray[np.int64], columns: Sequence[tuple[float, float]], row: tuple[float, float]) -> list[Stretch]:
    """The row's cells, neighbours of one band merged; those without an estimate are left out."""
    found: list[Stretch] = []
    for (left, right), band in zip(columns, banded.tolist(), strict=True):
        if found and found[-1].band == band:
            found[-1] = found[-1]._replace(right=right)
        else:
            found.append(Stretch(left, right, *row, band))
    return [stretch for stretch in found if stretch.band >= 0]
