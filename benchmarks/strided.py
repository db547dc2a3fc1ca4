"""The small residual networks with a first convolution of stride 2: four times less work on images of 32×32 pixels."""

from __future__ import annotations

from kdsearch.models.own.residual import ResNet

WIDTHS = (16, 16, 32, 64)


def resnet8(classes: int, channels: int) -> ResNet:
    """78,042 parameters with ten classes and three channels."""
    return strided(8, classes, channels)


def resnet20(classes: int, channels: int) -> ResNet:
    """The teacher, 272,474 parameters."""
    return strided(20, classes, channels)


def strided(depth: int, classes: int, channels: int) -> ResNet:
    """A residual network whose first convolution halves the image."""
    stem, first, second, third = WIDTHS
    network = ResNet(depth, (stem, first, second, third), classes, channels)
    network.conv1.stride = (2, 2)
    return network
