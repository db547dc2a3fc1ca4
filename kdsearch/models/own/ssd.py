"""A small single-shot detector for small scenes, such as those drawn by ourselves.

After Liu et al., "SSD: Single Shot MultiBox Detector", ECCV 2016, arXiv 1512.02325: anchors of several sizes on feature
maps of several strides. The backbone is a plain stack of convolutions with batch norm.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

from torch import nn

if TYPE_CHECKING:
    import torch

    from kdsearch.models.multibox import MultiboxDetector

_SCALES = [0.15, 0.3, 0.5, 0.8]
"""Side of the anchors of each feature map over that of the image, and of the map that would follow."""
_RATIOS: list[list[int]] = [[], [], []]
"""Further anchors of each map that are not square: none."""


class _Pyramid(nn.Module):
    """Images [B, C, H, W] → feature maps at strides 4, 8 and 16."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(*_convolution(channels, width, 2), *_convolution(width, 2 * width, 2))
        widths = [2 * width, 2 * width, 4 * width, 4 * width]
        self.levels = nn.ModuleList(
            nn.Sequential(*_convolution(inputs, outputs, 1 if level == 0 else 2), *_convolution(outputs, outputs, 1))
            for level, (inputs, outputs) in enumerate(pairwise(widths))
        )
        self.widths = widths[1:]

    def forward(self, images: torch.Tensor) -> list[torch.Tensor]:
        features = self.stem(images)
        maps = []
        for level in self.levels:
            features = level(features)
            maps.append(features)
        return maps


def _convolution(inputs: int, outputs: int, stride: int) -> list[nn.Module]:
    convolution = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
    nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")
    return [convolution, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)]


def ssd(classes: int, channels: int, size: tuple[int, int], width: int = 16) -> MultiboxDetector:
    """Images [B, channels, *size] → [B, classes + 9, A]; `width` channels at stride 2, twice and four times behind.

    Each place of a map has two square anchors: on 64×64 pixels of 10 to 40 pixels a side.
    """
    from torchvision.models.detection.anchor_utils import DefaultBoxGenerator  # type: ignore[import-untyped]
    from torchvision.models.detection.ssd import SSDHead  # type: ignore[import-untyped]

    from kdsearch.models.multibox import MultiboxDetector

    backbone = _Pyramid(channels, width)
    generator = DefaultBoxGenerator(_RATIOS, scales=_SCALES)
    head = SSDHead(backbone.widths, generator.num_anchors_per_location(), classes + 1)
    for part in head.modules():
        if isinstance(part, nn.Conv2d):  # torchvision's wider start makes the first steps at a rate of 0.05 wild
            nn.init.normal_(part.weight, std=0.01)
    return MultiboxDetector(backbone, head, generator, size, channels)
