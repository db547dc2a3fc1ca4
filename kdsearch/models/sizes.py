"""The size of the images that reach a network."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn

from kdsearch.errors import UserError
from kdsearch.models import exported
from kdsearch.models.names import SMP, TORCHVISION
from kdsearch.models.trace import Call, trace, zeros
from kdsearch.user_code import describe, folder_of

if TYPE_CHECKING:
    from kdsearch.settings import NetworkSettings

_GRAIN = 32
"""Images that a network does not take are enlarged to the next multiple of this: five halvings leave one pixel."""


def resolve_size(module: nn.Module, settings: NetworkSettings, channels: int, size: tuple[int, int]) -> tuple[int, int]:
    """Height and width to which images of `size` must be resized before they reach the network.

    As settings.input_size says. Else as they are (an export: as those it was trained on), or enlarged to the next
    multiple of 32 where they would vanish in the network, or it takes no such images. Raises UserError when it
    takes neither.
    """
    objections = []
    choices = candidates(settings, size)
    for choice in choices:
        objection = objection_to(module, settings.name, channels, choice, last=choice == choices[-1])
        if objection is None:
            return choice
        objections.append(objection)
    raise no_size(settings.name, choices, objections)


def candidates(settings: NetworkSettings, size: tuple[int, int]) -> list[tuple[int, int]]:
    """The sizes to try, in this order."""
    if settings.input_size is not None:
        return [(settings.input_size, settings.input_size)]
    height, width = exported.image_size(exported.resolve(settings), size)
    enlarged = (-(-height // _GRAIN) * _GRAIN, -(-width // _GRAIN) * _GRAIN)
    return list(dict.fromkeys([(height, width), enlarged]))


def objection_to(module: nn.Module, name: str, channels: int, size: tuple[int, int], *, last: bool) -> str | None:
    """Why the network cannot use images of `size`; None where it can. The `last` candidate may be used badly."""
    images = zeros(module, (1, channels, *size))
    try:
        root = trace(module, images)
    except Exception as error:  # whatever a network makes of a size that is not its own
        return explain(error, name)
    return None if last else _waste(root, size)


def explain(error: Exception, name: str) -> str:
    """An error of a network in one line; of a user's with file and line."""
    if ":" in name and not name.startswith((SMP, TORCHVISION)):
        return describe(error, folder_of(name))
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"


def no_size(name: str, choices: list[tuple[int, int]], objections: list[str]) -> UserError:
    sizes = " or ".join(f"{height}×{width}" for height, width in choices)
    return UserError(f"{name} fails on images of {sizes} pixels: {objections[0]}; another input_size may help")


def _waste(root: Call, size: tuple[int, int]) -> str | None:
    """What is lost of small images: maps that vanish, or a border that the first layer does not reach."""
    for call in root.walk():
        stride = _stride(call.module)
        given = call.given
        if given is None or given.ndim != 4 or max(stride) == 1:
            continue
        sides = tuple(given.shape[-2:])
        if any(side < step for side, step in zip(sides, stride, strict=True)):
            return f"they vanish: {call.name} strides over a map of {sides[0]}×{sides[1]}"
        if sides == size and _is_patchwise(call.module) and any(s % p for s, p in zip(sides, stride, strict=True)):
            return f"{call.name} cuts them into patches of {stride[0]}×{stride[1]}, which do not cover them"
    return None


def _stride(module: nn.Module) -> tuple[int, int]:
    if not isinstance(module, (nn.Conv2d, nn.MaxPool2d, nn.AvgPool2d)):
        return 1, 1
    stride = module.stride
    return (stride, stride) if isinstance(stride, int) else (stride[0], stride[1])


def _is_patchwise(module: nn.Module) -> bool:
    return isinstance(module, nn.Conv2d) and module.kernel_size == module.stride and module.padding in ((0, 0), 0)
