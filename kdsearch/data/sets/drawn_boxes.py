"""Scenes drawn by ourselves, 64×64 in colour, with one to three objects of five classes and their exact boxes.

A box is the smallest that holds every pixel in which a part of its object is seen. Objects do not overlap; clutter and
noise lie around them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from kdsearch.data.dense.own import dominant_of_boxes
from kdsearch.data.dense.source import NO_BOX, DensePart, DenseSource
from kdsearch.data.figures import covers
from kdsearch.data.randomness import stream
from kdsearch.data.source import refuse_unused
from kdsearch.settings import AugmentationSettings

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from kdsearch.settings import DataSettings

    Floats = NDArray[np.float32]

TASKS = ("detection",)

SIDE = 64
OBJECTS = 3
CLASSES = ("disc", "square", "triangle", "cross", "crescent")
TRAIN, VALIDATION, TEST = 400, 100, 200

_HALF = (6.5, 15.0)
"""Half the side of an object in pixels, before it is stretched and tilted."""
_PATCH = 48
"""Side of the square an object is drawn in: the largest one's diagonal fits."""
_TRIES = 12
"""Places tried for an object until it overlaps no other; a scene in which none is free goes without it."""


def load(settings: DataSettings, task: str) -> DenseSource:
    """`settings.samples` (400) scenes to train on, 100 for validation and 200 for test that do not depend on it."""
    refuse_unused(settings, "root", "image_size")
    return DenseSource(
        train=draw(settings.samples or TRAIN, stream(settings.seed, "drawn_boxes", "train")),
        validation=draw(VALIDATION, stream(settings.seed, "drawn_boxes", "validation")),
        test=draw(TEST, stream(settings.seed, "drawn_boxes", "test")),
        classes=CLASSES,
        channels=3,
        size=(SIDE, SIDE),
        augmentation=AugmentationSettings(flip=True),
    )


def draw(samples: int, random: np.random.Generator) -> DensePart:
    """So many scenes with their boxes."""
    images = _ground(samples, random)
    boxes = np.zeros((samples, OBJECTS, 5), np.float32)
    boxes[..., 4] = NO_BOX
    wanted = random.integers(1, OBJECTS + 1, samples)
    for number in range(OBJECTS):
        labels = random.integers(0, len(CLASSES), samples)
        covers = _covers(labels, random)
        extents = np.array([_extent(cover) for cover in covers])
        corners = _free_places(extents[:, 2:] - extents[:, :2], boxes[:, :number, :4], random)
        shades = _shades(samples, random)
        for image in np.flatnonzero((number < wanted) & (corners[:, 0] >= 0)):
            boxes[image, number] = _paste(
                images[image], covers[image], extents[image], corners[image], shades[image], labels[image]
            )
    images += random.standard_normal(images.shape, dtype=np.float32) * random.uniform(
        0.01, 0.08, (samples, 1, 1, 1)
    ).astype(np.float32)
    return DensePart.of_arrays(np.round(images.clip(0, 1) * 255).astype(np.uint8), boxes, dominant_of_boxes(boxes))


def _ground(samples: int, random: np.random.Generator) -> Floats:
    """A ground of one colour that grows lighter along a random direction, with clutter: float [N, 3, S, S]."""
    colour = random.uniform(0.2, 0.8, (samples, 3, 1, 1)).astype(np.float32)
    axis = np.linspace(-0.5, 0.5, SIDE, dtype=np.float32)
    slope = random.uniform(-0.3, 0.3, (2, samples, 1, 1, 1)).astype(np.float32)
    images: Floats = colour + slope[0] * axis + slope[1] * axis[:, None]
    places = np.arange(SIDE, dtype=np.float32)
    for _ in range(10):
        x, y = random.uniform(0, SIDE, (2, samples, 1, 1)).astype(np.float32)
        wide, high = random.uniform(0.8, 4, (2, samples, 1, 1)).astype(np.float32)
        blot = (((places - x) / wide) ** 2 + ((places[:, None] - y) / high) ** 2 < 1)[:, None]
        np.copyto(images, random.uniform(0, 1, (samples, 3, 1, 1)).astype(np.float32), where=blot)
    return images


def _covers(labels: NDArray[np.int64], random: np.random.Generator) -> Floats:
    """An object of each label in the middle of a patch: the share of each pixel that it covers, [N, P, P]."""
    samples = len(labels)
    half = random.uniform(*_HALF, samples)
    stretch = random.uniform(0.8, 1.25, samples)
    tilt = random.uniform(-0.35, 0.35, samples)
    shift = random.uniform(-0.5, 0.5, (2, samples))
    return covers(CLASSES, labels, _PATCH, half=half, stretch=stretch, tilt=tilt, centre=shift * [[1], [-1]])


def _extent(cover: Floats) -> NDArray[np.int64]:
    """x1, y1, x2, y2 of the pixels of a patch [P, P] in which something is seen."""
    rows, columns = np.flatnonzero(cover.any(1)), np.flatnonzero(cover.any(0))
    return np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1])


def _free_places(
    sides: NDArray[np.int64], boxes: NDArray[np.float32], random: np.random.Generator
) -> NDArray[np.int64]:
    """Where a box of these sides (width, height) [N, 2] overlaps none of those there [N, M, 4]: x1, y1, or −1, −1."""
    tries = np.floor(random.random((_TRIES, len(sides), 2)) * (SIDE - sides + 1)).astype(np.int64)
    low = np.maximum(tries[:, :, None], boxes[None, ..., :2])
    high = np.minimum((tries + sides)[:, :, None], boxes[None, ..., 2:])
    free = ~((high > low).all(-1).any(-1))
    first = free.argmax(0)
    return np.where(free.any(0)[:, None], tries[first, np.arange(len(sides))], -1)


def _shades(samples: int, random: np.random.Generator) -> Floats:
    """Colours of objects [N, 3], as a difference from the ground: at least 0.25 in some channel."""
    shift = random.uniform(-0.5, 0.5, (samples, 3))
    strongest = np.abs(shift).max(1, keepdims=True)
    shades: Floats = (shift * np.maximum(strongest, 0.25) / strongest).astype(np.float32)
    return shades


def _paste(
    image: Floats,
    cover: Floats,
    extent: NDArray[np.int64],
    corner: NDArray[np.int64],
    shade: Floats,
    label: np.int64,
) -> Floats:
    """Paint an object into an image [3, S, S], in place; its row of the truth."""
    x1, y1, x2, y2 = extent
    left, top = corner
    window = image[:, top : top + y2 - y1, left : left + x2 - x1]
    colour = window.mean((1, 2)) + shade
    window += cover[y1:y2, x1:x2] * (colour[:, None, None] - window)
    return np.array([left, top, left + x2 - x1, top + y2 - y1, label], np.float32)
