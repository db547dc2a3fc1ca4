"""Classification networks of torchvision, by name."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torchvision import models as networks  # type: ignore[import-untyped]

from kdsearch.errors import BadWeights, InvalidSetting, UnknownName
from kdsearch.models.names import TORCHVISION
from kdsearch.models.stem import first_convolution, reshape
from kdsearch.models.weights import fit

if TYPE_CHECKING:
    from kdsearch.models.sources import Normalisation
    from kdsearch.settings import Scalar


class TorchvisionSource:
    """One of torchvision's networks; where several weights are published, the ones it calls DEFAULT."""

    def __init__(self, name: str) -> None:
        known = networks.list_models(module=networks)
        if name not in known:
            raise UnknownName("torchvision network", name, known)
        self.name = name
        self.builder = networks.get_model_builder(name)
        self.parameters = _parameters_of_networks(self.builder.__module__)
        self.any_size = not self.parameters & {"image_size", "input_size"}

    def build(
        self, *, outputs: int, channels: int, size: tuple[int, int], arguments: Mapping[str, Scalar]
    ) -> nn.Module:
        network = self._create({"num_classes": outputs, **self._size_argument(size), **arguments}, arguments)
        convolution = first_convolution(network)
        if convolution is not None and convolution.in_channels != channels:
            reshape(convolution, channels=channels)
        return network

    def pretrained(
        self, *, outputs: int, channels: int, size: tuple[int, int], arguments: Mapping[str, Scalar]
    ) -> nn.Module:
        network = self.build(outputs=outputs, channels=channels, size=size, arguments=arguments)
        weights = self._weights()
        try:
            # Read as tensors alone first: of what passes this, nothing can run when the builder reads it again.
            weights.get_state_dict(progress=False, check_hash=True, weights_only=True)
            published = self.builder(weights=weights, progress=False)
        except Exception as error:  # network, cache or file: there is no common error for them
            why = " ".join(str(error).split()) or type(error).__name__
            raise BadWeights(
                f"the pretrained weights of {TORCHVISION}{self.name} cannot be had: {why[:300]}; "
                "a local file can be given instead"
            ) from error
        _take_over(network, published, len(weights.meta["categories"]), f"{TORCHVISION}{self.name}")
        return network

    def normalisation(self) -> Normalisation | None:
        transforms = self._weights().transforms()
        return tuple(transforms.mean), tuple(transforms.std)

    def _weights(self) -> Any:
        try:
            return networks.get_model_weights(self.name)["DEFAULT"]
        except (KeyError, ValueError) as error:
            raise BadWeights(f"torchvision publishes no pretrained weights for {self.name}") from error

    def _size_argument(self, size: tuple[int, int]) -> dict[str, Any]:
        if "input_size" in self.parameters:
            return {"input_size": size}
        if "image_size" not in self.parameters:
            return {}
        if size[0] != size[1]:
            raise InvalidSetting("input_size", None, f"{self.name} takes square images only: set their side")
        return {"image_size": size[0]}

    def _create(self, given: dict[str, Any], arguments: Mapping[str, Scalar]) -> nn.Module:
        if "aux_logits" in self.parameters:  # further classifiers, which would make a tuple of the output
            given = {"aux_logits": False, "init_weights": True} | given
        try:
            network: nn.Module = self.builder(weights=None, **given)
        except TypeError as error:
            if arguments and "argument" in str(error):
                raise InvalidSetting(
                    "arguments", dict(arguments), f"{self.name} does not take them ({error})"
                ) from error
            raise
        return network


def _parameters_of_networks(module: str) -> set[str]:
    """What the networks of one of torchvision's files take; their builders only say **kwargs."""
    classes = [kind for kind in vars(sys.modules[module]).values() if inspect.isclass(kind)]
    own = [kind for kind in classes if issubclass(kind, nn.Module) and kind.__module__ == module]
    return {name for kind in own for name in inspect.signature(kind).parameters}


def _take_over(network: nn.Module, published: nn.Module, categories: int, name: str) -> None:
    """Give the network the published weights; its head stays random where the numbers of classes differ."""
    own, theirs = network.state_dict(), published.state_dict()
    head = {key for key in own if key in theirs and own[key].shape != theirs[key].shape}
    head = {key for key in head if theirs[key].shape[0] == categories}
    state = {key: own[key] if key in head or key not in theirs else theirs[key] for key in own}
    convolution = first_convolution(network)
    if convolution is not None:
        key = next(key for key, part in network.named_modules() if part is convolution) + ".weight"
        state[key] = _with_channels(state[key], convolution.in_channels)
    fit(network, state, f"{name}'s pretrained weights")
    if getattr(published, "transform_input", False) and convolution is not None and convolution.in_channels == 3:
        network.transform_input = True  # type: ignore[assignment]


def _with_channels(weight: torch.Tensor, channels: int) -> torch.Tensor:
    """Weights of a first convolution for other channels, so that grey images given to all excite it as before."""
    colours = weight.shape[1]
    if channels == colours:
        return weight
    if channels == 1:
        return weight.sum(1, keepdim=True)
    repeated = weight.repeat(1, -(-channels // colours), 1, 1)[:, :channels]
    return repeated * (colours / channels)
