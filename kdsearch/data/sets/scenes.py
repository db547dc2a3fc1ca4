"""Scenes drawn by ourselves, 48×48 in colour, with the class of every pixel; any number of them from a seed.

Two to four figures of five classes lie over each other, over strokes and a shaded grey ground. Each class has a hue of
its own, but so wide a range of it that many a figure could be of a neighbouring class by its colour and is told by its
outline; strokes have all hues. Pixels that an outline cuts do not count (255), as in Pascal VOC.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from kdsearch.data.dense.own import dominant_of_masks
from kdsearch.data.dense.source import OUTSIDE_MASK, DensePart, DenseSource
from kdsearch.data.figures import covers
from kdsearch.data.randomness import stream
from kdsearch.data.source import refuse_unused
from kdsearch.settings import AugmentationSettings

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from kdsearch.settings import DataSettings

    Floats = NDArray[np.float32]

TASKS = ("segmentation",)
SIDE = 48
WINDOW = 40
"""Side of the square around its centre within which a figure is drawn."""
FIGURES = 4
STROKES = 5
TRAIN, VALIDATION, TEST = 300, 150, 150
FIGURE_NAMES = ("disc", "ring", "square", "triangle", "cross")
CLASSES = ("background", *FIGURE_NAMES)


def load(settings: DataSettings, task: str) -> DenseSource:
    """`settings.samples` (300) training scenes, 150 validation and 150 test scenes that do not depend on it."""
    refuse_unused(settings, "root", "image_size")
    return DenseSource(
        train=draw(settings.samples or TRAIN, stream(settings.seed, "scenes", "train")),
        validation=draw(VALIDATION, stream(settings.seed, "scenes", "validation")),
        test=draw(TEST, stream(settings.seed, "scenes", "test")),
        classes=CLASSES,
        channels=3,
        size=(SIDE, SIDE),
        augmentation=AugmentationSettings(flip=True),
    )


def draw(samples: int, random: np.random.Generator) -> DensePart:
    """So many scenes, each with 2 to 4 figures of classes drawn uniformly."""
    images = _ground(samples, random)
    masks = np.zeros((samples, SIDE, SIDE), dtype=np.uint8)
    figures = random.integers(2, FIGURES + 1, samples)
    for place in range(FIGURES):
        labels = random.integers(0, len(FIGURE_NAMES), samples)
        cover, corner = _cover(labels, random)
        colours = _colours((labels + random.uniform(-0.7, 0.7, samples)) / len(FIGURE_NAMES), random)
        for scene in np.flatnonzero(place < figures):
            _paste(images[scene], masks[scene], cover[scene], corner[scene], colours[scene], int(labels[scene]) + 1)
    strength = random.uniform(0.02, 0.1, (samples, 1, 1, 1)).astype(np.float32)
    images += strength * random.standard_normal(images.shape, dtype=np.float32)
    pixels = np.round(images.clip(0, 1) * 255).astype(np.uint8)
    return DensePart.of_arrays(pixels, masks, dominant_of_masks(masks))


def _cover(labels: NDArray[np.int64], random: np.random.Generator) -> tuple[Floats, NDArray[np.int64]]:
    """A figure for each scene: the share of each pixel of its window that it covers [N, 40, 40], and where in the scene
    the window begins [N, 2] (row, column; also outside of it)."""
    count = len(labels)
    half = random.uniform(8, 14, count)
    stretch = random.uniform(0.8, 1.25, count)
    tilt = np.deg2rad(random.uniform(-40, 40, count))
    corner = random.integers(5, SIDE - 4, (count, 2)) - WINDOW // 2
    middle = np.zeros((2, count))
    return covers(FIGURE_NAMES, labels, WINDOW, half=half, stretch=stretch, tilt=tilt, centre=middle), corner


def _paste(
    image: Floats, mask: NDArray[np.uint8], cover: Floats, corner: NDArray[np.int64], colour: Floats, label: int
) -> None:
    """Lay a figure over one scene, in place: what it covers whole has its label, what it covers in part has none."""
    first = np.maximum(corner, 0)
    last = np.minimum(corner + WINDOW, SIDE)
    here = tuple(slice(low, high) for low, high in zip(first, last, strict=True))
    there = tuple(slice(low, high) for low, high in zip(first - corner, last - corner, strict=True))
    part = cover[there]
    image[:, *here] += part * (colour[:, None, None] - image[:, *here])
    mask[here] = np.where(part == 1, label, np.where(part > 0, OUTSIDE_MASK, mask[here]))


def _ground(count: int, random: np.random.Generator) -> Floats:
    """A shaded, nearly grey ground with thin strokes of any hue, float [count, 3, 48, 48]."""
    axis = np.linspace(-1, 1, SIDE, dtype=np.float32)
    grey, right, down = random.uniform((0.3, -0.2, -0.2), (0.7, 0.2, 0.2), (count, 3)).T[..., None, None, None]
    tint = random.uniform(-0.06, 0.06, (count, 3, 1, 1))
    image: Floats = (grey + tint + right * axis + down * axis[:, None]).astype(np.float32)
    for _ in range(STROKES):
        x, y = random.uniform(-1, 1, (2, count, 1, 1)).astype(np.float32)
        tilt = random.uniform(0, np.pi, (count, 1, 1)).astype(np.float32)
        long, thin = random.uniform((0.05, 0.02), (0.5, 0.07), (count, 2)).astype(np.float32).T[..., None, None]
        along = np.cos(tilt) * (axis - x) + np.sin(tilt) * (axis[:, None] - y)
        across = np.cos(tilt) * (axis[:, None] - y) - np.sin(tilt) * (axis - x)
        stroke = (np.abs(along) < long) & (np.abs(across) < thin)
        image += stroke[:, None] * (_colours(random.random(count), random)[:, :, None, None] - image)
    return image


def _colours(hues: NDArray[np.float64], random: np.random.Generator) -> Floats:
    """Colours [N, 3] of hues [N] (a turn is 1) and any depth."""
    wheel = np.abs((hues[:, None] + np.array([0, 2 / 3, 1 / 3])) % 1 * 6 - 3) - 1  # red, green and blue around it
    depth, value = random.uniform((0.35, 0.4), (1, 1), (len(hues), 2)).T[..., None]
    colours: Floats = (value * (1 - depth + depth * wheel.clip(0, 1))).astype(np.float32)
    return colours
