"""A network by its settings."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import torch

from kdsearch.errors import InvalidSetting, UserError
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

CLASSIFICATION = "classification"


def build(
    settings: NetworkSettings,
    *,
    outputs: int,
    channels: int,
    size: tuple[int, int],
    task: str = "classification",
    scale: int = 1,
    shape: tuple[int | None, ...] | None = None,
) -> nn.Module:
    """The network that `settings` name: images [B, channels, H, W] → [B, outputs, ...], on the CPU, in training mode.

    Random weights come from the global generator: the same `torch.manual_seed` before gives the same network in any
    process. Its state dict is what an export holds, and loads strictly into what the same settings build.

    Args:
        settings: name, weights, stem, input size and further arguments.
        outputs: number of outputs, such as classes.
        channels: channels of the images.
        size: height and width of the data set's images. `resolve_size` says to which they must be resized; networks of
            other tasks than classification take them as they are.
        task: what it is for; of a name that stands for several networks (torchvision's) it chooses one.
        scale: how many times larger than the input the output is, for super-resolution.
        shape: of one image's output, None where any length will do; left out, it begins with `outputs`.

    Raises UnknownName, BadWeights, or UserError: for arguments or a size the network does not take, for outputs of
    another number, and for any failure of a user's function, with its file and line.
    """
    settings = exported.resolve(settings)
    weights = None if settings.weights == PRETRAINED else settings.weights
    plan = _Plan(settings, find(settings.name, task, scale, weights), outputs, channels)
    if task == CLASSIFICATION:
        network, target = _first_that_fits(plan, size)
    else:
        network, target = _as_they_are(plan, size), size
    if settings.weights == PRETRAINED:
        network = plan.make(target, plan.source.pretrained)
    _check_outputs(network, settings.name, outputs, shape, channels, target)
    if weights is not None:
        load_weights(network, weights)
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


def _as_they_are(plan: _Plan, size: tuple[int, int]) -> nn.Module:
    """The network for images of `size`, which cannot be resized: their truth has that size."""
    name, side = plan.settings.name, plan.settings.input_size
    if side is not None:
        raise InvalidSetting("input_size", side, "is for classification; data.image_size sets image and truth together")
    made = _try(plan, size, last=True)
    if isinstance(made, str):
        raise UserError(
            f"{name} fails on images of {size[0]}×{size[1]} pixels: {made}; another data.image_size may help"
        )
    return made


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


def _check_outputs(
    network: nn.Module,
    name: str,
    outputs: int,
    shape: tuple[int | None, ...] | None,
    channels: int,
    size: tuple[int, int],
) -> None:
    with undisturbed(network):
        result = network(zeros(network, (1, channels, *size)))
    wanted = ", ".join("any" if length is None else str(length) for length in shape or (outputs,))
    if not isinstance(result, torch.Tensor):
        raise UserError(f"{name} must give a tensor [B, {wanted}], not a {type(result).__name__}")
    given = tuple(result.shape)
    if shape is None:
        fits = given[:2] == (1, outputs)
    else:
        fits = len(given) == 1 + len(shape) and given[0] == 1
        fits = fits and all(length in (None, side) for length, side in zip(shape, given[1:], strict=True))
    if not fits:
        raise UserError(f"{name} gives {list(given)} for one image, and [1, {wanted}] is needed")


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
