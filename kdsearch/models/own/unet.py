"""A small U-Net for tasks with one answer a pixel.

O. Ronneberger, P. Fischer, T. Brox: U-Net, MICCAI 2015, arXiv 1505.04597; with padded convolutions, so that the output
has the size of the image, batch normalisation, and bilinear upsampling in place of transposed convolutions.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn.functional import interpolate

from kdsearch.errors import InvalidSetting

if TYPE_CHECKING:
    from collections.abc import Sequence


class UNet(nn.Module):
    """Images [B, channels, H, W] of any size from 2^depth pixels a side → logits [B, classes, H, W].

    Args:
        widths: channels at each resolution, from the image's own to the coarsest; each has half the pixels a side of
            the one before, rounded up.
    """

    def __init__(self, widths: Sequence[int], classes: int, channels: int) -> None:
        super().__init__()
        self.down = nn.ModuleList(_block(*pair) for pair in zip((channels, *widths), widths, strict=False))
        self.up = nn.ModuleList(
            _block(fine + coarse, fine) for fine, coarse in zip(widths[-2::-1], widths[:0:-1], strict=True)
        )
        self.pool = nn.MaxPool2d(2, ceil_mode=True)
        self.head = nn.Conv2d(widths[0], classes, 1)
        for module in self.modules():
            if isinstance(module, nn.Conv2d) and module is not self.head:
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        features = self.down[0](images)
        finer = []
        for block in self.down[1:]:
            finer.append(features)
            features = block(self.pool(features))
        for block, skipped in zip(self.up, reversed(finer), strict=True):
            enlarged = interpolate(features, skipped.shape[-2:], mode="bilinear", align_corners=False)
            features = block(torch.cat([skipped, enlarged], 1))
        return self.head(features)  # type: ignore[no-any-return]


def _block(inputs: int, outputs: int) -> nn.Sequential:
    """Two 3×3 convolutions, each normalised and activated."""
    layers: list[nn.Module] = []
    for width in (inputs, outputs):
        layers += [nn.Conv2d(width, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)


def unet(classes: int, size: tuple[int, int], channels: int = 3, width: int = 8, depth: int = 3) -> UNet:
    """`width` channels at the image's own resolution, doubled at each of `depth` halvings.

    Of three channels and one class it has 122,465 parameters; with width 4 30,849, with width 16
    488,001. Raises
    InvalidSetting for images that vanish under so many halvings.
    """
    if width < 1:
        raise InvalidSetting("arguments.width", width, "a U-Net needs at least one channel")
    if not 0 <= depth <= 8:
        raise InvalidSetting("arguments.depth", depth, "a U-Net halves its images 0 to 8 times")
    if min(size) < 2**depth:
        raise InvalidSetting("arguments.depth", depth, f"images of {size[0]}×{size[1]} vanish under so many halvings")
    return UNet([width * 2**level for level in range(depth + 1)], classes, channels)
