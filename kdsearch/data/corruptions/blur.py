"""What a lens, frosted glass, or a camera that moves makes of an image."""

from __future__ import annotations

import math

import torch
from torch.nn import functional


def defocus_blur(images: torch.Tensor, severity: int, generator: torch.Generator) -> torch.Tensor:
    """Convolution with a disc whose edge is smoothed."""
    radius, smoothing = ((0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1, 0.2), (1.5, 0.1))[severity - 1]
    radius *= length(images)
    reach = max(8, math.ceil(radius))
    axis = torch.arange(-reach, reach + 1, device=images.device, dtype=images.dtype)
    disc = (axis[:, None] ** 2 + axis**2 <= radius**2).to(images.dtype)
    near = torch.exp(-0.5 * (torch.arange(-1, 2, device=images.device) / smoothing) ** 2)
    smooth = torch.outer(near, near) / near.sum() ** 2
    kernel = functional.conv2d((disc / disc.sum())[None, None], smooth[None, None], padding=1)
    first_row = int((kernel[0, 0] > 0).any(1).nonzero()[0])
    margin = min(first_row, reach)  # what is 0 around the kernel needs no padding of the image
    kernel = kernel[..., margin : 2 * reach + 1 - margin, margin : 2 * reach + 1 - margin]
    return _convolve(images, kernel, reach - margin)


def glass_blur(images: torch.Tensor, severity: int, generator: torch.Generator) -> torch.Tensor:
    """Pixels take the values of neighbours, row after row from below, between two Gaussian blurs.

    A pixel takes its neighbour's value, which keeps its own: what the assignment of views in the published code does.
    """
    sigma, reach, rounds = ((0.05, 1, 1), (0.25, 1, 1), (0.4, 1, 1), (0.25, 1, 2), (0.4, 1, 2))[severity - 1]
    sigma, reach = sigma * length(images), max(1, round(reach * length(images)))
    images = gaussian(images, sigma)
    count, _, height, width = images.shape
    each = torch.arange(count, device=images.device)
    for _ in range(rounds):
        shifts = torch.randint(-reach, reach, (2, height, width, count), generator=generator, device=images.device)
        for row in range(height - reach, reach, -1):
            for column in range(width - reach, reach, -1):
                down, right = shifts[:, row, column]
                images[:, :, row, column] = images[each, :, row + down, column + right]
    return gaussian(images, sigma)


def motion_blur(images: torch.Tensor, severity: int, generator: torch.Generator) -> torch.Tensor:
    """A trail with a Gaussian profile, in a direction within 45° of the horizontal."""
    radius, sigma = ((6, 1), (6, 1.5), (6, 2), (8, 2), (9, 2.5))[severity - 1]
    turn = torch.rand(len(images), generator=generator, device=images.device) * 90 - 45
    return trail(images, radius * length(images), sigma * length(images), turn)


def zoom_blur(images: torch.Tensor, severity: int, generator: torch.Generator) -> torch.Tensor:
    """The mean of the image and of itself enlarged by up to 6, 11, 16, 21 or 26 %, in steps of 1 %."""
    steps = (6, 11, 16, 21, 26)[severity - 1]
    total = images.clone()
    for step in range(steps):
        total += zoomed(images, 1 + step / 100)
    return total / (steps + 1)


def length(images: torch.Tensor) -> float:
    """How many times longer a pixel's length is than at 32×32: at least once."""
    return max(1.0, min(images.shape[-2:]) / 32)


def gaussian(images: torch.Tensor, sigma: float) -> torch.Tensor:
    """Gaussian blur, cut off at 4 σ, the border repeated: as scikit-image's."""
    reach = int(4 * sigma + 0.5)
    if reach == 0:
        return images.clone()
    axis = torch.arange(-reach, reach + 1, device=images.device, dtype=images.dtype)
    weights = torch.exp(-0.5 * (axis / sigma) ** 2)
    weights = weights / weights.sum()
    padded = functional.pad(images, (reach,) * 4, mode="replicate")
    channels = images.shape[1]
    rows = functional.conv2d(padded, weights.view(1, 1, -1, 1).expand(channels, 1, -1, 1), groups=channels)
    return functional.conv2d(rows, weights.view(1, 1, 1, -1).expand(channels, 1, 1, -1), groups=channels)


def trail(images: torch.Tensor, radius: float, sigma: float, degrees: torch.Tensor) -> torch.Tensor:
    """One-sided motion blur as ImageMagick's: 2·radius + 1 whole-pixel steps in each image's direction [B]."""
    _, _, height, width = images.shape
    steps = torch.arange(2 * math.ceil(radius) + 1, device=images.device)
    weights = torch.exp(-0.5 * (steps / sigma) ** 2)
    weights = weights / weights.sum()
    angle = torch.deg2rad(degrees)[:, None]
    down, right = (torch.ceil(steps * wave(angle) - 0.5).long() for wave in (torch.sin, torch.cos))
    blurred = torch.zeros_like(images)
    each = torch.arange(len(images), device=images.device)[:, None, None]
    rows, columns = (torch.arange(side, device=images.device) for side in (height, width))
    by_place = images.permute(0, 2, 3, 1)
    for step, weight in enumerate(weights):
        y = (rows + down[:, step, None]).clamp(0, height - 1)[:, :, None]
        x = (columns + right[:, step, None]).clamp(0, width - 1)[:, None, :]
        blurred += weight * by_place[each, y, x].permute(0, 3, 1, 2)
    return blurred


def zoomed(images: torch.Tensor, factor: float) -> torch.Tensor:
    """The middle of the images, enlarged bilinearly to their size."""
    height, width = images.shape[-2:]
    inner = [math.ceil(side / factor) for side in (height, width)]
    top, left = (height - inner[0]) // 2, (width - inner[1]) // 2
    cut = images[..., top : top + inner[0], left : left + inner[1]]
    size = [max(side, round(part * factor)) for side, part in zip((height, width), inner, strict=True)]
    large = functional.interpolate(cut, size, mode="bilinear", align_corners=True)
    top, left = (size[0] - height) // 2, (size[1] - width) // 2
    return large[..., top : top + height, left : left + width]


def _convolve(images: torch.Tensor, kernel: torch.Tensor, margin: int) -> torch.Tensor:
    channels = images.shape[1]
    inside = min(margin, *(side - 1 for side in images.shape[-2:]))
    padded = functional.pad(images, (inside,) * 4, mode="reflect")
    if inside < margin:  # of an image that is smaller than the kernel
        padded = functional.pad(padded, (margin - inside,) * 4, mode="replicate")
    return functional.conv2d(padded, kernel.expand(channels, 1, *kernel.shape[-2:]), groups=channels)
