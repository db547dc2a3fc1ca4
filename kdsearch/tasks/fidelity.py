"""How close an enlarged picture comes to the true one, measured as the super-resolution literature does.

On luma of ITU-R BT.601 (MATLAB's rgb2ycbcr, 16..235, not rounded), of pictures rounded to 8 bits.
"""

from __future__ import annotations

import math

import torch
from torch.nn import functional

BEST_PSNR = 100.0
"""Decibels for a picture without any error, whose ratio is infinite."""

# R, G and B of [0, 1] to luma.
_LUMA = (65.481, 128.553, 24.966)
# Wang et al., "Image Quality Assessment: From Error Visibility to Structural Similarity", 2004: a Gaussian window.
_WINDOW, _SIGMA = 11, 1.5
_SHIFT = 128.0
_C1, _C2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2


def to_bytes(picture: torch.Tensor) -> torch.Tensor:
    """Float [..., H, W] in [0, 1], values beyond cut off, → uint8."""
    return picture.float().mul(255).add(0.5).floor().clamp(0, 255).to(torch.uint8)


def luma(picture: torch.Tensor) -> torch.Tensor:
    """uint8 [3, H, W] → Y float64 [H, W], from 16 to 235."""
    weights = torch.tensor(_LUMA, dtype=torch.float64, device=picture.device) / 255
    return torch.einsum("c,chw->hw", weights, picture.double()) + 16


def without_border(picture: torch.Tensor, pixels: int) -> torch.Tensor:
    """[..., H, W] without so many pixels on each side: there the network sees what it padded."""
    return picture[..., pixels:-pixels, pixels:-pixels]


def psnr(one: torch.Tensor, other: torch.Tensor) -> float:
    """Peak signal-to-noise ratio of [H, W], peak 255, in dB; at most 100."""
    error = float((one - other).square().mean())
    return BEST_PSNR if error == 0 else min(BEST_PSNR, 10 * math.log10(255**2 / error))


def ssim(one: torch.Tensor, other: torch.Tensor) -> float:
    """Structural similarity of [H, W], range 255: the mean over all windows that lie inside. −1..1."""
    # Variances do not change with a shift, and from values around 0 float32 gives them to 1e-5.
    one, other = ((picture - _SHIFT).float() for picture in (one, other))
    offsets = torch.arange(_WINDOW, dtype=torch.float32, device=one.device) - _WINDOW // 2
    kernel = torch.exp(-(offsets**2) / (2 * _SIGMA**2))
    kernel = kernel / kernel.sum()
    moments = torch.stack([one, other, one * one, other * other, one * other])[None]
    # As channels of one picture each on its own, which PyTorch is four times as fast at as at five pictures.
    rows = functional.conv2d(moments, kernel.view(1, 1, -1, 1).expand(5, 1, -1, 1), groups=5)
    means = functional.conv2d(rows, kernel.view(1, 1, 1, -1).expand(5, 1, 1, -1), groups=5)
    mean_one, mean_other, square_one, square_other, product = means[0]
    covariance = product - mean_one * mean_other
    variances = square_one - mean_one**2 + square_other - mean_other**2
    mean_one, mean_other = mean_one + _SHIFT, mean_other + _SHIFT
    likeness = (2 * mean_one * mean_other + _C1) * (2 * covariance + _C2)
    return float((likeness / ((mean_one**2 + mean_other**2 + _C1) * (variances + _C2))).double().mean())
