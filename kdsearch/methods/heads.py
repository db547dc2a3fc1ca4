"""Auxiliary classifiers on the stages of a network: which stages carry one, and how one is built."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from torch import nn
from torch.nn import functional

from kdsearch.errors import InvalidSetting

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch


def chosen_stages(heads: str, count: int) -> tuple[int, ...]:
    """The stage numbers, from 1, that `heads` means for a network of `count` stages.

    `all`, `middle` (at half the depth), `last`, `none`, or numbers such as `1,3`. Raises InvalidSetting for a number
    that the network does not have.
    """
    named = {"none": (), "all": tuple(range(1, count + 1)), "middle": ((count + 1) // 2,), "last": (count,)}
    if heads in named:
        return named[heads]
    numbers = tuple(sorted({int(number) for number in heads.split(",")}))
    if numbers[0] < 1 or numbers[-1] > count:
        raise InvalidSetting("heads", heads, f"the student's stages are numbered 1 to {count}")
    return numbers


class Answers(NamedTuple):
    """What a student and its heads say to a batch."""

    logits: torch.Tensor
    """[B, K]"""
    heads: dict[str, torch.Tensor]
    """[B, K·M] by the number of the head's stage, shallow first."""


class AveragePool(nn.Module):
    """Global average: [B, C, H, W] → [B, C]."""

    def forward(self, feature: torch.Tensor) -> torch.Tensor:
        return feature.mean((2, 3))


class Copy(nn.Module):
    """A copy of the feature: what follows may write into it (a VGG's ReLU), and others read it too."""

    def forward(self, feature: torch.Tensor) -> torch.Tensor:
        return feature.clone()


def light_head(channels: int, width: int, outputs: int) -> nn.Sequential:
    """1×1 convolution, batch norm, ReLU, global average pool, linear: [B, channels, H, W] → [B, outputs]."""
    return nn.Sequential(
        nn.Conv2d(channels, width, 1, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(inplace=True),
        AveragePool(),
        nn.Linear(width, outputs),
    )


def deep_head(rest: nn.Module, width: int, outputs: int) -> nn.Sequential:
    """The remaining stages of the network once more, global average pool, linear: [B, C, H, W] → [B, outputs]."""
    return nn.Sequential(Copy(), rest, AveragePool(), nn.Linear(width, outputs))


def head_logits(heads: nn.ModuleDict, features: Sequence[torch.Tensor]) -> dict[str, torch.Tensor]:
    """Each head's logits by the number of its stage, shallow first."""
    return {number: head(features[int(number) - 1]) for number, head in heads.items()}


def pool_to(feature: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
    """Average-pool [B, C, H, W] to [B, C, *size]."""
    height, width = feature.shape[2:]
    if height % size[0] == 0 and width % size[1] == 0:  # the same values, and deterministic on GPUs too
        return functional.avg_pool2d(feature, (height // size[0], width // size[1]))
    return functional.adaptive_avg_pool2d(feature, (size[0], size[1]))
