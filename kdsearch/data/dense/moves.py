"""How a truth follows its image when that is cropped and flipped; the moves are those of `crop_and_flip`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.nn.functional import pad

from kdsearch.data.dense.source import NO_BOX

if TYPE_CHECKING:
    from kdsearch.data.draws import ViewDraws


def move_map(truth: torch.Tensor, draws: ViewDraws, padding: int, outside: int) -> torch.Tensor:
    """Maps [V, H, W] of integers; what comes in from beyond the border is `outside`."""
    views, height, width = truth.shape
    padded = pad(truth, (padding,) * 4, value=outside) if padding else truth
    rows = draws.top[:, None] + torch.arange(height, device=truth.device)
    steps = torch.arange(width, device=truth.device)
    columns = draws.left[:, None] + torch.where(draws.flip[:, None], width - 1 - steps, steps)
    places = rows[:, :, None] * (width + 2 * padding) + columns[:, None, :]
    return padded.flatten(1).gather(1, places.flatten(1)).view(views, height, width)


def move_boxes(truth: torch.Tensor, draws: ViewDraws, padding: int, size: tuple[int, int]) -> torch.Tensor:
    """Boxes [V, M, 5] in pixels of images of `size`; cut at the border, and gone when their centre lies beyond it."""
    height, width = size
    boxes, label = truth[..., :4], truth[..., 4:]
    left, top = ((padding - offset).to(truth.dtype)[:, None] for offset in (draws.left, draws.top))
    x1, y1, x2, y2 = boxes.unbind(-1)
    x1, x2, y1, y2 = x1 + left, x2 + left, y1 + top, y2 + top
    flip = draws.flip[:, None]
    x1, x2 = torch.where(flip, width - x2, x1), torch.where(flip, width - x1, x2)
    x, y = (x1 + x2) / 2, (y1 + y2) / 2
    stays = ((x >= 0) & (x < width) & (y >= 0) & (y < height))[..., None] & (label >= 0)
    moved = torch.stack([x1.clamp(0, width), y1.clamp(0, height), x2.clamp(0, width), y2.clamp(0, height)], -1)
    kept = torch.cat([moved, label], -1)
    none = torch.tensor([0.0, 0.0, 0.0, 0.0, NO_BOX], dtype=truth.dtype, device=truth.device)
    return torch.where(stays, kept, none)
