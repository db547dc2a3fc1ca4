"""The fifteen corruptions of D. Hendrycks and T. Dietterich (Benchmarking Neural Network Robustness to Common
Corruptions and Perturbations, ICLR 2019), at five severities, on the device of the images.

Strengths are those of CIFAR-10-C and CIFAR-100-C [ref: make_cifar_c.py], made for 32×32. Lengths in pixels grow with
larger images in proportion to the shorter side and do not shrink for smaller ones. Random draws are ours: the published
files are another sample of the same corruptions, but for `frost`, whose photographs of frozen glass we replace by a
drawn texture [ours].
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from kdsearch.data.corruptions import blur, digital, noise, weather
from kdsearch.data.preprocessing import to_unit
from kdsearch.data.randomness import torch_seed
from kdsearch.errors import UnknownName

if TYPE_CHECKING:
    from collections.abc import Callable

    Corruption = Callable[[torch.Tensor, int, torch.Generator], torch.Tensor]

SEVERITIES = (1, 2, 3, 4, 5)

CORRUPTIONS: dict[str, Corruption] = {
    corruption.__name__: corruption
    for corruption in (
        noise.gaussian_noise,
        noise.shot_noise,
        noise.impulse_noise,
        blur.defocus_blur,
        blur.glass_blur,
        blur.motion_blur,
        blur.zoom_blur,
        weather.snow,
        weather.frost,
        weather.fog,
        weather.brightness,
        digital.contrast,
        digital.elastic_transform,
        digital.pixelate,
        digital.jpeg_compression,
    )
}
"""In the order of the paper. Each takes float [B, C, H, W] in [0, 1], a severity and a generator on their device, and
gives float of the same shape, which may leave [0, 1]."""


def corrupt(images: torch.Tensor, name: str, severity: int, seed: int, batch: int = 0) -> torch.Tensor:
    """Images uint8 [B, C, H, W], with C = 1 or 3, corrupted: uint8, cut off below as in the published files.

    Args:
        images: on any device.
        name: one of `CORRUPTIONS`. Raises UnknownName.
        severity: 1 to 5.
        seed: with name, severity and batch of all that is drawn.
        batch: number of the batch within its split.
    """
    if name not in CORRUPTIONS:
        raise UnknownName("corruption", name, CORRUPTIONS)
    generator = torch.Generator(images.device)
    generator.manual_seed(torch_seed(seed, "corruption", name, severity, batch))
    return (CORRUPTIONS[name](to_unit(images), severity, generator).clamp_(0, 1) * 255).to(torch.uint8)
