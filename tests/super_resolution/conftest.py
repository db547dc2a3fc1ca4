"""Small pictures with structure: what super-resolution is tested on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from kdsearch.data.base import DataSet
from kdsearch.data.restoration.loading import restoration_dataset
from kdsearch.settings import DataSettings

Picture = NDArray[np.uint8]


def picture(height: int, width: int, seed: int = 0) -> Picture:
    """Waves of several colours and some noise, uint8 [3, height, width]: no two places look alike."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    waves = [np.sin(x * random.uniform(0.1, 0.6) + y * random.uniform(0.1, 0.6) + channel) for channel in range(3)]
    noisy = 127 + 80 * np.stack(waves) + 15 * random.standard_normal((3, height, width))
    return noisy.clip(0, 255).astype(np.uint8)


def save(array: Picture, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array.transpose(1, 2, 0)).save(path)
    return path


@pytest.fixture
def small_set() -> Callable[..., DataSet]:
    """A set of three training pictures and one each to validate and to test on; settings as keywords."""

    def make(**settings: object) -> DataSet:
        sizes = {"train": [(48, 56), (40, 64), (52, 44)], "validation": [(66, 70)], "test": [(64, 64)]}
        found = {
            name: [picture(*size, seed=place + 10 * len(name)) for place, size in enumerate(part)]
            for name, part in sizes.items()
        }
        given = {"scale": 2, "patch_size": 16, "samples": 24, **settings}
        return restoration_dataset(found, DataSettings(name="small", **given))

    return make
