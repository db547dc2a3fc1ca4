"""A network by its settings."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import torch

from kdsearch.errors import UserError
from kdsearch.models import exported
from kdsearch.models.names import PRETRAINED
from kdsearch.models.sizes import candidates, explain, no_size, objection_to
from kdsearch.models.sources import Source, find
from kdsearch.models.stem import make_small, wants_small
from kdsearch.models.trace import undisturbed, zeros
from kdsearch.models.weights import load_weights
from kdsearch.user_code import FunctionFailed

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import nn

    from kdsearch.settings import NetworkSettings

_log = logging.getLogger(__name__)


def build(settings: NetworkSettings, *, outputs: int, channels: int, size: tuple[int, int]) -> nn.Module:
    """The network that `settings` name: images [B, channels, H, W] → [B, outputs], on the CPU, in training mode.

    Random weights come from the global generator: the same `torch.manual_seed` before gives the same network in any
    process. Its state dict is what an export holds, and loads strictly into what the same settings build.

    Args:
        settings: name, weights, stem, input size and further arguments.
        outputs: number of outputs, such as classes.
        channels: channels of the images.
        size: height and width of the data set's images. `resolve_size` says to which they must be resized.

    Raises UnknownName, BadWeights, or UserError: for arguments or a size the network does not take, for outputs of
    another number, and for any failure of a user's function, with its file and line.
    """
    settings = exported.resolve(settings)
    plan = _Plan(settings, find(settings.name), outputs, channels)
    network, target = _first_that_fits(plan, size)
    if settings.weights == PRETRAINED:
        network = plan.make(target, plan.source.pretrained)
    _check_outputs(network, settings.name, outputs, channels, target)
    if settings.weights is not None and settings.weights != PRETRAINED:
        load_weights(network, settings.weights)
    if target != size and settings.input_size is None:
        _announce(settings.name, size, target)
    return network.train()


@dataclass(frozen=True)
class _Plan:
    """All of a network but the size of its images."""

    settings: NetworkSettings
    source: Source
    outputs: int
    channels: int

    def make(self, size: tuple[int, int], construct: Callable[..., nn.Module]) -> nn.Module:
        settings = self.settings
        network = construct(outputs=self.outputs, channels=self.channels, size=size, arguments=settings.arguments)
        if wants_small(settings.stem, size, any_size=self.source.any_size):
            make_small(network, self.channels)
        return network


def _first_that_fits(plan: _Plan, size: tuple[int, int]) -> tuple[nn.Module, tuple[int, int]]:
    objections = []
    choices = candidates(plan.settings, size)
    for choice in choices:
        made = _try(plan, choice, last=choice == choices[-1])
        if not isinstance(made, str):
            return made, choice
        objections.append(made)
    raise no_size(plan.settings.name, choices, objections)


def _try(plan: _Plan, size: tuple[int, int], *, last: bool) -> nn.Module | str:
    """The network for images of `size`, or what stands against it."""
    name = plan.settings.name
    try:
        network = plan.make(size, plan.source.build)
    except FunctionFailed as error:
        if last:
            raise
        return str(error)
    except UserError:
        raise
    except Exception as error:  # a network that is made for one size may not exist for this one
        return explain(error, name)
    return objection_to(network, name, plan.channels, size, last=last) or network


def _check_outputs(network: nn.Module, name: str, outputs: int, channels: int, size: tuple[int, int]) -> None:
    with undisturbed(network):
        result = network(zeros(network, (1, channels, *size)))
    if not isinstance(result, torch.Tensor):
        raise UserError(f"{name} must give a tensor [B, {outputs}], not a {type(result).__name__}")
    if result.ndim < 2 or tuple(result.shape[:2]) != (1, outputs):
        raise UserError(f"{name} gives {list(result.shape)} for one image, and [1, {outputs}] is needed")


@cache
def _announce(name: str, size: tuple[int, int], target: tuple[int, int]) -> None:
    """Once a process."""
    _log.warning(
        "images of %d×%d pixels are resized to %d×%d for %s: it does not take them as they are, or they would vanish "
        "in it",
        *size,
        *target,
        name,
    )
