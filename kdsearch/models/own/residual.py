"""The small residual networks of the distillation literature, for images of about 32×32 pixels.

ResNet: He et al., "Deep Residual Learning for Image Recognition", CVPR 2016, section 4.2 (depth 6n + 2).
WRN: Zagoruyko & Komodakis, "Wide Residual Networks", BMVC 2016 (depth 6n + 4).
Widths, shortcuts and tensor names follow the CRD benchmark (Tian et al., "Contrastive Representation Distillation",
ICLR 2020), so that state dicts published for it fit.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

from torch import nn
from torch.nn.functional import relu

from kdsearch.errors import InvalidSetting

if TYPE_CHECKING:
    import torch


def _convolution(inputs: int, outputs: int, kernel: int = 3, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel, stride=stride, padding=kernel // 2, bias=False)


class BasicBlock(nn.Module):
    """Two 3×3 convolutions beside a shortcut, activated after the sum."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = _convolution(inputs, outputs, stride=stride)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = _convolution(outputs, outputs)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.downsample: nn.Sequential | None = None
        if stride != 1 or inputs != outputs:
            self.downsample = nn.Sequential(_convolution(inputs, outputs, 1, stride), nn.BatchNorm2d(outputs))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        shortcut = images if self.downsample is None else self.downsample(images)
        hidden = relu(self.bn1(self.conv1(images)), inplace=True)
        return relu(self.bn2(self.conv2(hidden)) + shortcut, inplace=True)


class PreactivationBlock(nn.Module):
    """Two 3×3 convolutions beside a shortcut, normalised and activated before each; the sum is left as it is."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(inputs)
        self.conv1 = _convolution(inputs, outputs, stride=stride)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.conv2 = _convolution(outputs, outputs)
        self.convShortcut = _convolution(inputs, outputs, 1, stride) if inputs != outputs else None

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        activated = relu(self.bn1(images), inplace=True)
        # Where the width changes, the shortcut starts after the activation; else it is the input itself.
        shortcut = images if self.convShortcut is None else self.convShortcut(activated)
        hidden = relu(self.bn2(self.conv1(activated)), inplace=True)
        return self.conv2(hidden) + shortcut  # type: ignore[no-any-return]


def _group(
    block: type[BasicBlock] | type[PreactivationBlock], inputs: int, outputs: int, blocks: int, stride: int
) -> nn.Sequential:
    first = block(inputs, outputs, stride)
    return nn.Sequential(first, *(block(outputs, outputs, 1) for _ in range(blocks - 1)))


def _initialise(network: nn.Module) -> None:
    """He et al. 2015, by the fan out, for convolutions; the rest keeps PyTorch's own."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


class ResNet(nn.Module):
    """Images [B, channels, H, W] → logits [B, classes]; three groups at strides 1, 2 and 4.

    Args:
        depth: number of layers with weights, 6n + 2.
        widths: channels of the stem and of the three groups.
    """

    def __init__(self, depth: int, widths: tuple[int, int, int, int], classes: int, channels: int) -> None:
        super().__init__()
        blocks = (depth - 2) // 6
        stem, first, second, third = widths
        self.conv1 = _convolution(channels, stem)
        self.bn1 = nn.BatchNorm2d(stem)
        self.relu = nn.ReLU(inplace=True)
        self.layer1 = _group(BasicBlock, stem, first, blocks, 1)
        self.layer2 = _group(BasicBlock, first, second, blocks, 2)
        self.layer3 = _group(BasicBlock, second, third, blocks, 2)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(third, classes)
        _initialise(self)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        features = self.relu(self.bn1(self.conv1(images)))
        features = self.layer3(self.layer2(self.layer1(features)))
        return self.fc(self.avgpool(features).flatten(1))  # type: ignore[no-any-return]


class WideResNet(nn.Module):
    """Images [B, channels, H, W] → logits [B, classes]; three groups at strides 1, 2 and 4.

    Args:
        depth: number of layers with weights, 6n + 4.
        width: factor on the 16, 32 and 64 channels of the groups.
    """

    def __init__(self, depth: int, width: int, classes: int, channels: int) -> None:
        super().__init__()
        blocks = (depth - 4) // 6
        first, second, third = 16 * width, 32 * width, 64 * width
        self.conv1 = _convolution(channels, 16)
        self.block1 = _named_layer(_group(PreactivationBlock, 16, first, blocks, 1))
        self.block2 = _named_layer(_group(PreactivationBlock, first, second, blocks, 2))
        self.block3 = _named_layer(_group(PreactivationBlock, second, third, blocks, 2))
        self.bn1 = nn.BatchNorm2d(third)
        self.relu = nn.ReLU(inplace=True)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(third, classes)
        _initialise(self)
        nn.init.zeros_(self.fc.bias)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        features = self.block3(self.block2(self.block1(self.conv1(images))))
        features = self.relu(self.bn1(features))
        return self.fc(self.avgpool(features).flatten(1))  # type: ignore[no-any-return]


def _named_layer(group: nn.Sequential) -> nn.Sequential:
    """The group under the name `layer`, as published state dicts have it."""
    return nn.Sequential(OrderedDict(layer=group))


_NARROW = (16, 16, 32, 64)
_WIDE = (32, 64, 128, 256)


def _narrow(width: float) -> tuple[int, int, int, int]:
    """The channels times `width`."""
    if not width > 0:
        raise InvalidSetting("width", width, "is a factor on the channels and must be above 0")
    stem, first, second, third = (max(1, round(width * channels)) for channels in _NARROW)
    return stem, first, second, third


def resnet8(classes: int, channels: int = 3, width: float = 1.0) -> ResNet:
    return ResNet(8, _narrow(width), classes, channels)


def resnet14(classes: int, channels: int = 3, width: float = 1.0) -> ResNet:
    return ResNet(14, _narrow(width), classes, channels)


def resnet20(classes: int, channels: int = 3, width: float = 1.0) -> ResNet:
    return ResNet(20, _narrow(width), classes, channels)


def resnet32(classes: int, channels: int = 3, width: float = 1.0) -> ResNet:
    return ResNet(32, _narrow(width), classes, channels)


def resnet44(classes: int, channels: int = 3, width: float = 1.0) -> ResNet:
    return ResNet(44, _narrow(width), classes, channels)


def resnet56(classes: int, channels: int = 3, width: float = 1.0) -> ResNet:
    return ResNet(56, _narrow(width), classes, channels)


def resnet110(classes: int, channels: int = 3, width: float = 1.0) -> ResNet:
    return ResNet(110, _narrow(width), classes, channels)


def resnet8x4(classes: int, channels: int = 3) -> ResNet:
    return ResNet(8, _WIDE, classes, channels)


def resnet32x4(classes: int, channels: int = 3) -> ResNet:
    return ResNet(32, _WIDE, classes, channels)


def wrn_16_2(classes: int, channels: int = 3) -> WideResNet:
    return WideResNet(16, 2, classes, channels)


def wrn_40_1(classes: int, channels: int = 3) -> WideResNet:
    return WideResNet(40, 1, classes, channels)


def wrn_40_2(classes: int, channels: int = 3) -> WideResNet:
    return WideResNet(40, 2, classes, channels)
