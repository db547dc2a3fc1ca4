"""torchvision's single-shot detectors by name, as networks that give one tensor."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torchvision.models import detection  # type: ignore[import-untyped]

from kdsearch.errors import BadWeights, InvalidSetting, UnknownName, UserError
from kdsearch.models.multibox import BESIDE_CLASSES, MultiboxDetector
from kdsearch.models.names import TORCHVISION
from kdsearch.models.stem import first_convolution, reshape
from kdsearch.models.weights import fit, read_published

if TYPE_CHECKING:
    from kdsearch.models.sources import Normalisation
    from kdsearch.settings import Scalar

# Those whose answer is class logits and offsets of a fixed set of anchors, with what torchvision calls their weights.
NETWORKS = {
    "ssd300_vgg16": "SSD300_VGG16_Weights",
    "ssdlite320_mobilenet_v3_large": "SSDLite320_MobileNet_V3_Large_Weights",
}
_CLASS_HEAD = "head.classification_head."


class DetectionSource:
    """Backbone, head and anchors of one of torchvision's SSD detectors; its own resizing and decoding are left out.

    Their tensors keep torchvision's names, so that published state dicts fit.
    """

    any_size = False  # the stem is left as it is: anchors and strides belong together

    def __init__(self, name: str) -> None:
        if name not in NETWORKS:
            raise _refusal(name)
        self.name = name

    def build(
        self, *, outputs: int, channels: int, size: tuple[int, int], arguments: Mapping[str, Scalar]
    ) -> nn.Module:
        """Images [B, channels, *size] → [B, outputs, A], `outputs` being K + 9."""
        if arguments:
            raise InvalidSetting("arguments", dict(arguments), f"{TORCHVISION}{self.name} takes none")
        classes = outputs - BESIDE_CLASSES + 1  # torchvision counts the background
        network = getattr(detection, self.name)(weights=None, weights_backbone=None, num_classes=classes)
        convolution = first_convolution(network.backbone)
        if convolution is not None and convolution.in_channels != channels:
            reshape(convolution, channels=channels)
        return MultiboxDetector(network.backbone, network.head, network.anchor_generator, size, channels)

    def pretrained(
        self, *, outputs: int, channels: int, size: tuple[int, int], arguments: Mapping[str, Scalar]
    ) -> nn.Module:
        """The same with weights trained on COCO, which must lie on disk; logits of other classes are drawn anew."""
        if channels != 3:
            raise BadWeights(
                f"the pretrained weights of {TORCHVISION}{self.name} are for images with 3 channels, not {channels}"
            )
        network = self.build(outputs=outputs, channels=channels, size=size, arguments=arguments)
        own, published = network.state_dict(), self._published()
        redrawn = {
            key
            for key in own
            if key.startswith(_CLASS_HEAD) and key in published and published[key].shape != own[key].shape
        }
        fit(network, published | {key: own[key] for key in redrawn}, f"{TORCHVISION}{self.name}'s pretrained weights")
        return network

    def normalisation(self) -> Normalisation | None:
        transform = getattr(detection, self.name)(weights=None, weights_backbone=None, num_classes=2).transform
        return tuple(transform.image_mean), tuple(transform.image_std)

    def _published(self) -> dict[str, torch.Tensor]:
        weights: Any = detection.__dict__[NETWORKS[self.name]].DEFAULT
        return read_published(weights.url, f"{TORCHVISION}{self.name}")


def _refusal(name: str) -> UserError:
    from torchvision.models import list_models

    working = " or ".join(f"{TORCHVISION}{network}" for network in NETWORKS)
    if name in list_models(module=detection):
        return UserError(
            f"{TORCHVISION}{name} cannot be trained here: it does not give class logits of fixed anchors as one "
            f"tensor; take {working}"
        )
    return UnknownName("torchvision detector", name, NETWORKS)
