"""Ten shapes drawn by ourselves, 32×32 in colour, any number of them from a seed.

What a shape is survives turning by 90° and flipping. That an image is turned can be seen all the same: light falls
from above, so the ground is brighter at the top and every shape casts its shadow downwards.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from kdsearch.data.figures import INSIDE, covers
from kdsearch.data.randomness import stream
from kdsearch.data.source import ArrayPart, Source, refuse_unused
from kdsearch.settings import AugmentationSettings

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from kdsearch.settings import DataSettings

    Floats = NDArray[np.float32]

SIDE = 32
CLASSES = tuple(INSIDE)
TRAIN, VALIDATION, TEST = 2000, 1000, 1000


def load(settings: DataSettings) -> Source:
    """`settings.samples` (2,000) training images, 1,000 validation and 1,000 test images that do not depend on it."""
    refuse_unused(settings, "root", "image_size")
    return Source(
        train=draw(settings.samples or TRAIN, stream(settings.seed, "shapes", "train")),
        validation=draw(VALIDATION, stream(settings.seed, "shapes", "validation")),
        test=draw(TEST, stream(settings.seed, "shapes", "test")),
        classes=CLASSES,
        augmentation=AugmentationSettings(flip=True),
    )


def draw(samples: int, random: np.random.Generator) -> ArrayPart:
    """So many images of classes that are as even as they can be, in random order."""
    targets = random.permutation(np.arange(samples, dtype=np.int64) % len(CLASSES))
    images = np.empty((samples, 3, SIDE, SIDE), dtype=np.uint8)
    for label in range(len(CLASSES)):
        rows = np.flatnonzero(targets == label)
        if len(rows):
            images[rows] = _paint(_figures(targets[rows], random), random)
    return ArrayPart(images, targets)


def _figures(targets: NDArray[np.int64], random: np.random.Generator) -> Floats:
    """A shape of each class, wherever it is seen whole: the share of each pixel that it covers [n, 32, 32]."""
    count = len(targets)
    half = random.uniform(6.5, 12, count)
    stretch = random.uniform(0.85, 1.18, count)
    centre = random.uniform(-1, 1, (2, count)) * (SIDE / 2 - 0.85 * half)
    tilt = np.deg2rad(random.uniform(-25, 25, count))
    return covers(CLASSES, targets, SIDE, half=half, stretch=stretch, tilt=tilt, centre=centre)


def _paint(cover: Floats, random: np.random.Generator) -> NDArray[np.uint8]:
    """Shape over shadow over clutter over a ground that darkens downwards, with noise: uint8 [n, 3, 32, 32]."""
    count = len(cover)
    ground, colour = _colours(count, random)
    light = random.uniform(0.1, 0.3, (count, 1, 1, 1)) * np.linspace(1, -1, SIDE)[:, None]
    image = np.repeat((ground[:, :, None, None] + light).astype(np.float32), SIDE, axis=3)
    _clutter(image, random)
    shadow = np.zeros_like(cover)
    shadow[:, 3:] = cover[:, :-3]
    image *= 1 - 0.5 * shadow[:, None]
    image += cover[:, None] * (colour[:, :, None, None] + np.float32(0.6) * light.astype(np.float32) - image)
    noise = random.standard_normal(image.shape, dtype=np.float32)
    image += noise * random.uniform(0.01, 0.1, (count, 1, 1, 1)).astype(np.float32)
    return np.round(image.clip(0, 1) * 255).astype(np.uint8)


def _colours(count: int, random: np.random.Generator) -> tuple[Floats, Floats]:
    """Colours of ground and shape [count, 3], which differ by at least 0.3 in some channel."""
    ground = random.uniform(0.25, 0.75, (count, 3))
    shift = random.uniform(-0.45, 0.45, (count, 3))
    strongest = np.abs(shift).max(1, keepdims=True)
    shift *= np.maximum(strongest, 0.3) / strongest
    return ground.astype(np.float32), (ground + shift).astype(np.float32)


def _clutter(image: Floats, random: np.random.Generator) -> None:
    """Up to four small blots of random colour on each image, in place."""
    count = len(image)
    axis = np.arange(SIDE, dtype=np.float32)
    for _ in range(4):
        x, y = random.uniform(0, SIDE, (2, count, 1, 1)).astype(np.float32)
        wide, high = random.uniform(0.8, 2.6, (2, count, 1, 1)).astype(np.float32)
        there = random.random((count, 1, 1)) < 0.6
        blot = (((axis - x) / wide) ** 2 + ((axis[:, None] - y) / high) ** 2 < 1) & there
        colour = random.uniform(0, 1, (count, 3, 1, 1)).astype(np.float32)
        image += blot[:, None] * (colour - image)
