"""How images and weights lie in memory: a plane for each channel, or the channels of a pixel side by side."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

if TYPE_CHECKING:
    from kdsearch.settings import TrainingSettings

NARROW = 16
"""Channels below which a strided 1×1 convolution is not safe with channels last on a CPU."""


def memory_format(training: TrainingSettings, device: torch.device, student: nn.Module) -> torch.memory_format:
    """How a training keeps images and the student's weights: as asked, unless that is not safe on this device."""
    on_cpu = device.type == "cpu"
    asked = on_cpu if training.channels_last is None else training.channels_last
    unsafe = on_cpu and has_narrow_strides(student)
    return torch.channels_last if asked and not unsafe else torch.contiguous_format


def has_narrow_strides(network: nn.Module) -> bool:
    """Whether a network has a strided 1×1 convolution of fewer than 16 channels.

    With channels last, oneDNN 3 writes past its workspace in the backward pass of such a one (uxlfoundation/oneDNN
    issue 6035): below 8 channels on CPUs with AVX2, below 16 with AVX-512. Gradients are wrong, or the process dies.
    """
    return any(
        isinstance(module, nn.Conv2d)
        and module.kernel_size == (1, 1)
        and max(module.stride) > 1
        and module.in_channels // module.groups < NARROW
        for module in network.modules()
    )
