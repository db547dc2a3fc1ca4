"""Pascal VOC 2012 segmentation as torchvision keeps it: 20 classes of things and the background.

The published train part (1,464 images) is divided into train and validation; the published val part (1,449), on which
the literature reports, is the test part. Pixels at the outlines of things (255) do not count.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kdsearch.data.dense.masks import Pair, classes_part, look_at_classes
from kdsearch.data.dense.source import DensePart, DenseSource
from kdsearch.data.source import existing_root, refuse_unused
from kdsearch.errors import BadData
from kdsearch.settings import AugmentationSettings

if TYPE_CHECKING:
    from pathlib import Path

    from kdsearch.settings import DataSettings

TASKS = ("segmentation",)
IMAGE_SIZE = 256
CLASSES = (
    *("background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"),
)


def load(settings: DataSettings, task: str) -> DenseSource:
    """The parts under `settings.root`, letterboxed to `settings.image_size` (256) squared. Raises BadData."""
    refuse_unused(settings, "samples")
    root = existing_root(settings, "the folder that was given to torchvision.datasets.VOCSegmentation")
    side = settings.image_size or IMAGE_SIZE
    return DenseSource(
        train=_part(root, "train", side),
        test=_part(root, "val", side),
        classes=CLASSES,
        channels=3,
        size=(side, side),
        augmentation=AugmentationSettings(crop=side // 8, flip=True),
    )


def _part(root: Path, image_set: str, side: int) -> DensePart:
    from torchvision.datasets import VOCSegmentation  # type: ignore[import-untyped]

    try:
        published = VOCSegmentation(str(root), year="2012", image_set=image_set)
    except (RuntimeError, OSError, AssertionError) as error:  # torchvision's ways to say that files are missing
        raise BadData(
            f"{root} holds no Pascal VOC 2012, whose VOCdevkit/VOC2012/ImageSets/Segmentation/{image_set}.txt lists "
            f"its images ({error}); torchvision.datasets.VOCSegmentation(root, download=True) fetches it"
        ) from error
    pairs = [Pair(image, mask) for image, mask in zip(published.images, published.masks, strict=True)]
    if not pairs:
        raise BadData(f"the list ImageSets/Segmentation/{image_set}.txt of Pascal VOC 2012 in {root} is empty")
    looks = look_at_classes(pairs)
    for pair, look in zip(pairs, looks, strict=True):
        if look.highest >= len(CLASSES):
            raise BadData(f"the mask {pair.mask} holds the class {look.highest}: those of Pascal VOC are 0 to 20")
    return classes_part(pairs, looks, (side, side))
