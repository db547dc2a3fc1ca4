"""What a detector gives: one tensor of class logits, box offsets and anchors, as in SSD.

Liu et al., "SSD: Single Shot MultiBox Detector", ECCV 2016, arXiv 1512.02325; coding and anchors as in torchvision.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import nn

if TYPE_CHECKING:
    # torchvision ships no types.
    from torchvision.models.detection.anchor_utils import DefaultBoxGenerator  # type: ignore[import-untyped]

BESIDE_CLASSES = 1 + 4 + 4
"""Rows of the output beside the K classes: background, offsets, anchors."""

WEIGHTS = (10.0, 10.0, 5.0, 5.0)
"""Scale of the offsets of centre and size: the inverse of SSD's variances 0.1 and 0.2."""

LARGEST_GROWTH = math.log(1000 / 16)
"""Largest logarithm of a box's side over its anchor's, as in torchvision's BoxCoder: exp must not overflow."""


class Parts(NamedTuple):
    """The output [B, K + 9, A] taken apart."""

    logits: torch.Tensor
    """[B, K + 1, A]; row 0 is the background."""
    offsets: torch.Tensor
    """[B, A, 4]: of centre x, centre y, width, height, in units of the anchor, times `WEIGHTS`."""
    anchors: torch.Tensor
    """[A, 4]: x1, y1, x2, y2 in pixels."""


def join(logits: torch.Tensor, offsets: torch.Tensor, anchors: torch.Tensor) -> torch.Tensor:
    """Logits [B, A, K + 1], offsets [B, A, 4] and anchors [A, 4] → [B, K + 9, A], in float32 also under autocast."""
    places = anchors.float().expand(logits.shape[0], -1, -1)  # len() would fix the batch of an exported program
    return torch.cat([logits.float(), offsets.float(), places], dim=2).transpose(1, 2)


def take_apart(outputs: torch.Tensor) -> Parts:
    """[B, K + 9, A] → its parts. The anchors are the same for all images of a batch, and carry no gradient."""
    return Parts(outputs[:, :-8], outputs[:, -8:-4].transpose(1, 2), outputs[0, -4:].T.detach())


def encode(boxes: torch.Tensor, anchors: torch.Tensor) -> torch.Tensor:
    """Boxes [..., A, 4] as offsets from anchors [A, 4]: WEIGHTS · ((c_b − c_a) / s_a, log(s_b / s_a))."""
    (box_centre, box_side), (centre, side) = _centre_and_side(boxes), _centre_and_side(anchors)
    return torch.cat([(box_centre - centre) / side, torch.log(box_side / side)], -1) * boxes.new_tensor(WEIGHTS)


def decode(offsets: torch.Tensor, anchors: torch.Tensor) -> torch.Tensor:
    """The inverse of `encode`: offsets [..., A, 4] → boxes x1, y1, x2, y2 [..., A, 4]."""
    centre, side = _centre_and_side(anchors)
    shift, growth = (offsets / offsets.new_tensor(WEIGHTS)).chunk(2, -1)
    middle, half = centre + shift * side, side * growth.clamp(max=LARGEST_GROWTH).exp() / 2
    return torch.cat([middle - half, middle + half], -1)


def _centre_and_side(boxes: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    low, high = boxes.chunk(2, -1)
    return (low + high) / 2, high - low


class MultiboxDetector(nn.Module):
    """Images [B, C, H, W], normalised → [B, K + 9, A], the same in training and in eval mode.

    Args:
        backbone: images → feature maps, a sequence or the values of a mapping.
        head: feature maps → `cls_logits` [B, A, K + 1] and `bbox_regression` [B, A, 4], as torchvision's heads.
        generator: torchvision's DefaultBoxGenerator, which knows the anchors of each map.
        size: height and width of the images; others are taken too, their anchors are made at each call.
    """

    anchors: torch.Tensor

    def __init__(
        self, backbone: nn.Module, head: nn.Module, generator: DefaultBoxGenerator, size: tuple[int, int], channels: int
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head
        self._generator = (generator,)  # a module without weights, which the state dict need not know
        self._size = size
        example = torch.zeros(1, channels, *size)
        # Not part of the state dict: they follow from the architecture. Here they move with the module.
        self.register_buffer("anchors", self._anchors(example, self._maps_of_example(example)), persistent=False)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        maps = _maps(self.backbone(images))
        found = self.head(maps)
        known = tuple(images.shape[-2:]) == self._size
        anchors = self.anchors if known else self._anchors(images, maps).to(images.device)
        return join(found["cls_logits"], found["bbox_regression"], anchors)

    def _maps_of_example(self, example: torch.Tensor) -> list[torch.Tensor]:
        from kdsearch.models.trace import undisturbed

        with undisturbed(self.backbone):
            return _maps(self.backbone(example))

    def _anchors(self, images: torch.Tensor, maps: Sequence[torch.Tensor]) -> torch.Tensor:
        """[A, 4] in pixels of these images."""
        height, width = images.shape[-2:]
        boxes = self._generator[0]._grid_default_boxes([list(level.shape[-2:]) for level in maps], [height, width])
        centre, side = boxes.chunk(2, -1)
        corners = torch.cat([centre - side / 2, centre + side / 2], -1)
        return corners * torch.tensor([width, height, width, height])


def _maps(features: torch.Tensor | Sequence[torch.Tensor] | Mapping[str, torch.Tensor]) -> list[torch.Tensor]:
    if isinstance(features, torch.Tensor):
        return [features]
    return list(features.values() if isinstance(features, Mapping) else features)
