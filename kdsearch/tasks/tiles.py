"""A picture of any size through a network in pieces, so that memory stays bounded."""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from kdsearch.tasks.base import Predict

TILE = 160
"""Side of a tile in low-resolution pixels, a multiple of every usual window."""
OVERLAP = 16
"""Low-resolution pixels at a tile's inner edges whose result is thrown away."""


def enlarge(predict: Predict, low: torch.Tensor, scale: int, tile: int = TILE, overlap: int = OVERLAP) -> torch.Tensor:
    """A picture uint8 [3, h, w] on the device → float [3, scale·h, scale·w].

    A picture of up to tile × tile pixels goes through whole. Larger ones go tile by tile: the result is the same where
    no output depends on what is more than `overlap` pixels away, and differs a little where one does (a mean over the
    whole picture, as in channel attention, is then one over the tile).
    """
    height, width = low.shape[1:]
    result = torch.empty(3, scale * height, scale * width, device=low.device)
    for (top, rows), (left, columns) in product(_spans(height, tile, overlap), _spans(width, tile, overlap)):
        part = predict(low[None, :, top : top + tile, left : left + tile])[0].float()
        kept = part[:, scale * rows.start : scale * rows.stop, scale * columns.start : scale * columns.stop]
        y, x = scale * (top + rows.start), scale * (left + columns.start)
        result[:, y : y + kept.shape[1], x : x + kept.shape[2]] = kept
    return result


def _spans(length: int, tile: int, overlap: int) -> list[tuple[int, range]]:
    """Where each tile begins, and which of its own pixels are kept; together they cover 0..length."""
    if length <= tile:
        return [(0, range(length))]
    last = length - tile
    starts = [*range(0, last, tile - 2 * overlap), last]
    return [(start, range(overlap if start > 0 else 0, tile - overlap if start < last else tile)) for start in starts]
