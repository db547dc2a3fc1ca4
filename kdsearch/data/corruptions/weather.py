"""Snow, frost, fog and the light of another hour."""

from __future__ import annotations

import torch

from kdsearch.data.corruptions.blur import length, trail, zoomed


def snow(images: torch.Tensor, severity: int, generator: torch.Generator) -> torch.Tensor:
    """Flakes that fall in one direction, twice, before an image that is whiter."""
    mean, deviation, zoom, least, radius, sigma, kept = (
        (0.1, 0.2, 1, 0.6, 8, 3, 0.95),
        (0.1, 0.2, 1, 0.5, 10, 4, 0.9),
        (0.15, 0.3, 1.75, 0.55, 10, 4, 0.9),
        (0.25, 0.3, 2.25, 0.6, 12, 6, 0.85),
        (0.3, 0.3, 1.25, 0.65, 14, 12, 0.8),
    )[severity - 1]
    count, _, height, width = images.shape
    flakes = torch.randn((count, 1, height, width), generator=generator, device=images.device) * deviation + mean
    flakes = zoomed(flakes, zoom * length(images))
    flakes = torch.where(flakes < least, 0, flakes).clamp(0, 1)
    turn = torch.rand(count, generator=generator, device=images.device) * 90 - 135
    flakes = trail(flakes, radius * length(images), sigma * length(images), turn)
    whiter = torch.maximum(images, grey(images) * 1.5 + 0.5)
    return kept * images + (1 - kept) * whiter + flakes + flakes.rot90(2, (2, 3))


def frost(images: torch.Tensor, severity: int, generator: torch.Generator) -> torch.Tensor:
    """A texture of ice over the image.

    [ref] lays a random part of one of five photographs over it; we draw ridges in three octaves, bluish white [ours].
    """
    kept, strength = ((1, 0.2), (1, 0.3), (0.9, 0.4), (0.85, 0.4), (0.75, 0.45))[severity - 1]
    clouds = plasma(len(images), images.shape[-2:], 1.6, generator)
    ridges = (1 - (2 * clouds - 1).abs()) ** 4
    ice = (0.25 * clouds + ridges).clamp(0, 1)[:, None]
    tint = images.new_tensor([0.85, 0.95, 1.0] if images.shape[1] == 3 else [0.95])
    return kept * images + strength * ice * tint.view(1, -1, 1, 1)


def fog(images: torch.Tensor, severity: int, generator: torch.Generator) -> torch.Tensor:
    """Clouds of a plasma fractal are added, and the contrast sinks as much."""
    strength, decay = ((0.2, 3), (0.5, 3), (0.75, 2.5), (1, 2), (1.5, 1.75))[severity - 1]
    brightest = images.amax((1, 2, 3), keepdim=True)
    clouds = plasma(len(images), images.shape[-2:], decay, generator)[:, None]
    return (images + strength * clouds) * brightest / (brightest + strength)


def brightness(images: torch.Tensor, severity: int, generator: torch.Generator) -> torch.Tensor:
    """The value of the HSV colour rises; hue and saturation stay."""
    rise = (0.05, 0.1, 0.15, 0.2, 0.3)[severity - 1]
    value = images.amax(1, keepdim=True)
    raised = (value + rise).clamp(max=1)
    return torch.where(value > 0, images * raised / value.clamp(min=1e-8), raised)


def grey(images: torch.Tensor) -> torch.Tensor:
    """Luma by ITU-R BT.601 of images with three channels: [B, 1, H, W]."""
    if images.shape[1] != 3:
        return images
    return (images * images.new_tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)).sum(1, keepdim=True)


def plasma(count: int, size: tuple[int, ...], decay: float, generator: torch.Generator) -> torch.Tensor:
    """Clouds by the diamond-square algorithm, in [0, 1]: [count, H, W]. A larger decay makes them smoother."""
    side = 1 << max(5, (max(size) - 1).bit_length())
    heights = torch.zeros((count, side, side), device=generator.device)
    step, wobble = side, 100.0

    def wobbled(sums: torch.Tensor) -> torch.Tensor:
        draw = torch.rand(sums.shape, generator=generator, device=sums.device) * 2 - 1
        return sums / 4 + wobble * wobble * draw

    while step >= 2:
        half = step // 2
        corners = heights[:, ::step, ::step]
        pairs = corners + corners.roll(-1, 1)
        heights[:, half::step, half::step] = wobbled(pairs + pairs.roll(-1, 2))
        centres = heights[:, half::step, half::step]
        across = centres + centres.roll(1, 1) + corners + corners.roll(-1, 2)
        down = centres + centres.roll(1, 2) + corners + corners.roll(-1, 1)
        heights[:, ::step, half::step] = wobbled(across)
        heights[:, half::step, ::step] = wobbled(down)
        step, wobble = half, wobble / decay
    heights -= heights.amin((1, 2), keepdim=True)
    heights /= heights.amax((1, 2), keepdim=True)
    return heights[:, : size[0], : size[1]]
