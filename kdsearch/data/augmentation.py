"""Augmentation of whole batches on the device: pure functions, one choice per sample, nothing that waits for a GPU."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.nn.functional import pad

if TYPE_CHECKING:
    from kdsearch.data.draws import MixDraws

# ITU-R BT.601 luma, as in torchvision and PIL.
LUMA = (0.2989, 0.587, 0.114)


def crop_and_flip(
    images: torch.Tensor, top: torch.Tensor, left: torch.Tensor, flip: torch.Tensor, padding: int
) -> torch.Tensor:
    """Zero-pad [B, C, H, W] by `padding`, cut H × W at (top, left) of each image, mirror those with `flip`.

    `top` and `left` int64 [B] from 0 to 2 · padding, `flip` bool [B].
    """
    batch, channels, height, width = images.shape
    padded = pad(images, (padding,) * 4) if padding else images
    rows = top[:, None] + torch.arange(height, device=images.device)
    steps = torch.arange(width, device=images.device)
    columns = left[:, None] + torch.where(flip[:, None], width - 1 - steps, steps)
    places = rows[:, :, None] * (width + 2 * padding) + columns[:, None, :]
    index = places.view(batch, 1, height * width).expand(batch, channels, height * width)
    return padded.flatten(2).gather(2, index).view(batch, channels, height, width)


def color_jitter_(
    images: torch.Tensor, brightness: torch.Tensor, contrast: torch.Tensor, saturation: torch.Tensor
) -> torch.Tensor:
    """Scale brightness, then contrast, then saturation of images [B, 3, H, W] in [0, 1] by factors [B], in place.

    As torchvision's `adjust_brightness`, `adjust_contrast` and `adjust_saturation`.
    """
    brightness, contrast, saturation = (factor.view(-1, 1, 1, 1) for factor in (brightness, contrast, saturation))
    images.mul_(brightness).clamp_(0, 1)
    middle = _grey(images).mean((1, 2, 3), keepdim=True)
    images.mul_(contrast).add_((1 - contrast) * middle).clamp_(0, 1)
    grey = _grey(images)
    images.mul_(saturation).add_((1 - saturation) * grey)
    return images.clamp_(0, 1)


def _grey(images: torch.Tensor) -> torch.Tensor:
    red, green, blue = images.unbind(1)
    grey: torch.Tensor = LUMA[0] * red + LUMA[1] * green + LUMA[2] * blue
    return grey.unsqueeze(1)


def inside(box: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Which pixels lie in each box: top, left, bottom, right [4, B] → bool [B, 1, *size]. Boxes are clipped."""
    top, left, bottom, right = (edge[:, None] for edge in box)
    y = torch.arange(size[0], device=box.device)
    x = torch.arange(size[1], device=box.device)
    rows, columns = (y >= top) & (y < bottom), (x >= left) & (x < right)
    within: torch.Tensor = rows[:, None, :, None] & columns[:, None, None, :]
    return within


def cutout_(images: torch.Tensor, box: torch.Tensor) -> torch.Tensor:
    """Set each box [4, B] of normalised images [B, C, H, W] to 0, their mean, in place (DeVries & Taylor 2017)."""
    return images.masked_fill_(inside(box, (images.shape[2], images.shape[3])), 0.0)


def mix(views: torch.Tensor, draws: MixDraws) -> torch.Tensor:
    """CutMix (Yun et al. 2019) and Mixup (Zhang et al. 2018) of views [V, B, C, H, W], one kind and λ per sample.

    View v of sample i is mixed with view v of sample `other[i]`; all views of a sample share kind, λ and box.
    """
    own = draws.weight.view(-1, 1, 1, 1) * ~inside(draws.box, (views.shape[3], views.shape[4]))
    return torch.lerp(views.index_select(1, draws.other), views, own)


def mix_targets(targets: torch.Tensor, draws: MixDraws) -> torch.Tensor:
    """Labels [B, K] mixed by the shares that the images have in the mixture."""
    return torch.lerp(targets.index_select(0, draws.other), targets, draws.share[:, None])
