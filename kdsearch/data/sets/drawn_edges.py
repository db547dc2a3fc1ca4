"""Drawn pictures whose edges are known exactly: overlapping shapes of different texture, 96×96 in colour.

A region differs from its neighbours in colour or in texture alone, and stripes, noise and uneven light have gradients
that are no edges: what changes fast is not yet an edge. Three annotators look at each picture: one marks every edge
where it is, one every edge a pixel beside, one leaves out the shapes whose colour is close to the ground's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from kdsearch.data.dense.edge_maps import pack, thin
from kdsearch.data.dense.source import DensePart, DenseSource
from kdsearch.data.randomness import stream
from kdsearch.data.source import refuse_unused
from kdsearch.settings import AugmentationSettings

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from kdsearch.settings import DataSettings

    Floats = NDArray[np.float32]
    Mask = NDArray[np.bool_]

TASKS = ("edges",)

SIDE = 96
TRAIN, VALIDATION, TEST = 160, 40, 40
WEAK = 0.2
"""A shape is weak when its colour differs from the ground's by no more than this in any channel."""

_ROWS, _COLUMNS = np.mgrid[:SIDE, :SIDE].astype(np.float32)


def load(settings: DataSettings, task: str) -> DenseSource:
    """`settings.samples` (160) training pictures; 40 of validation and 40 of test that do not depend on it."""
    refuse_unused(settings, "root", "image_size")
    return DenseSource(
        train=_part(settings.samples or TRAIN, stream(settings.seed, "drawn edges", "train")),
        validation=_part(VALIDATION, stream(settings.seed, "drawn edges", "validation")),
        test=_part(TEST, stream(settings.seed, "drawn edges", "test")),
        classes=("edge",),
        channels=3,
        size=(SIDE, SIDE),
        augmentation=AugmentationSettings(flip=True, crop=4),
    )


class Drawing(NamedTuple):
    """One picture and what its annotators make of it."""

    image: NDArray[np.uint8]
    """[3, 96, 96]."""
    annotators: Mask
    """[3, 96, 96]: exact, a pixel beside, without the weak edges."""


def draw(random: np.random.Generator) -> Drawing:
    """A picture of 3 to 5 shapes that may hide one another."""
    count = int(random.integers(3, 6))
    colours = random.uniform(0.25, 0.75, (count + 1, 3)).astype(np.float32)
    close = random.random(count) < 0.3
    colours[1:][close] = colours[0] + random.uniform(-WEAK, WEAK, (int(close.sum()), 3)) / 2
    weak = np.abs(colours[1:] - colours[0]).max(1) <= WEAK
    regions = np.zeros((SIDE, SIDE), dtype=np.int64)
    image = _texture(colours[0], random)
    for number in range(count):
        inside = _shape(random)
        regions[inside] = number + 1
        image[:, inside] = _texture(colours[number + 1], random)[:, inside]
    exact = boundaries(regions)
    down, right = ((1, 0), (-1, 0), (0, 1), (0, -1))[random.integers(4)]
    beside = np.pad(exact, 1)[1 - down : SIDE + 1 - down, 1 - right : SIDE + 1 - right]
    without_weak = np.where(np.append(False, weak)[regions], 0, regions)  # to that eye weak shapes are ground
    return Drawing(_finish(image, random), np.stack([exact, beside, boundaries(without_weak)]))


def boundaries(regions: NDArray[np.int64]) -> Mask:
    """Lines of one pixel along the borders of regions [H, W], each at the upper or left side of its border."""
    differs = np.zeros(regions.shape, dtype=bool)
    differs[:-1] |= regions[:-1] != regions[1:]
    differs[:, :-1] |= regions[:, :-1] != regions[:, 1:]
    return thin(differs)


def _part(samples: int, random: np.random.Generator) -> DensePart:
    drawings = [draw(random) for _ in range(samples)]
    images = np.stack([drawing.image for drawing in drawings])
    truths = np.stack([pack(drawing.annotators) for drawing in drawings])
    return DensePart.of_arrays(images, truths, np.zeros(samples, dtype=np.int64))


def _shape(random: np.random.Generator) -> Mask:
    """An ellipse, a rectangle or a triangle of any tilt, most of it within the picture."""
    y, x = random.uniform(0.15 * SIDE, 0.85 * SIDE, 2)
    wide, high = random.uniform(0.12 * SIDE, 0.32 * SIDE, 2)
    tilt = random.uniform(0, 2 * np.pi)
    right, down = _COLUMNS - np.float32(x), _ROWS - np.float32(y)
    u = (np.cos(tilt) * right + np.sin(tilt) * down) / wide
    v = (np.cos(tilt) * down - np.sin(tilt) * right) / high
    kind = random.integers(3)
    if kind == 0:
        inside: Mask = u**2 + v**2 < 1
    elif kind == 1:
        inside = np.maximum(np.abs(u), np.abs(v)) < 0.85
    else:
        inside = (v > -0.8) & (np.abs(u) < 0.6 * (1 - v))
    return inside


def _texture(colour: Floats, random: np.random.Generator) -> Floats:
    """A colour with stripes, blotches or nothing over it: [3, 96, 96]."""
    kind = random.integers(3)
    if kind == 0:
        pattern = np.zeros((SIDE, SIDE), dtype=np.float32)
    elif kind == 1:
        angle, period = random.uniform(0, np.pi), random.uniform(3, 9)
        along = np.cos(angle) * _COLUMNS + np.sin(angle) * _ROWS
        pattern = np.sin(along * (2 * np.pi / period) + random.uniform(0, 2 * np.pi)).astype(np.float32)
    else:
        blotch = int(random.integers(2, 5))
        few = random.choice(np.array([-1, 1], dtype=np.float32), (-(-SIDE // blotch),) * 2)
        pattern = few.repeat(blotch, 0).repeat(blotch, 1)[:SIDE, :SIDE]
    strength = random.uniform(0.02, 0.1, (3, 1, 1)).astype(np.float32)
    texture: Floats = colour[:, None, None] + strength * pattern
    return texture


def _finish(image: Floats, random: np.random.Generator) -> NDArray[np.uint8]:
    """Uneven light, a lens that blurs over a pixel, and noise: uint8 [3, 96, 96]."""
    slope = random.uniform(-0.15, 0.15, 2)
    light = slope[0] * (_ROWS / SIDE - 0.5) + slope[1] * (_COLUMNS / SIDE - 0.5)
    image = image + light.astype(np.float32)
    for axis in (1, 2):
        padded = np.pad(image, [(0, 0)] + [(1, 1) if axis == side else (0, 0) for side in (1, 2)], mode="edge")
        before, after = (np.take(padded, np.arange(SIDE) + shift, axis) for shift in (0, 2))
        image = 0.5 * image + 0.25 * (before + after)
    image = image + random.uniform(0.01, 0.04) * random.standard_normal(image.shape, dtype=np.float32)
    return np.round(image.clip(0, 1) * 255).astype(np.uint8)
