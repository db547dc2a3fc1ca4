"""Folders of pictures and masks as they lie on disk, small: Pascal VOC's, and one's own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from kdsearch.tasks.segmentation import palette

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray


def scene(
    random: np.random.Generator, height: int, width: int, classes: int
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """A picture [H, W, 3] of one box, red, green or blue by its class, and its mask, with an outline of 255."""
    label = int(random.integers(1, classes))
    top, left = int(random.integers(1, height // 3)), int(random.integers(1, width // 3))
    mask = np.zeros((height, width), dtype=np.uint8)
    mask[top : top + height // 2, left : left + width // 2] = 255
    mask[top + 1 : top + height // 2 - 1, left + 1 : left + width // 2 - 1] = label
    image = random.integers(0, 80, (height, width, 3)).astype(np.uint8)
    image[mask > 0, label % 3] += np.uint8(150)
    return image, mask


def save_mask(mask: NDArray[np.uint8], path: Path) -> None:
    """As a palette PNG, the way VOC has it."""
    picture = Image.frombytes("P", (mask.shape[1], mask.shape[0]), mask.tobytes())
    picture.putpalette(palette().ravel().tolist())
    picture.save(path)


def voc_tree(root: Path, train: int = 12, val: int = 6, classes: int = 21) -> Path:
    """VOCdevkit/VOC2012 with images of varying sizes, the lists and masks of the segmentation task."""
    base = root / "VOCdevkit" / "VOC2012"
    for folder in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (base / folder).mkdir(parents=True)
    random = np.random.default_rng(0)
    for part, count, year in (("train", train, 2007), ("val", val, 2008)):
        names = [f"{year}_{number:06d}" for number in range(count)]
        (base / "ImageSets" / "Segmentation" / f"{part}.txt").write_text("\n".join(names) + "\n")
        for place, name in enumerate(names):
            height, width = ((36, 50), (50, 36), (40, 40))[place % 3]
            image, mask = scene(random, height, width, classes)
            Image.fromarray(image).save(base / "JPEGImages" / f"{name}.jpg", quality=95)
            save_mask(mask, base / "SegmentationClass" / f"{name}.png")
    return root


def masks_tree(root: Path, count: int = 10, size: tuple[int, int] = (30, 40), classes: int = 4) -> Path:
    """`images` and `masks` beside each other, the masks in 8-bit grey."""
    for folder in ("images", "masks"):
        (root / folder).mkdir(parents=True)
    random = np.random.default_rng(0)
    for number in range(count):
        image, mask = scene(random, *size, classes)
        Image.fromarray(image).save(root / "images" / f"{number}.png")
        Image.fromarray(mask).save(root / "masks" / f"{number}.png")
    return root
