"""What chance decides about one training batch: drawn on the host, so that all devices see the same images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from kdsearch.settings import AugmentationSettings


@dataclass(frozen=True)
class ViewDraws:
    """Of each image by itself; tensors [V] on the device. `top` and `left` are offsets in the padded image."""

    top: torch.Tensor
    left: torch.Tensor
    flip: torch.Tensor
    brightness: torch.Tensor
    contrast: torch.Tensor
    saturation: torch.Tensor
    box: torch.Tensor
    """Cutout: top, left, bottom, right [4, V], which may lie partly outside."""


@dataclass(frozen=True)
class MixDraws:
    """Of each pair of mixed samples; tensors [B] on the device. Sample i is mixed with sample `other[i]`."""

    other: torch.Tensor
    weight: torch.Tensor
    """Share of the own image outside the box: λ of Mixup, else 1."""
    box: torch.Tensor
    """CutMix: top, left, bottom, right [4, B], inside the image; empty where a sample is not CutMixed."""
    share: torch.Tensor
    """Share of the own label: λ of Mixup; 1 − the box's true share of the pixels of CutMix; else 1."""


def draw_views(
    settings: AugmentationSettings, size: tuple[int, int], cutout: int, views: int, random: np.random.Generator
) -> NDArray[np.float32]:
    """Crop, flip, jitter and cutout of so many images [10, V]; `size` and `cutout` in pixels of the network's input.

    Always draws the same number of values, so that a setting's change leaves all other draws as they are.
    """
    uniform = random.random((8, views))
    strength = settings.color_jitter or 0.0
    offsets = np.floor(uniform[:2] * (2 * (settings.crop or 0) + 1))
    flips = uniform[2:3] < (0.5 if settings.flip else 0.0)
    factors = 1 + strength * (2 * uniform[3:6] - 1)
    corners = np.floor(uniform[6:8] * np.array(size)[:, None]) - cutout // 2
    return np.concatenate([offsets, flips, factors, corners, corners + cutout]).astype(np.float32)


def draw_mix(
    settings: AugmentationSettings, size: tuple[int, int], samples: int, random: np.random.Generator
) -> NDArray[np.float32]:
    """Partner of each sample, weight, box and share of its label [7, B].

    A sample is CutMixed with probability `cutmix`, else mixed up with probability `mixup`, with a λ of its own.
    """
    other = random.permutation(samples)
    kind, cut_share, *centre = random.random((4, samples))
    mixup_weight = random.beta(settings.mixup_alpha, settings.mixup_alpha, samples)
    cut = kind < settings.cutmix
    mixed = ~cut & (kind < settings.cutmix + settings.mixup)
    low, high = [], []
    for side, position in zip(size, centre, strict=True):
        half = np.where(cut, np.floor(side * np.sqrt(cut_share)), 0) // 2
        middle = np.floor(position * side)
        low.append(np.clip(middle - half, 0, side))
        high.append(np.clip(middle + half, 0, side))
    weight = np.where(mixed, mixup_weight, 1)
    area = (high[0] - low[0]) * (high[1] - low[1]) / (size[0] * size[1])
    return np.stack([other, weight, *low, *high, weight - area]).astype(np.float32)


def view_draws(drawn: NDArray[np.float32], device: torch.device) -> ViewDraws:
    """What `draw_views` drew, in one transfer."""
    values = torch.from_numpy(drawn).to(device, non_blocking=True)
    return ViewDraws(
        top=values[0].long(),
        left=values[1].long(),
        flip=values[2].bool(),
        brightness=values[3],
        contrast=values[4],
        saturation=values[5],
        box=values[6:10],
    )


def mix_draws(drawn: NDArray[np.float32], device: torch.device) -> MixDraws:
    """What `draw_mix` drew, in one transfer."""
    values = torch.from_numpy(drawn).to(device, non_blocking=True)
    return MixDraws(other=values[0].long(), weight=values[1], box=values[2:6], share=values[6])
