"""Figures that the drawn sets are made of: what is inside of each, and how much of every pixel a turned one covers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Floats = NDArray[np.float32]
    Mask = NDArray[np.bool_]

OVERSAMPLING = 2
"""Points along each side of a pixel at which a figure is looked up."""


def covers(
    names: Sequence[str],
    labels: NDArray[np.int64],
    side: int,
    *,
    half: NDArray[np.float64],
    stretch: NDArray[np.float64],
    tilt: NDArray[np.float64],
    centre: NDArray[np.float64],
) -> Floats:
    """A figure in each of N squares of `side` pixels: the share of each pixel that it covers, [N, side, side].

    Args:
        names: of `INSIDE`; label k [N] is the figure names[k].
        side: of the square in pixels.
        half: half the height of the figures before stretch, in pixels [N].
        stretch: their width over `half`, and `half` over their height [N].
        tilt: anticlockwise, in radians [N].
        centre: theirs, to the right of and above that of the square, in pixels [2, N].
    """
    axis = (np.arange(side * OVERSAMPLING) + 0.5) / OVERSAMPLING - side / 2
    x = (axis[None, None, :] - centre[0][:, None, None]).astype(np.float32)
    y = (-axis[None, :, None] - centre[1][:, None, None]).astype(np.float32)
    cosine, sine, wide, high = (
        values.astype(np.float32)[:, None, None]
        for values in (np.cos(tilt), np.sin(tilt), half * stretch, half / stretch)
    )
    u, v = (cosine * x + sine * y) / wide, (cosine * y - sine * x) / high
    inside = np.zeros(u.shape, dtype=bool)
    for label, name in enumerate(names):
        rows = labels == label
        inside[rows] = INSIDE[name](u[rows], v[rows])
    blocks = inside.reshape(len(labels), side, OVERSAMPLING, side, OVERSAMPLING)
    cover: Floats = blocks.mean((2, 4), dtype=np.float32)
    return cover


def _disc(u: Floats, v: Floats) -> Mask:
    disc: Mask = u**2 + v**2 < 1
    return disc


def _ring(u: Floats, v: Floats) -> Mask:
    ring: Mask = np.abs(u**2 + v**2 - 0.62) < 0.38
    return ring


def _square(u: Floats, v: Floats) -> Mask:
    return np.maximum(np.abs(u), np.abs(v)) < 0.85


def _frame(u: Floats, v: Floats) -> Mask:
    return np.abs(np.maximum(np.abs(u), np.abs(v)) - 0.67) < 0.22


def _triangle(u: Floats, v: Floats) -> Mask:
    triangle: Mask = (v > -0.75) & (np.abs(u) < 0.55 * (1 - v))
    return triangle


def _star(u: Floats, v: Floats) -> Mask:
    to_tip = np.abs(np.arctan2(u, v) * (5 / np.pi) % 2 - 1)  # 1 towards each of five tips, 0 between two
    return np.hypot(u, v) < 0.38 + 0.62 * to_tip**1.5


def _cross(u: Floats, v: Floats) -> Mask:
    return (np.minimum(np.abs(u), np.abs(v)) < 0.3) & (np.maximum(np.abs(u), np.abs(v)) < 0.95)


def _arrow(u: Floats, v: Floats) -> Mask:
    head = (v > 0) & (np.abs(u) < 0.9 * (1 - v))
    arrow: Mask = head | ((np.abs(u) < 0.26) & (np.abs(v + 0.45) < 0.5))
    return arrow


def _heart(u: Floats, v: Floats) -> Mask:
    x, y = 1.15 * u, 1.1 * v + 0.1
    heart: Mask = (x**2 + y**2 - 1) ** 3 < x**2 * y**3
    return heart


def _crescent(u: Floats, v: Floats) -> Mask:
    return _disc(u, v) & (u**2 + (v - 0.55) ** 2 > 0.55)


INSIDE = {
    inside.__name__.lstrip("_"): inside
    for inside in (_disc, _ring, _square, _frame, _triangle, _star, _cross, _arrow, _heart, _crescent)
}
"""Whether points are inside, given right and up in the frame of the figure, which fills about ±1, of any shape."""
