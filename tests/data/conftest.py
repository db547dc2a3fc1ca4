"""Pictures and small sets that the tests of the data write and load."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from kdsearch.data.base import DataSet
from kdsearch.data.splits import MemorySplit
from kdsearch.settings import AugmentationSettings

WritePicture = Callable[..., Path]
MakeData = Callable[..., DataSet]


@pytest.fixture(scope="session")
def write_picture() -> WritePicture:
    """`write_picture(path, size=(W, H), seed=0)`: a picture of noise; the format follows the suffix."""

    def write(path: Path, size: tuple[int, int] = (12, 12), seed: int = 0, mode: str = "RGB") -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        channels = len(Image.new(mode, (1, 1)).getbands())
        values = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], channels), dtype=np.uint8)
        Image.fromarray(values.squeeze(), mode if channels == 1 else None).save(path)
        return path

    return write


@pytest.fixture
def tree(tmp_path: Path, write_picture: WritePicture) -> Path:
    """root/{ant,bee,cat}/0..9.png, 12×12, every picture another."""
    root = tmp_path / "tree"
    for label, name in enumerate(("ant", "bee", "cat")):
        for index in range(10):
            write_picture(root / name / f"{index}.png", seed=100 * label + index)
    return root


@pytest.fixture(scope="session")
def make_data() -> MakeData:
    """`make_data(images, targets)`: a data set whose three splits are these images, not shifted by normalisation."""

    def make(images: Any, targets: Any, **changes: Any) -> DataSet:
        pixels = torch.as_tensor(images, dtype=torch.uint8)
        labels = torch.as_tensor(targets, dtype=torch.int64)
        split = MemorySplit(pixels, labels)
        values: dict[str, Any] = {
            "name": "made",
            "task": "classification",
            "train": split,
            "validation": split,
            "test": split,
            "classes": tuple(str(label) for label in range(int(labels.max()) + 1)),
            "channels": pixels.shape[1],
            "size": (pixels.shape[2], pixels.shape[3]),
            "mean": (0.0,) * pixels.shape[1],
            "std": (1.0,) * pixels.shape[1],
            "augmentation": AugmentationSettings(),
        }
        return DataSet(**{**values, **changes})

    return make
