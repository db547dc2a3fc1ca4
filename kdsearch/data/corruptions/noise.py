"""Noise of each pixel and channel by itself."""

from __future__ import annotations

import torch


def gaussian_noise(images: torch.Tensor, severity: int, generator: torch.Generator) -> torch.Tensor:
    """x + σ·n, n standard normal."""
    deviation = (0.04, 0.06, 0.08, 0.09, 0.10)[severity - 1]
    return images + deviation * torch.randn(images.shape, generator=generator, device=images.device)


def shot_noise(images: torch.Tensor, severity: int, generator: torch.Generator) -> torch.Tensor:
    """Poisson(c·x) / c: c photons for white."""
    photons = (500, 250, 100, 75, 50)[severity - 1]
    return torch.poisson(images * photons, generator=generator) / photons


def impulse_noise(images: torch.Tensor, severity: int, generator: torch.Generator) -> torch.Tensor:
    """A share of all values becomes 0 or 1, each as often."""
    share = (0.01, 0.02, 0.03, 0.05, 0.07)[severity - 1]
    draw = torch.rand(images.shape, generator=generator, device=images.device)
    return torch.where(draw < share, (draw < share / 2).to(images.dtype), images)
