"""PASCAL VOC 2007 for detection: 20 classes, 5,011 images to train on and 4,952 to test, each squashed to a square.

Everingham et al., "The PASCAL Visual Object Classes Challenge", IJCV 2010. Validation is cut from `trainval`. Objects
marked as difficult are not trained for; in evaluation they are neither missed nor falsely found, as in VOC's own count.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple
from xml.etree import ElementTree

import numpy as np

from kdsearch.data.dense.own import dominant_of_boxes, padded_boxes
from kdsearch.data.dense.source import DensePart, DenseSource
from kdsearch.data.source import existing_root, refuse_unused
from kdsearch.errors import BadData
from kdsearch.settings import AugmentationSettings

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from kdsearch.settings import DataSettings

TASKS = ("detection",)

SIDE = 320
CLASSES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog",
    "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip


class Annotation(NamedTuple):
    """What one XML file says."""

    width: int
    height: int
    boxes: NDArray[np.float32]
    """[n, 5]: x1, y1, x2, y2 in pixels from the image's corner; class c, or −2 − c of a difficult object."""


@dataclass(frozen=True)
class Squashed:
    """Image files and their boxes, brought to a square."""

    pictures: tuple[str, ...]
    sizes: tuple[tuple[int, int], ...]
    """Width and height of each, as its annotation says."""
    truths: NDArray[np.float32]
    """[N, M, 5], in pixels of the square."""
    side: int

    def __call__(self, row: int) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        """Image [3, side, side] and truth [M, 5]. Raises BadData that names the picture."""
        from PIL import Image

        path = self.pictures[row]
        try:
            with Image.open(path) as picture:
                size = picture.size
                square = picture.convert("RGB").resize((self.side, self.side), Image.Resampling.BILINEAR)
        except Exception as error:  # PIL's decoders raise many kinds
            raise BadData(f"{path} cannot be read as an image: {error}") from error
        if size != self.sizes[row]:
            said = "×".join(map(str, self.sizes[row]))
            raise BadData(f"{path} is {size[0]}×{size[1]} pixels wide and high, but its annotation says {said}")
        return np.ascontiguousarray(np.asarray(square, dtype=np.uint8).transpose(2, 0, 1)), self.truths[row]


def load(settings: DataSettings, task: str) -> DenseSource:
    """The published files under `settings.root`, brought to squares of `settings.image_size` (320) pixels a side.

    The root is what was given to torchvision.datasets.VOCDetection: it holds VOCdevkit/VOC2007. Raises BadData.
    """
    refuse_unused(settings, "samples")
    root = existing_root(settings, "the folder that holds VOCdevkit/VOC2007")
    side = settings.image_size or SIDE
    return DenseSource(
        train=_part(root, "trainval", side),
        test=_part(root, "test", side),
        classes=CLASSES,
        channels=3,
        size=(side, side),
        augmentation=AugmentationSettings(flip=True),
    )


def _part(root: Path, image_set: str, side: int) -> DensePart:
    from torchvision.datasets import VOCDetection  # type: ignore[import-untyped]

    try:
        listed = VOCDetection(str(root), year="2007", image_set=image_set)
    except (RuntimeError, OSError) as error:
        raise BadData(
            f"VOC 2007 cannot be read from {str(root)!r} ({str(error).partition(chr(10))[0]}): put the published files "
            f"there, or let torchvision.datasets.VOCDetection(root, '2007', {image_set!r}, download=True) fetch them"
        ) from error
    missing = next((path for path in listed.images if not os.path.isfile(path)), None)
    if missing is not None:
        raise BadData(f"{missing}, which {image_set}.txt lists, is missing")
    if not listed.images:
        raise BadData(f"{image_set}.txt under {str(root)!r} lists no image")
    annotations = [read_annotation(path) for path in listed.annotations]
    truths = padded_boxes([_squashed(annotation, side) for annotation in annotations])
    if not (truths[..., 4] >= 0).any():
        raise BadData(f"no image of {image_set} under {str(root)!r} has an object that is not difficult")
    sizes = tuple((annotation.width, annotation.height) for annotation in annotations)
    read = Squashed(tuple(listed.images), sizes, truths, side)
    return DensePart(read, np.arange(len(truths)), dominant_of_boxes(truths))


def _squashed(annotation: Annotation, side: int) -> NDArray[np.float32]:
    across, down = side / annotation.width, side / annotation.height
    return annotation.boxes * np.array([across, down, across, down, 1], np.float32)


def read_annotation(path: str) -> Annotation:
    """One annotation file. Raises BadData where it is damaged, or holds a class or a box that cannot be."""
    try:
        root = ElementTree.parse(path).getroot()
        width, height = (int(_text(root, f"size/{name}")) for name in ("width", "height"))
        rows = [_row(item) for item in root.iterfind("object")]
    except (ElementTree.ParseError, OSError, ValueError) as error:
        raise BadData(f"{path} cannot be read as an annotation of VOC: {error}") from error
    for x1, y1, x2, y2, _ in rows:
        if not (0 <= x1 < x2 <= width and 0 <= y1 < y2 <= height):
            raise BadData(
                f"{path} has the box xmin {x1 + 1:g}, ymin {y1 + 1:g}, xmax {x2:g}, ymax {y2:g}, which has no area or "
                f"lies outside of the image of {width}×{height} pixels"
            )
    return Annotation(width, height, np.array(rows, np.float32).reshape(-1, 5))


def _row(item: ElementTree.Element) -> tuple[float, float, float, float, int]:
    """x1, y1, x2, y2 and class of one object; VOC counts pixels from 1 and names the first and the last."""
    name = _text(item, "name")
    if name not in CLASSES:
        raise ValueError(f"unknown class {name!r} (valid: {', '.join(CLASSES)})")
    xmin, ymin, xmax, ymax = (float(_text(item, f"bndbox/{edge}")) for edge in ("xmin", "ymin", "xmax", "ymax"))
    if not all(map(math.isfinite, (xmin, ymin, xmax, ymax))):
        raise ValueError("a box with an edge that is no number")
    label = CLASSES.index(name)
    difficult = (item.findtext("difficult") or "0").strip() == "1"
    return xmin - 1, ymin - 1, xmax, ymax, -2 - label if difficult else label


def _text(item: ElementTree.Element, path: str) -> str:
    found = item.findtext(path)
    if found is None:
        raise ValueError(f"no <{path}> in <{item.tag}>")
    return found.strip()
