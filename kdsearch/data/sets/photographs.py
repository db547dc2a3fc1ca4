"""Photographs that are part of scikit-image: a small set for super-resolution that is there without a download.

Training, validation and test are different photographs, some of them grey. They are blurred before down-sampling, as
in the report on student distillation, which gives no strength: σ = 1 is ours.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING

from kdsearch.data.restoration.source import PicturePart, PictureSource
from kdsearch.data.source import refuse_unused
from kdsearch.errors import BadData

if TYPE_CHECKING:
    from kdsearch.settings import DataSettings

TASKS = ("super_resolution",)

TRAIN = (
    "astronaut.png",
    "brick.png",
    "coins.png",
    "grass.png",
    "gravel.png",
    "hubble_deep_field.jpg",
    "ihc.png",
    "motorcycle_left.png",
)
VALIDATION = ("camera.png", "chelsea.png")
TEST = ("coffee.png", "rocket.jpg")


def load(settings: DataSettings, task: str) -> PictureSource:
    """Eight photographs to train on, two to validate and two to test on. Raises BadData where a file is missing."""
    refuse_unused(settings, "root")
    folder = _folder()
    for name in (*TRAIN, *VALIDATION, *TEST):
        if not (folder / name).is_file():
            raise BadData(f"scikit-image has no {name} in {folder}: install scikit-image 0.26, or use data: images")
    train, validation, test = (PicturePart.of_files(folder, names) for names in (TRAIN, VALIDATION, TEST))
    return PictureSource(train, validation, test, samples=256, patch_size=64, blur=1.0)


def _folder() -> Path:
    """Where scikit-image keeps its photographs; importing it is not needed to know."""
    spec = importlib.util.find_spec("skimage")
    if spec is None or spec.origin is None:
        raise BadData("the photographs are part of scikit-image, which is not installed: pip install scikit-image")
    return Path(spec.origin).parent / "data"
