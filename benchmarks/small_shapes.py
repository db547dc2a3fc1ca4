"""The ten shapes, small and in the middle: a set that a network learns from few images.

500 of the set `shapes` teach a small residual network next to nothing in 27 epochs (0.10 to 0.12 on validation with
random settings, of which no search could find the better), and more of them take too long to record.
"""

from __future__ import annotations

import numpy as np

from kdsearch.data.figures import INSIDE, covers
from kdsearch.data.randomness import stream
from kdsearch.data.source import ArrayPart, Source
from kdsearch.settings import AugmentationSettings, DataSettings

SIDE = 12
CLASSES = tuple(INSIDE)
SAMPLES, VALIDATION, TEST = 300, 1000, 360


def small_shapes(settings: DataSettings) -> Source:
    """300 training images (or `settings.samples`), 1,000 to validate, 360 to test: 12×12 pixels, in colour."""
    return Source(
        train=_draw(settings.samples or SAMPLES, stream(settings.seed, "small shapes", "train")),
        validation=_draw(VALIDATION, stream(settings.seed, "small shapes", "validation")),
        test=_draw(TEST, stream(settings.seed, "small shapes", "test")),
        classes=CLASSES,
        augmentation=AugmentationSettings(flip=True),
    )


def _draw(samples: int, random: np.random.Generator) -> ArrayPart:
    """Shapes of one colour on a ground of another, with noise."""
    targets = random.permutation(np.arange(samples, dtype=np.int64) % len(CLASSES))
    cover = covers(
        CLASSES,
        targets,
        SIDE,
        half=random.uniform(3.5, 5.5, samples),
        stretch=random.uniform(0.85, 1.18, samples),
        tilt=np.deg2rad(random.uniform(-25, 25, samples)),
        centre=random.uniform(-1, 1, (2, samples)),
    )
    ground, figure = random.uniform(0, 0.4, (samples, 3, 1, 1)), random.uniform(0.6, 1, (samples, 3, 1, 1))
    image = ground + cover[:, None] * (figure - ground) + random.normal(0, 0.15, (samples, 3, SIDE, SIDE))
    return ArrayPart(np.round(image.clip(0, 1) * 255).astype(np.uint8), targets)
