"""What a network costs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch.utils.flop_counter import FlopCounterMode

from kdsearch.models.trace import undisturbed

if TYPE_CHECKING:
    import torch
    from torch import nn


def count_parameters(module: nn.Module) -> int:
    """Number of weights, shared ones once; buffers such as running statistics do not count."""
    return sum(parameter.numel() for parameter in module.parameters())


def multiply_adds(module: nn.Module, example: torch.Tensor) -> int:
    """Multiply-adds of one forward pass of `example` [B, C, H, W]: convolutions, matrix products and attention."""
    with undisturbed(module), FlopCounterMode(display=False) as counter:
        module(example)
    return int(counter.get_total_flops()) // 2
