"""The first layers of a convolutional network, made for small images and for any number of channels."""

from __future__ import annotations

import logging

import torch
from torch import nn

from kdsearch.models.trace import Call, trace, zeros

_log = logging.getLogger(__name__)

SMALL_IMAGES = 64
"""Images up to this many pixels a side get the small stem by themselves."""

# Every convolutional network takes images of this side, also one that would make smaller ones vanish.
_PROBE = 128


def wants_small(stem: str, size: tuple[int, int], *, any_size: bool) -> bool:
    """What `stem: auto` means for images of `size` that reach the network, where its stem was made for large ones."""
    return stem == "small" or (stem == "auto" and any_size and max(size) <= SMALL_IMAGES)


def make_small(module: nn.Module, channels: int) -> None:
    """First convolution 3×3 with stride 1, and no max-pool at its resolution (He et al. 2016, section 4.2).

    Done in place. Left alone are transformers, and networks whose first convolution has stride 1 already: those of
    our own, VGG and their like, whose max-pools are no part of the stem. A first convolution that is 3×3 keeps its
    weights, a larger one is drawn anew.
    """
    if any("Attention" in type(part).__name__ for part in module.modules()):
        return
    try:
        root = trace(module, zeros(module, (1, channels, _PROBE, _PROBE)))
    except Exception as error:  # whatever a network of fixed size makes of other images
        _log.debug("the stem is left as it is: %s", error)
        return
    calls = list(root.walk())
    first = next((index for index, call in enumerate(calls) if isinstance(call.module, nn.Conv2d)), None)
    if first is None or not _is_strided(calls[first].module):
        return
    resolution = calls[first].output.shape[-2:]
    reshape(calls[first].module, kernel=3)
    pool = next((call for call in calls[first:] if _is_pool_at(call, resolution)), None)
    if pool is not None:
        parent, _, name = pool.name.rpartition(".")
        setattr(module.get_submodule(parent), name, nn.Identity())


def reshape(convolution: nn.Module, *, kernel: int | None = None, channels: int | None = None) -> None:
    """Change a convolution in place: to an odd `kernel` with stride 1, or to another number of input channels.

    Weights whose shape changes are drawn anew (He et al. 2015, by the fan out).
    """
    assert isinstance(convolution, nn.Conv2d)
    if kernel is not None:
        convolution.kernel_size = (kernel, kernel)
        convolution.stride = (1, 1)
        convolution.dilation = (1, 1)
        convolution.padding = (kernel // 2, kernel // 2)
    if channels is not None:
        convolution.in_channels = channels
    shape = (convolution.out_channels, convolution.in_channels // convolution.groups, *convolution.kernel_size)
    if convolution.weight.shape != shape:
        weight = torch.empty(shape, device=convolution.weight.device, dtype=convolution.weight.dtype)
        convolution.weight = nn.Parameter(weight)
        nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")


def first_convolution(module: nn.Module) -> nn.Conv2d | None:
    """The convolution that was defined first: the one that sees the images in any published network."""
    return next((part for part in module.modules() if isinstance(part, nn.Conv2d)), None)


def _is_strided(module: nn.Module) -> bool:
    stride = getattr(module, "stride", 1)
    return max(stride) > 1 if isinstance(stride, tuple) else stride > 1


def _is_pool_at(call: Call, resolution: torch.Size) -> bool:
    given = call.given
    return (
        isinstance(call.module, nn.MaxPool2d)
        and _is_strided(call.module)
        and given is not None
        and given.shape[-2:] == resolution
    )
