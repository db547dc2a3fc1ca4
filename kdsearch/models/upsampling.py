"""What a super-resolution network knows before it enlarges: its last features at low resolution."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import nn

from kdsearch.errors import UserError
from kdsearch.models.trace import Call, first_tensor, trace, uncompiled, zeros

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import torch


@dataclass(frozen=True)
class LowFeatures:
    """Where a network's last low-resolution features [B, channels, side, …] are found."""

    name: str
    """Dotted name of a sub-module."""
    given: bool
    """Whether they are what the sub-module is given, or what it gives."""
    channels: int
    side: int
    """Their height for images of the height that was asked for."""


def find_low_features(network: nn.Module, channels: int, side: int) -> LowFeatures:
    """Trace an image of `channels` and height `side` through the network: its features in front of the upsampler.

    The upsampler begins with the first layer whose result is 2, 3 or 4 times larger, on both sides, than what the first
    convolution was given. Of a sub-pixel convolution (convolution and pixel shuffle) the features are what the
    convolution is given; else what the enlarging layer is given. Where a function enlarges and not a layer, they are
    what the layer before gives, or is given where the function was a pixel shuffle.

    Raises UserError where the network enlarges the images before its first convolution, or never.
    """
    # Wider than high: maps of attention are square, and 3/2 is no factor by which anything is enlarged.
    image = zeros(network, (1, channels, side, (3 * side + 1) // 2))
    root = trace(network, image)
    leaves = [call for call in root.walk() if not call.children]
    first = next((place for place, call in enumerate(leaves) if isinstance(call.module, nn.Conv2d)), None)
    name = type(network).__name__
    base = None if first is None else leaves[first].given
    if first is None or base is None or _is_enlarged(base, image):
        raise UserError(f"{name} has no features at low resolution before an upsampler; set feature_weight to 0")
    for place, call in enumerate(leaves[first:], first):
        if _is_enlarged(call.given, base):
            return _before_function(leaves[:place], call.given, base, name)
        if _is_enlarged(first_tensor(call.output), base):
            return _before_layer(leaves[:place], call)
    return _before_function(leaves, first_tensor(root.output), base, name)


@contextmanager
def captured(network: nn.Module, features: LowFeatures) -> Iterator[list[torch.Tensor]]:
    """The low-resolution features of the calls of the network inside, one tensor a call; a hook hangs there meanwhile.

    A layer that is called several times counts the first time. A compiled network runs uncompiled.
    """
    found: list[torch.Tensor] = []
    open_calls: list[bool] = []

    def keep(value: Any) -> None:
        tensor = first_tensor(value)
        if tensor is not None and open_calls and not open_calls[-1]:
            open_calls[-1] = True
            found.append(tensor if features.given else tensor.clone())  # an activation in place may follow

    part = network.get_submodule(features.name)
    handles = [network.register_forward_pre_hook(lambda _module, _given: open_calls.append(False))]
    if features.given:
        handles.append(part.register_forward_pre_hook(lambda _module, given: keep(given)))
    else:
        handles.append(part.register_forward_hook(lambda _module, _given, output: keep(output)))
    try:
        with uncompiled(network):
            yield found
    finally:
        for handle in handles:
            handle.remove()


def _is_enlarged(tensor: torch.Tensor | None, base: torch.Tensor) -> bool:
    """Whether a map [1, C, H, W] is 2, 3 or 4 times as high and as wide as another."""
    if tensor is None or tensor.ndim != 4 or tensor.shape[0] != 1:
        return False
    height, width = base.shape[2:]
    return any(tensor.shape[2:] == (factor * height, factor * width) for factor in (2, 3, 4))


def _before_layer(before: Sequence[Call], enlarging: Call) -> LowFeatures:
    source = next((call for call in reversed(before) if first_tensor(call.output) is enlarging.given), None)
    if isinstance(enlarging.module, nn.PixelShuffle) and source is not None and isinstance(source.module, nn.Conv2d):
        return _taken(source, given=True)
    return _taken(enlarging, given=True)


def _before_function(
    before: Sequence[Call], enlarged: torch.Tensor | None, base: torch.Tensor, name: str
) -> LowFeatures:
    def output_of(call: Call) -> torch.Tensor | None:
        output = first_tensor(call.output)
        fits = output is not None and output.ndim == 4 and output.shape[2:] == base.shape[2:]
        return output if fits else None

    last = next((call for call in reversed(before) if output_of(call) is not None), None)
    output = None if last is None else output_of(last)
    if last is None or output is None or enlarged is None or not _is_enlarged(enlarged, base):
        raise UserError(f"{name} never enlarges its features, so there is no upsampler; set feature_weight to 0")
    return _taken(last, given=isinstance(last.module, nn.Conv2d) and output.numel() == enlarged.numel())


def _taken(call: Call, *, given: bool) -> LowFeatures:
    tensor = call.given if given else first_tensor(call.output)
    assert tensor is not None
    return LowFeatures(call.name, given, tensor.shape[1], tensor.shape[2])
