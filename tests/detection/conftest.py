"""Random truths, networks' answers, and a VOC 2007 tree in its published layout."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

Object = tuple[str, int, int, int, int]

ANNOTATION = """<annotation>
  <folder>VOC2007</folder>
  <filename>{name}.jpg</filename>
  <size><width>{width}</width><height>{height}</height><depth>3</depth></size>
  <segmented>0</segmented>
{objects}</annotation>
"""
OBJECT = """  <object>
    <name>{name}</name><pose>Left</pose><truncated>0</truncated><difficult>{difficult}</difficult>
    <bndbox><xmin>{box[0]}</xmin><ymin>{box[1]}</ymin><xmax>{box[2]}</xmax><ymax>{box[3]}</ymax></bndbox>
  </object>
"""


@pytest.fixture
def random_truth() -> Callable[..., torch.Tensor]:
    """Truths [B, M, 5] of boxes in images of `side` pixels; image i has i mod (M + 1) objects, in the last rows."""

    def make(images: int = 6, rows: int = 4, classes: int = 5, side: int = 64, seed: int = 0) -> torch.Tensor:
        source = torch.Generator().manual_seed(seed)
        corner = torch.rand(images, rows, 2, generator=source) * (side - 20)
        extent = 6 + torch.rand(images, rows, 2, generator=source) * 14
        labels = torch.randint(0, classes, (images, rows, 1), generator=source).float()
        truth = torch.cat([corner, corner + extent, labels], 2)
        for number in range(images):
            truth[number, : rows - number % (rows + 1)] = torch.tensor([0.0, 0, 0, 0, -1])
        return truth

    return make


class VOCTree:
    """A folder with VOCdevkit/VOC2007 that grows image by image."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.folder = root / "VOCdevkit" / "VOC2007"
        for name in ("JPEGImages", "Annotations", "ImageSets/Main"):
            (self.folder / name).mkdir(parents=True)
        self.listed: dict[str, list[str]] = {"trainval": [], "test": []}
        self._write_lists()

    def add(
        self,
        image_set: str,
        objects: Sequence[Object],
        *,
        size: tuple[int, int] = (120, 90),
        difficult: Sequence[int] = (),
        seed: int | None = None,
    ) -> str:
        """One image of `size` (width, height) with objects (class, xmin, ymin, xmax, ymax), counted from 1."""
        number = sum(map(len, self.listed.values()))
        name = f"{number + 1:06d}"
        random = np.random.default_rng(number if seed is None else seed)
        pixels = random.integers(90, 120, (size[1], size[0], 3), dtype=np.uint8)
        written = ""
        for place, (kind, *box) in enumerate(objects):
            xmin, ymin, xmax, ymax = box
            pixels[ymin - 1 : ymax, xmin - 1 : xmax] = (250, 20, 20) if kind == "cat" else (20, 20, 250)
            written += OBJECT.format(name=kind, difficult=int(place in difficult), box=box)
        Image.fromarray(pixels).save(self.picture(name), quality=95)
        self.annotation(name).write_text(ANNOTATION.format(name=name, width=size[0], height=size[1], objects=written))
        self.listed[image_set].append(name)
        self._write_lists()
        return name

    def picture(self, name: str) -> Path:
        return self.folder / "JPEGImages" / f"{name}.jpg"

    def annotation(self, name: str) -> Path:
        return self.folder / "Annotations" / f"{name}.xml"

    def _write_lists(self) -> None:
        for image_set, names in self.listed.items():
            (self.folder / "ImageSets" / "Main" / f"{image_set}.txt").write_text("".join(f"{name}\n" for name in names))


@pytest.fixture
def voc(tmp_path: Path) -> VOCTree:
    """An empty tree."""
    return VOCTree(tmp_path / "voc")
