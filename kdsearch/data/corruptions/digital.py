"""Contrast, elastic distortion, coarse pixels, and JPEG's artefacts."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image
from torch.nn import functional

from kdsearch.data.corruptions.blur import gaussian

if TYPE_CHECKING:
    from numpy.typing import NDArray


def contrast(images: torch.Tensor, severity: int, generator: torch.Generator) -> torch.Tensor:
    """Each channel moves towards its mean."""
    kept = (0.75, 0.5, 0.4, 0.3, 0.15)[severity - 1]
    means = images.mean((2, 3), keepdim=True)
    return (images - means) * kept + means


def elastic_transform(images: torch.Tensor, severity: int, generator: torch.Generator) -> torch.Tensor:
    """A random affine map by three points, then a smooth random displacement of every pixel."""
    strength, smoothness, jitter = (
        (0.0, 0.0, 0.08),
        (0.05, 0.2, 0.07),
        (0.08, 0.06, 0.06),
        (0.1, 0.04, 0.05),
        (0.1, 0.03, 0.03),
    )[severity - 1]
    count, _, height, width = images.shape
    side = height
    grid = _pixels(height, width, images.device)
    images = _sample(images, _affine(grid, count, (height, width), jitter * side, generator))
    if strength == 0:
        return images
    draw = torch.rand((count, 2, height, width), generator=generator, device=images.device) * 2 - 1
    return _sample(images, grid + strength * side * gaussian(draw, smoothness * side).permute(0, 2, 3, 1))


def pixelate(images: torch.Tensor, severity: int, generator: torch.Generator) -> torch.Tensor:
    """Smaller and back again, by means of boxes as Pillow's."""
    share = (0.95, 0.9, 0.85, 0.75, 0.65)[severity - 1]
    height, width = images.shape[-2:]
    small = max(1, int(height * share)), max(1, int(width * share))
    return _boxed(_boxed(images, small), (height, width))


def jpeg_compression(images: torch.Tensor, severity: int, generator: torch.Generator) -> torch.Tensor:
    """JPEG with quality 80, 65, 58, 50 or 40; on the host, image by image."""
    quality = (80, 65, 58, 50, 40)[severity - 1]
    pixels = (images * 255).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
    decoded = torch.from_numpy(np.stack([_compressed(image, quality) for image in pixels]))
    return decoded.to(images.device).permute(0, 3, 1, 2).float().div_(255)


def _compressed(image: NDArray[np.uint8], quality: int) -> NDArray[np.uint8]:
    """[H, W, C], written and read again."""
    file = io.BytesIO()
    Image.fromarray(image.squeeze(-1) if image.shape[-1] == 1 else image).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file)).reshape(image.shape)


def _pixels(height: int, width: int, device: torch.device) -> torch.Tensor:
    """The place (x, y) of each pixel: float [1, H, W, 2]."""
    y, x = torch.meshgrid(torch.arange(height, device=device), torch.arange(width, device=device), indexing="ij")
    return torch.stack([x, y], -1).float()[None]


def _affine(
    grid: torch.Tensor, count: int, size: tuple[int, int], jitter: float, generator: torch.Generator
) -> torch.Tensor:
    """Where each pixel [count, H, W, 2] comes from, when three points around the middle move by up to `jitter`."""
    middle, third = torch.tensor(size) // 2, min(size) // 3
    centre = middle.flip(0).float()  # (x, y)
    corners = torch.stack([centre + third, centre + torch.tensor([third, -third]), centre - third]).to(grid.device)
    moved = corners + (torch.rand((count, 3, 2), generator=generator, device=grid.device) * 2 - 1) * jitter
    # The map takes corners to moved; a pixel comes from where the inverse takes it.
    ones = torch.ones((count, 3, 1), device=grid.device)
    back = torch.linalg.solve(torch.cat([moved, ones], 2), corners.expand(count, 3, 2))
    full = torch.cat([grid, torch.ones_like(grid[..., :1])], -1).expand(count, -1, -1, -1)
    return torch.einsum("bhwk,bkd->bhwd", full, back)


def _sample(images: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    """The images at places (x, y) in pixels [B, H, W, 2], bilinear, mirrored at the border."""
    height, width = images.shape[-2:]
    scale = places.new_tensor([max(1, width - 1), max(1, height - 1)])
    unit = 2 * places / scale - 1
    return functional.grid_sample(images, unit, mode="bilinear", padding_mode="reflection", align_corners=True)


def _boxed(images: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Resized by the mean over boxes; enlarged, each pixel takes the nearest."""
    down, across = (_weights(old, new, images) for old, new in zip(images.shape[-2:], size, strict=True))
    return torch.einsum("ih,bchw,jw->bcij", down, images, across)


def _weights(old: int, new: int, images: torch.Tensor) -> torch.Tensor:
    """Pillow's box filter from `old` to `new` pixels: [new, old], rows that sum to 1."""
    scale = old / new
    support = max(scale, 1) / 2
    centre = (torch.arange(new, dtype=torch.float64) + 0.5) * scale
    first, last = ((centre + side * support + 0.5).long().clamp(0, old) for side in (-1, 1))
    place = torch.arange(old)
    distance = (place + 0.5 - centre[:, None]) / max(scale, 1)
    inside = (place >= first[:, None]) & (place < last[:, None]) & (distance > -0.5) & (distance <= 0.5)
    return (inside / inside.sum(1, keepdim=True)).to(images.device, images.dtype)
