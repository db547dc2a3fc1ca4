"""Edges as bits of one integer a pixel: bit a where annotator a marks an edge, `OUTSIDE_EDGES` beyond the picture.

An annotator who marks nothing leaves no trace, and needs none: there is nothing of theirs to be found.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import numpy as np
import torch

from kdsearch.data.dense.source import OUTSIDE_EDGES

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Mask = NDArray[np.bool_]

MOST_ANNOTATORS = 13
"""Bits 0 to 12 of an int16; 13 stays free, 14 is `OUTSIDE_EDGES`."""

# The eight neighbours (row, column), anticlockwise from the right.
NEIGHBOURS = ((0, 1), (-1, 1), (-1, 0), (-1, -1), (0, -1), (1, -1), (1, 0), (1, 1))


def pack(annotators: Mask) -> NDArray[np.int16]:
    """Maps of up to 13 annotators, bool [A, H, W], as one of bits, int16 [H, W]."""
    assert len(annotators) <= MOST_ANNOTATORS, f"{len(annotators)} annotators do not fit"
    bits: NDArray[np.int16] = np.zeros(annotators.shape[1:], dtype=np.int16)
    for number, marks in enumerate(annotators):
        bits |= marks.astype(np.int16) << number
    return bits


def unpack(truth: NDArray[np.int16]) -> list[Mask]:
    """The map bool [H, W] of every annotator who marks anything at all in int16 [H, W]."""
    maps = ((truth >> number & 1).astype(bool) for number in range(MOST_ANNOTATORS))
    return [marks for marks in maps if marks.any()]


def marked(truth: torch.Tensor) -> torch.Tensor:
    """Bits int16 [B, H, W] → bool [B, 1, H, W]: where any annotator marks an edge."""
    return ((truth & (1 << MOST_ANNOTATORS) - 1) != 0).unsqueeze(1)


def counted(truth: torch.Tensor) -> torch.Tensor:
    """Bits int16 [B, H, W] → bool [B, 1, H, W]: the pixels that count."""
    return ((truth & OUTSIDE_EDGES) == 0).unsqueeze(1)


def thin(mask: Mask) -> Mask:
    """Lines of a mask bool [H, W] thinned to one pixel (Guo and Hall, Comm. ACM 1989, the algorithm A1).

    What MATLAB's `bwmorph(…, "thin")` and scikit-image's `thin` do, several times as fast: neighbourhoods are kept, and
    only where a pixel goes are they changed.
    """
    # One empty pixel around: no neighbour of a pixel lies outside.
    lines = np.pad(mask, 1).ravel()
    offsets = [row * (mask.shape[1] + 2) + column for row, column in NEIGHBOURS]
    neighbours = np.zeros(lines.shape, dtype=np.uint8)
    start = np.flatnonzero(lines)
    for bit, offset in enumerate(offsets):
        neighbours[start - offset] |= np.uint8(1 << bit)
    changed = True
    while changed:
        changed = False
        for removable in _removable():
            gone = np.flatnonzero(removable.take(neighbours) & lines)
            lines[gone] = False
            for bit, offset in enumerate(offsets):
                neighbours[gone - offset] &= np.uint8(255 - (1 << bit))
            changed |= len(gone) > 0
    return lines.reshape(-1, mask.shape[1] + 2)[1:-1, 1:-1]


@cache
def _removable() -> tuple[Mask, Mask]:
    """Whether a pixel goes in the first and in the second half of an iteration, by the bits of its neighbours [256]."""
    n = (np.arange(256)[:, None] >> np.arange(8) & 1).astype(bool).T  # [8, 256]: n[0] is the right neighbour
    crossings = sum((~n[k] & (n[k + 1] | n[(k + 2) % 8])).astype(int) for k in (0, 2, 4, 6))
    first = sum((n[k] | n[k + 1]).astype(int) for k in (0, 2, 4, 6))
    second = sum((n[k] | n[k - 1]).astype(int) for k in (0, 2, 4, 6))
    either = (crossings == 1) & (np.minimum(first, second) >= 2) & (np.minimum(first, second) <= 3)
    odd = either & ~((n[1] | n[2] | ~n[7]) & n[0])
    even = either & ~((n[5] | n[6] | ~n[3]) & n[4])
    return odd, even
