"""Ten shapes drawn by ourselves, 32×32 in colour, any number of them from a seed.

What a shape is survives turning by 90° and flipping. That an image is turned can be seen all the same: light falls
from above, so the ground is brighter at the top and every shape casts its shadow downwards.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from kdsearch.data.randomness import stream
from kdsearch.data.source import ArrayPart, Source, refuse_unused
from kdsearch.settings import AugmentationSettings

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from kdsearch.settings import DataSettings

    Floats = NDArray[np.float32]
    Mask = NDArray[np.bool_]

SIDE = 32
OVERSAMPLING = 2
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
    targets = random.permutation(np.arange(samples, dtype=np.int64) % len(INSIDE))
    images = np.empty((samples, 3, SIDE, SIDE), dtype=np.uint8)
    for label, inside in enumerate(INSIDE):
        rows = np.flatnonzero(targets == label)
        if len(rows):
            images[rows] = _paint(_cover(inside(*_plane(len(rows), random))), random)
    return ArrayPart(images, targets)


def _plane(count: int, random: np.random.Generator) -> tuple[Floats, Floats]:
    """Coordinates of every fine pixel in the frame of its shape, [count, S, S] each: right and up, the shape in ±1."""
    half = random.uniform(6.5, 12, count)
    stretch = random.uniform(0.85, 1.18, count)
    centre = random.uniform(-1, 1, (2, count)) * (SIDE / 2 - 0.85 * half)
    tilt = np.deg2rad(random.uniform(-25, 25, count))
    axis = (np.arange(SIDE * OVERSAMPLING) + 0.5) / OVERSAMPLING - SIDE / 2
    x = (axis[None, None, :] - centre[0][:, None, None]).astype(np.float32)
    y = (-axis[None, :, None] - centre[1][:, None, None]).astype(np.float32)
    cosine, sine = (wave.astype(np.float32)[:, None, None] for wave in (np.cos(tilt), np.sin(tilt)))
    wide, high = ((half * s).astype(np.float32)[:, None, None] for s in (stretch, 1 / stretch))
    return (cosine * x + sine * y) / wide, (cosine * y - sine * x) / high


def _cover(inside: Mask) -> Floats:
    """The share of each pixel that lies inside, [n, 32, 32]."""
    blocks = inside.reshape(len(inside), SIDE, OVERSAMPLING, SIDE, OVERSAMPLING)
    cover: Floats = blocks.mean((2, 4), dtype=np.float32)
    return cover


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


def _disc(u: Floats, v: Floats) -> Mask:
    disc: Mask = u**2 + v**2 < 1
    return disc


def _ring(u: Floats, v: Floats) -> Mask:
    ring: Mask = np.abs(u**2 + v**2 - 0.62) < 0.38
    return ring


def _square(u: Floats, v: Floats) -> Mask:
    return np.maximum(np.abs(u), np.abs(v)) < 0.85


def _frame(u: Floats, v: Floats) -> Mask:
    return np.abs(np.maximum(np.abs(u), np.abs(v)) - 0.67) < 0.22


def _triangle(u: Floats, v: Floats) -> Mask:
    triangle: Mask = (v > -0.75) & (np.abs(u) < 0.55 * (1 - v))
    return triangle


def _star(u: Floats, v: Floats) -> Mask:
    to_tip = np.abs(np.arctan2(u, v) * (5 / np.pi) % 2 - 1)  # 1 towards each of five tips, 0 between two
    return np.hypot(u, v) < 0.38 + 0.62 * to_tip**1.5


def _cross(u: Floats, v: Floats) -> Mask:
    return (np.minimum(np.abs(u), np.abs(v)) < 0.3) & (np.maximum(np.abs(u), np.abs(v)) < 0.95)


def _arrow(u: Floats, v: Floats) -> Mask:
    head = (v > 0) & (np.abs(u) < 0.9 * (1 - v))
    arrow: Mask = head | ((np.abs(u) < 0.26) & (np.abs(v + 0.45) < 0.5))
    return arrow


def _heart(u: Floats, v: Floats) -> Mask:
    x, y = 1.15 * u, 1.1 * v + 0.1
    heart: Mask = (x**2 + y**2 - 1) ** 3 < x**2 * y**3
    return heart


def _crescent(u: Floats, v: Floats) -> Mask:
    return _disc(u, v) & (u**2 + (v - 0.55) ** 2 > 0.55)


INSIDE = (_disc, _ring, _square, _frame, _triangle, _star, _cross, _arrow, _heart, _crescent)
CLASSES = tuple(inside.__name__.lstrip("_") for inside in INSIDE)
