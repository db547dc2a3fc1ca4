"""torchvision's segmentation networks by name, as networks that give one tensor."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn import functional
from torchvision import models as networks  # type: ignore[import-untyped]

from kdsearch.errors import BadWeights, InvalidSetting, UnknownName
from kdsearch.models.names import TORCHVISION
from kdsearch.models.stem import first_convolution, reshape
from kdsearch.models.weights import fit, read_published

if TYPE_CHECKING:
    from kdsearch.models.sources import Normalisation
    from kdsearch.settings import Scalar

_AUXILIARY = "aux_classifier."


class SegmentationSource:
    """One of torchvision's segmentation networks, without its auxiliary head: [B, C, H, W] → [B, K, H, W]."""

    any_size = True

    def __init__(self, name: str) -> None:
        known = networks.list_models(module=networks.segmentation)
        if name not in known:
            raise UnknownName("torchvision network for segmentation", name, known)
        self.name = name

    def build(
        self, *, outputs: int, channels: int, size: tuple[int, int], arguments: Mapping[str, Scalar]
    ) -> nn.Module:
        if arguments:
            raise InvalidSetting("arguments", dict(arguments), f"{TORCHVISION}{self.name} takes none")
        builder = networks.get_model_builder(self.name)
        network = SegmentationNetwork(builder(weights=None, weights_backbone=None, num_classes=outputs, aux_loss=False))
        convolution = first_convolution(network)
        assert convolution is not None
        if convolution.in_channels != channels:
            reshape(convolution, channels=channels)
        return network

    def pretrained(
        self, *, outputs: int, channels: int, size: tuple[int, int], arguments: Mapping[str, Scalar]
    ) -> nn.Module:
        """The same with the published weights, which must lie on disk; logits of other classes than VOC's are drawn."""
        if channels != 3:
            raise BadWeights(
                f"the pretrained weights of {TORCHVISION}{self.name} are for images with 3 channels, not {channels}"
            )
        network = self.build(outputs=outputs, channels=channels, size=size, arguments=arguments)
        own, published = network.state_dict(), self._published()
        categories = len(self._weights().meta["categories"])
        redrawn = {
            key
            for key in own
            if key in published and published[key].shape != own[key].shape and published[key].shape[0] == categories
        }
        kept = {key: value for key, value in published.items() if not key.startswith(_AUXILIARY)}
        fit(network, kept | {key: own[key] for key in redrawn}, f"{TORCHVISION}{self.name}'s pretrained weights")
        return network

    def normalisation(self) -> Normalisation | None:
        transforms = self._weights().transforms()
        return tuple(transforms.mean), tuple(transforms.std)

    def _weights(self) -> Any:
        return networks.get_model_weights(self.name)["DEFAULT"]

    def _published(self) -> dict[str, torch.Tensor]:
        return read_published(self._weights().url, f"{TORCHVISION}{self.name}")


class SegmentationNetwork(nn.Module):
    """Backbone and classifier of a torchvision network, whose tensors keep their names; logits [B, K, H, W]."""

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.backbone = network.backbone
        self.classifier = network.classifier

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        features = self.backbone(images)
        logits = self.classifier(features.get("out", features))  # LR-ASPP reads two of its backbone's maps
        return functional.interpolate(logits, size=images.shape[-2:], mode="bilinear", align_corners=False)
