"""The compact network for super-resolution of the distillation report: residual blocks with channel attention.

Blocks and attention follow RCAN: Zhang et al., "Image Super-Resolution Using Very Deep Residual Channel Attention
Networks", ECCV 2018, arXiv 1807.02758; the upsampler is sub-pixel convolution (Shi et al., CVPR 2016).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn
from torch.nn.functional import interpolate

from kdsearch.errors import InvalidSetting

if TYPE_CHECKING:
    import torch


def _convolution(inputs: int, outputs: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, padding=1)


class ChannelAttention(nn.Module):
    """Each channel multiplied by a weight in (0, 1) that depends on the means of all channels."""

    def __init__(self, width: int, reduction: int) -> None:
        super().__init__()
        hidden = max(4, width // reduction)  # a single unit may never be active
        self.weights = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Conv2d(width, hidden, 1), nn.ReLU(), nn.Conv2d(hidden, width, 1), nn.Sigmoid()
        )

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return features * self.weights(features)  # type: ignore[no-any-return]


class AttentionBlock(nn.Module):
    """Convolution, ReLU, convolution and channel attention beside a shortcut; no normalisation."""

    def __init__(self, width: int, reduction: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            _convolution(width, width), nn.ReLU(), _convolution(width, width), ChannelAttention(width, reduction)
        )

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return features + self.body(features)  # type: ignore[no-any-return]


class AttentionSR(nn.Module):
    """Images [B, channels, h, w] → [B, channels, scale·h, scale·w]: what is missing from bicubic interpolation.

    Args:
        width: channels of the features.
        blocks: number of attention blocks.
        reduction: the attention's hidden layer has width // reduction channels, but no fewer than 4.
        scale: 2, 3 or 4; one sub-pixel convolution for 2 and 3, two for 4.
    """

    def __init__(self, channels: int, width: int, blocks: int, reduction: int, scale: int) -> None:
        super().__init__()
        self.scale = scale
        self.head = _convolution(channels, width)
        self.body = nn.Sequential(
            *(AttentionBlock(width, reduction) for _ in range(blocks)), _convolution(width, width)
        )
        steps = (2, 2) if scale == 4 else (scale,)
        self.upsampler = nn.Sequential(
            *(layer for step in steps for layer in (_convolution(width, width * step**2), nn.PixelShuffle(step)))
        )
        self.tail = _convolution(width, channels)
        # It begins as bicubic interpolation, which a few epochs of a short budget need not find first.
        nn.init.zeros_(self.tail.weight)
        nn.init.zeros_(self.tail.bias)  # type: ignore[arg-type]

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        features = self.head(images)
        features = features + self.body(features)
        size = [self.scale * side for side in images.shape[2:]]  # exports with open sides know no factor
        enlarged = interpolate(images, size, mode="bicubic", align_corners=False)
        return enlarged + self.tail(self.upsampler(features))  # type: ignore[no-any-return]


def attention_sr(scale: int, channels: int = 3, width: int = 64, blocks: int = 12, reduction: int = 8) -> AttentionSR:
    """The report's student; at ×4 with 12 blocks 310,451, 696,075 and 1,235,299 parameters for width 32, 48 and 64.

    Raises InvalidSetting for another scale than 2, 3 and 4.
    """
    if scale not in (2, 3, 4):
        raise InvalidSetting(
            "student", "attention_sr", f"enlarges 2, 3 or 4 times, not {scale}: it is for super_resolution"
        )
    for name, value in (("width", width), ("blocks", blocks), ("reduction", reduction)):
        if not isinstance(value, int) or value < 1:
            raise InvalidSetting(f"arguments.{name}", value, "must be a whole number above 0")
    return AttentionSR(channels, width, blocks, reduction, scale)
