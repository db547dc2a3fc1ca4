"""Berkeley's BSDS500: 200 pictures to train on, 100 to validate and 200 to test, as published, 4 to 9 annotators each.

P. Arbeláez, M. Maire, C. Fowlkes, J. Malik: Contour Detection and Hierarchical Image Segmentation, TPAMI 2011. The
archive BSR holds BSDS500/data/images/{train,val,test}/*.jpg and BSDS500/data/groundTruth/{train,val,test}/*.mat; in
each .mat the cell array `groundTruth` holds a struct for each annotator, with the map `Boundaries`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from kdsearch.data.decoding import plain_picture
from kdsearch.data.dense.edge_maps import MOST_ANNOTATORS, pack, thin
from kdsearch.data.dense.letterbox import Letterbox
from kdsearch.data.dense.source import OUTSIDE_EDGES, DensePart, DenseSource
from kdsearch.data.randomness import stream
from kdsearch.data.source import existing_root
from kdsearch.errors import BadData
from kdsearch.settings import AugmentationSettings

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from kdsearch.settings import DataSettings

    Mask = NDArray[np.bool_]

TASKS = ("edges",)

SIDE = 256
PARTS = {"train": "train", "validation": "val", "test": "test"}
SUFFIXES = (".jpg", ".jpeg", ".png")
PROBES = 8
_PLACES = ("", "data", "BSDS500/data", "BSR/BSDS500/data")


@dataclass(frozen=True)
class Picture:
    """An image file and the file of its annotators' maps."""

    image: str
    truth: str


@dataclass(frozen=True)
class ReadPictures:
    """Image uint8 [3, H, W] and the bits of its edges, int16 [H, W], letterboxed to one size."""

    pictures: tuple[Picture, ...]
    size: tuple[int, int]

    def __call__(self, row: int) -> tuple[NDArray[np.uint8], NDArray[Any]]:
        from PIL import Image

        picture = self.pictures[row]
        maps = read_boundaries(picture.truth)
        try:
            with Image.open(picture.image) as opened:
                image = plain_picture(opened, 3, picture.image)
        except BadData:
            raise
        except Exception as error:  # PIL's decoders raise many kinds
            raise BadData(f"{picture.image} cannot be read as an image: {error}") from error
        if maps.shape[1:] != (image.height, image.width):
            raise BadData(
                f"{picture.image} is {image.height}×{image.width} pixels (height × width) and the boundaries in "
                f"{picture.truth} are {maps.shape[1]}×{maps.shape[2]}: both must have one size"
            )
        frame = Letterbox((image.height, image.width), self.size)
        truth = np.full(self.size, OUTSIDE_EDGES, dtype=np.int16)
        truth[frame.window] = pack(np.stack([scaled(marks, frame) for marks in maps]))[frame.window]
        return frame.picture(image), truth


def load(settings: DataSettings, task: str) -> DenseSource:
    """The three published parts under `settings.root`, letterboxed to `data.image_size` (256) pixels a side.

    `data.samples` is the number of training samples an epoch: the training pictures again and again (or as many of
    them), each time augmented afresh. Raises BadData for what is missing, InvalidSetting for what has no use here.
    """
    root = existing_root(settings, "the unpacked BSR archive, or its folder BSDS500")
    folder = next((root / place for place in _PLACES if (root / place / "groundTruth").is_dir()), None)
    if folder is None:
        raise BadData(f"{root} holds no BSDS500: there is no folder BSDS500/data/groundTruth in it")
    side = settings.image_size or SIDE
    found = {part: _part(folder, name, (side, side)) for part, name in PARTS.items()}
    train = found["train"]
    if settings.samples is not None:
        order = stream(settings.seed, "bsds500", "samples").permutation(len(train))
        train = train.select(order[np.arange(settings.samples) % len(train)])
    return DenseSource(
        train=train,
        validation=found["validation"],
        test=found["test"],
        classes=("edge",),
        channels=3,
        size=(side, side),
        augmentation=AugmentationSettings(crop=side // 8, flip=True, color_jitter=0.2),
    )


def read_boundaries(path: str) -> Mask:
    """What each annotator marks, bool [A, H, W]. Raises BadData for a file that is damaged or laid out otherwise."""
    from scipy.io import loadmat  # type: ignore[import-untyped]

    try:
        content = loadmat(path, simplify_cells=True)
    except Exception as error:  # a damaged file can make the reader raise nearly anything
        why = " ".join(str(error).split())[:200] or type(error).__name__
        raise BadData(f"{path} is damaged or no MATLAB file of version 7 or older: {why}") from error
    truth = content.get("groundTruth")
    annotators = [truth] if isinstance(truth, Mapping) else list(truth if truth is not None else ())
    if not annotators or not all(isinstance(one, Mapping) and "Boundaries" in one for one in annotators):
        raise BadData(f"{path} holds no boundaries: it must hold a cell array groundTruth of structs with Boundaries")
    maps = [np.asarray(one["Boundaries"]) for one in annotators]
    if maps[0].ndim != 2 or any(one.shape != maps[0].shape for one in maps):
        shapes = ", ".join("×".join(map(str, one.shape)) for one in maps)
        raise BadData(f"{path} holds boundaries of {shapes} pixels: all annotators must mark one picture")
    if len(maps) > MOST_ANNOTATORS:
        raise BadData(f"{path} has {len(maps)} annotators, and up to {MOST_ANNOTATORS} can be told apart")
    boundaries: Mask = np.stack(maps) != 0
    return boundaries


def scaled(marks: Mask, frame: Letterbox) -> Mask:
    """One annotator's map [H, W] in the frame: every line stays a line of one pixel, however small it becomes.

    Where the frame is smaller, each marked pixel sets the one in which its centre comes to lie: nearest neighbours
    would tear lines. Where the frame is larger, they keep them whole. What is thick after either is thinned.
    """
    if frame.scale == 1:
        there = np.zeros(frame.target, dtype=bool)
        there[frame.window] = marks
        return there
    if frame.scale > 1:
        return thin(frame.mask(marks.astype(np.uint8), 0) != 0)
    there = np.zeros(frame.target, dtype=bool)
    there[tuple(frame.pixels(np.argwhere(marks)).T)] = True
    return thin(there)


def _part(folder: Path, name: str, size: tuple[int, int]) -> DensePart:
    images, truths = folder / "images" / name, folder / "groundTruth" / name
    if not images.is_dir():
        raise BadData(f"there is no folder {images}: BSDS500 has images/{name} beside groundTruth/{name}")
    files = sorted(path for path in images.iterdir() if path.suffix.lower() in SUFFIXES)
    if not files:
        raise BadData(f"{images} holds no images ({', '.join(SUFFIXES)})")
    pictures = tuple(Picture(str(file), str(truths / f"{file.stem}.mat")) for file in files)
    for file, picture in zip(files, pictures, strict=True):
        if not (truths / f"{file.stem}.mat").is_file():
            raise BadData(f"the image {file} has no ground truth {picture.truth}")
    some = pictures[:: -(-len(pictures) // PROBES)]
    if not any(read_boundaries(picture.truth).any() for picture in some):
        raise BadData(f"no annotator marks a boundary in {some[0].truth} or in {len(some) - 1} others beside it")
    return DensePart(ReadPictures(pictures, size), np.arange(len(pictures)), np.zeros(len(pictures), dtype=np.int64))
