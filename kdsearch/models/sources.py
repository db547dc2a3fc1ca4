"""Where a network's name leads: our own family, a function of the user's, torchvision, timm."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

from torch import nn

from kdsearch.errors import BadWeights, UnknownName, UserError
from kdsearch.models import own
from kdsearch.models.multibox import BESIDE_CLASSES
from kdsearch.models.names import SMP, SWINIR, TORCHVISION
from kdsearch.user_code import call_function, load_function

if TYPE_CHECKING:
    from kdsearch.settings import Scalar

    Normalisation = tuple[tuple[float, ...], tuple[float, ...]]


class Source(Protocol):
    """One place that networks come from, for one name."""

    any_size: bool
    """Made for large images but able to take any: `stem: auto` may give it the small stem."""

    def build(
        self, *, outputs: int, channels: int, size: tuple[int, int], arguments: Mapping[str, Scalar]
    ) -> nn.Module:
        """The network with random weights, images [B, channels, *size] → [B, outputs]."""
        ...

    def pretrained(
        self, *, outputs: int, channels: int, size: tuple[int, int], arguments: Mapping[str, Scalar]
    ) -> nn.Module:
        """The same with published weights, but for its head. Raises BadWeights when they cannot be had."""
        ...

    def normalisation(self) -> Normalisation | None:
        """Mean and standard deviation that the published weights were trained with, per channel of [0, 1] images."""
        ...


class FunctionSource:
    """A function that builds a network from what it names of `classes`, `channels`, `size` and `scale`.

    `beside`: how many of its outputs stand for no class.
    """

    any_size = False

    def __init__(self, name: str, function: Callable[..., Any], scale: int = 1, beside: int = 0) -> None:
        self.name = name
        self.function = function
        self.scale = scale
        self.beside = beside

    def build(
        self, *, outputs: int, channels: int, size: tuple[int, int], arguments: Mapping[str, Scalar]
    ) -> nn.Module:
        offered = {"classes": outputs - self.beside, "channels": channels, "size": size, "scale": self.scale}
        network = call_function(self.name, self.function, offered, arguments)
        if not isinstance(network, nn.Module):
            raise UserError(f"{self.name} must return a torch.nn.Module, not {type(network).__name__}")
        return network

    def pretrained(
        self, *, outputs: int, channels: int, size: tuple[int, int], arguments: Mapping[str, Scalar]
    ) -> nn.Module:
        raise BadWeights(f"no pretrained weights are published for {self.name}; name a file, or a network of timm's")

    def normalisation(self) -> Normalisation | None:
        return None


def find(name: str, task: str = "classification", scale: int = 1, weights: str | None = None) -> Source:
    """The source of a network for a task; libraries of networks are imported only for names of theirs.

    `scale`: how many times larger the output is, for super-resolution; `weights`: the file that decides which of the
    variants of one name is built (SwinIR). Raises UnknownName with the nearest name, or
    UserError when a user's function cannot be imported.
    """
    if name.startswith(TORCHVISION):
        return _torchvision(name.removeprefix(TORCHVISION), task)
    if name.startswith(SMP):
        from kdsearch.models.from_smp import SMPSource

        return SMPSource(name.removeprefix(SMP))
    beside = BESIDE_CLASSES if task == "detection" else 0
    if ":" in name:
        return FunctionSource(name, load_function(name), scale, beside)
    functions = own_networks()
    if name in functions:
        return FunctionSource(name, functions[name], scale, beside)
    if name == SWINIR:
        from kdsearch.models.from_spandrel import SwinIRSource

        return SwinIRSource(scale, weights)
    if task != "classification":
        raise UnknownName(f"network for {task}", name, functions, "or torchvision:NAME, smp:ARCHITECTURE:ENCODER")
    from kdsearch.models.from_timm import TimmSource

    return TimmSource(name, also=functions)


def _torchvision(name: str, task: str) -> Source:
    if task == "segmentation":
        from kdsearch.models.torchvision_segmentation import SegmentationSource

        return SegmentationSource(name)
    if task == "detection":
        from kdsearch.models.torchvision_detection import DetectionSource

        return DetectionSource(name)
    from kdsearch.models.from_torchvision import TorchvisionSource

    return TorchvisionSource(name)


def own_networks() -> dict[str, Callable[..., nn.Module]]:
    """Names and functions of our own networks: the public functions of the files in `own`."""
    found: dict[str, Callable[..., nn.Module]] = {}
    for file in pkgutil.iter_modules(own.__path__):
        module = importlib.import_module(f"{own.__name__}.{file.name}")
        for name, function in vars(module).items():
            if inspect.isfunction(function) and function.__module__ == module.__name__ and not name.startswith("_"):
                found[name] = function
    return found
