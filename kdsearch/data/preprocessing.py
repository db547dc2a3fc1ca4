"""From uint8 images to a network's input: shared by training, evaluation and teacher."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.nn.functional import interpolate

if TYPE_CHECKING:
    from collections.abc import Sequence


def preprocess(
    images: torch.Tensor,
    mean: torch.Tensor | Sequence[float],
    std: torch.Tensor | Sequence[float],
    size: tuple[int, int] | None,
) -> torch.Tensor:
    """uint8 [B, C, H, W] → float32 [B, C, *size] (None: as they are), (x / 255 − mean) / std per channel.

    Given as tensors on the device of the images, mean and std cost no transfer.
    """
    unit = to_unit(images)
    return normalise_(unit if size is None else resize(unit, size), mean, std)


def to_unit(images: torch.Tensor) -> torch.Tensor:
    """uint8 → float32 in [0, 1]."""
    return images.float().div_(255)


def resize(images: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """float [B, C, H, W] → [B, C, *size], bilinear with antialiasing; the same tensor where the size fits."""
    if images.shape[-2:] == size:
        return images
    return interpolate(images, size, mode="bilinear", antialias=True)


def normalise_(
    images: torch.Tensor, mean: torch.Tensor | Sequence[float], std: torch.Tensor | Sequence[float]
) -> torch.Tensor:
    """(x − mean) / std of each channel, in place."""
    shift, scale = (
        torch.as_tensor(values, dtype=images.dtype, device=images.device).view(-1, 1, 1) for values in (mean, std)
    )
    return images.sub_(shift).div_(scale)
