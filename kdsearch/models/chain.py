"""A second copy of a network's later layers: the deep kind of auxiliary head."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from kdsearch.models.stages import Stage, units
from kdsearch.models.taps import Taps
from kdsearch.models.trace import Call, first_tensor, trace, undisturbed

if TYPE_CHECKING:
    from collections.abc import Sequence

# Largest relative difference between a copy's feature and the network's own (room for TF32).
_TOLERANCE = 1e-2


class Chain(nn.Module):
    """Sub-modules one after the other: feature [B, C, H, W] of one stage → feature [B, C', H', W'] of a later one."""

    def __init__(self, calls: Sequence[Call], first: Stage, last: Stage) -> None:
        super().__init__()
        self.units = nn.ModuleList(copy.deepcopy(call.module) for call in calls)
        self.first = first
        self.last = last
        # Constants that a unit takes beside the feature, such as the grid of an MViT stage.
        self.constants = [(call.arguments[1:], call.keywords) for call in calls]

    def forward(self, feature: torch.Tensor) -> torch.Tensor:
        value: Any = self.first.restore(feature)
        for unit, (arguments, keywords) in zip(self.units, self.constants, strict=True):
            value = first_tensor(unit(value, *arguments, **keywords))
        return self.last.normalise(value)


def remaining(module: nn.Module, stage_index: int, stages: Sequence[Stage], example: torch.Tensor) -> Chain | None:
    """A fresh copy of what follows stage `stage_index` up to the last stage, with weights of its own.

    The way to read the remaining stages for an auxiliary classifier as in HSAKD (Yang et al., "Hierarchical
    Self-supervised Augmented Knowledge Distillation", IJCAI 2021). Weights are drawn anew from the global generator,
    with the mean and spread that the network's have; normalisation layers start afresh.

    Args:
        module: the network; left as it was.
        stage_index: from 0; that of the last stage gives a chain without layers.
        stages: as `find_stages` gave them.
        example: images [B, C, H, W]; only the shape matters.

    Returns None where the network's units do not follow one another (something happens between them, outside any
    sub-module): found out by feeding the stage's feature through the copy, which must give the last stage's.
    """
    first, last = stages[stage_index], stages[-1]
    images = torch.rand(example.shape, generator=torch.Generator().manual_seed(0)).to(example)
    calls = _between(trace(module, images), first.name, last.name, {stage.name for stage in stages}, images)
    if calls is None:
        return None
    chain = Chain(calls, first, last)
    with undisturbed(module):
        features = Taps(module, stages)(images)[1]
    if not _leads(chain, features[stage_index], features[-1]):
        return None
    _draw_anew(chain)
    return chain.train()


def _between(root: Call, first: str, last: str, chosen: set[str], images: torch.Tensor) -> list[Call] | None:
    """The units after `first` up to `last`; None where one of them takes a second tensor."""
    way = units(root, images, chosen)
    names = [call.name for call in way]
    if first not in names or last not in names:
        return None
    calls = way[names.index(first) + 1 : names.index(last) + 1]
    constant = all(not _holds_tensor([call.arguments[1:], list(call.keywords.values())]) for call in calls)
    return calls if constant else None


def _holds_tensor(value: Any) -> bool:
    if isinstance(value, (list, tuple)):
        return any(map(_holds_tensor, value))
    return isinstance(value, torch.Tensor)


def _leads(chain: Chain, feature: torch.Tensor, target: torch.Tensor) -> bool:
    """Whether the chain, still with the network's weights, makes `target` of `feature`."""
    try:
        with undisturbed(chain):
            reached = chain(feature)
    except Exception:  # whatever a module makes of an input that is not its own: then it is no chain
        return False
    if reached.shape != target.shape:
        return False
    scale = target.abs().max()
    return bool(scale > 0) and bool((reached - target).abs().max() <= _TOLERANCE * scale)


@torch.no_grad()
def _draw_anew(chain: Chain) -> None:
    chain.requires_grad_(True)
    for part in chain.modules():
        if isinstance(part, (nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm)):
            part.reset_parameters()
            continue
        for weight in part.parameters(recurse=False):
            weight.normal_(float(weight.mean()), float(weight.std(correction=0)))
