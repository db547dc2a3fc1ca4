"""Pictures with a mask each, read from files: the class of every pixel, or which pixels are edges."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from kdsearch.data.decoding import plain_picture
from kdsearch.data.dense.edge_maps import pack
from kdsearch.data.dense.letterbox import Letterbox
from kdsearch.data.dense.own import dominant_of_masks
from kdsearch.data.dense.source import OUTSIDE_EDGES, OUTSIDE_MASK, DensePart
from kdsearch.errors import BadData

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from PIL import Image

CHANNELS = 3
LARGEST_SIDE = 256
SUFFIX = ".png"


@dataclass(frozen=True)
class Pair:
    """An image file and the file of its mask."""

    image: str
    mask: str


class Look(NamedTuple):
    """What can be said of a pair without its picture being decoded."""

    size: tuple[int, int]
    """Height and width."""
    highest: int
    """The highest class of the mask, 255 aside."""
    dominant: int
    """Its most frequent class but 0, the background; 0 where it has no other."""


@dataclass(frozen=True)
class ReadClasses:
    """Image uint8 [3, H, W] and the class of every pixel, uint8 [H, W], letterboxed; 255 does not count."""

    pairs: tuple[Pair, ...]
    size: tuple[int, int]

    def __call__(self, row: int) -> tuple[NDArray[np.uint8], NDArray[Any]]:
        pair = self.pairs[row]
        mask = read_mask(pair.mask)
        frame = Letterbox(_size(mask), self.size)
        return frame.picture(_read_image(pair, _size(mask))), frame.mask(mask, OUTSIDE_MASK)


@dataclass(frozen=True)
class ReadEdges:
    """Image uint8 [3, H, W] and its edges as bits int16 [H, W], of one annotator, letterboxed.

    An edge stays an edge however small it becomes: each of its pixels marks the one in which its centre comes to lie.
    """

    pairs: tuple[Pair, ...]
    size: tuple[int, int]

    def __call__(self, row: int) -> tuple[NDArray[np.uint8], NDArray[Any]]:
        pair = self.pairs[row]
        mask = read_mask(pair.mask)
        frame = Letterbox(_size(mask), self.size)
        marked = np.zeros(self.size, dtype=bool)
        marked[tuple(frame.pixels(np.argwhere(mask)).T)] = True
        truth = np.full(self.size, OUTSIDE_EDGES, dtype=np.int16)
        truth[frame.window] = pack(marked[None])[frame.window]
        return frame.picture(_read_image(pair, _size(mask))), truth


def classes_part(pairs: Sequence[Pair], looks: Sequence[Look], size: tuple[int, int]) -> DensePart:
    """Pairs for segmentation."""
    labels = np.array([look.dominant for look in looks], dtype=np.int64)
    return DensePart(ReadClasses(tuple(pairs), size), np.arange(len(labels)), labels)


def edges_part(pairs: Sequence[Pair], size: tuple[int, int]) -> DensePart:
    """Pairs for edges."""
    return DensePart(ReadEdges(tuple(pairs), size), np.arange(len(pairs)), np.zeros(len(pairs), dtype=np.int64))


def look_at_classes(pairs: Sequence[Pair]) -> list[Look]:
    """Look at every mask and the size of every image. Raises BadData naming the first that cannot be used."""
    return _each(pairs, _look_at_classes)


def look_at_edges(pairs: Sequence[Pair]) -> list[Look]:
    """The same for masks of edges, white (or any other value than 0) on black."""
    looks = _each(pairs, _look_at_edges)
    if not any(look.highest for look in looks):
        raise BadData(f"{pairs[0].mask} and the other {len(pairs) - 1} masks beside it mark no edge: edges are not 0")
    return looks


def common_size(looks: Sequence[Look], image_size: int | None) -> tuple[int, int]:
    """`image_size` squared where it is given; the images' own size where all share it and it is at most 256; else
    256 squared."""
    sizes = {look.size for look in looks}
    if image_size is None and len(sizes) == 1 and max(looks[0].size) <= LARGEST_SIDE:
        return looks[0].size
    side = image_size or LARGEST_SIDE
    return side, side


def read_mask(path: str) -> NDArray[np.uint8]:
    """The values of an 8-bit grey or palette picture (or one of 1 bit), as they are: uint8 [H, W].

    Raises BadData for anything else, naming the file.
    """
    from PIL import Image

    try:
        with Image.open(path) as picture:
            mode = picture.mode
            values = np.asarray(picture) if mode in ("1", "L", "P") else None
    except Exception as error:  # PIL's decoders raise many kinds
        raise BadData(f"the mask {path} cannot be read: {error}") from error
    if values is None:
        kind = "has more than 8 bits" if mode.startswith(("I", "F")) else "is in colour"
        raise BadData(f"the mask {path} {kind} (mode {mode}): save values of 0 to 255 as 8-bit grey or palette PNG")
    return values.astype(np.uint8)


def _look_at_classes(pair: Pair) -> Look:
    mask = read_mask(pair.mask)
    _check_size(pair, _image_size(pair.image), _size(mask))
    counted = mask[mask != OUTSIDE_MASK]
    if not counted.size:
        raise BadData(f"the mask {pair.mask} is 255 everywhere, so none of its pixels counts: take the pair away")
    return Look(_size(mask), int(counted.max()), int(dominant_of_masks(mask[None])[0]))


def _look_at_edges(pair: Pair) -> Look:
    mask = read_mask(pair.mask)
    _check_size(pair, _image_size(pair.image), _size(mask))
    if 2 * np.count_nonzero(mask) > mask.size:
        raise BadData(f"the mask {pair.mask} has more edge than ground: edges are white, or any value but 0, on black")
    return Look(_size(mask), int(mask.any()), 0)


def _each(pairs: Sequence[Pair], look: Any) -> list[Look]:
    pool = ThreadPoolExecutor()
    try:
        return list(pool.map(look, pairs))
    finally:
        pool.shutdown(cancel_futures=True)  # after one that is wrong the others are not waited for


def _size(mask: NDArray[np.uint8]) -> tuple[int, int]:
    height, width = mask.shape
    return height, width


def _image_size(path: str) -> tuple[int, int]:
    from PIL import Image

    try:
        with Image.open(path) as picture:
            turned = picture.getexif().get(0x0112, 1) >= 5  # EXIF orientation: the sides are exchanged
            width, height = picture.size
    except Exception as error:  # PIL's decoders raise many kinds
        raise BadData(f"{path} cannot be read as an image: {error}") from error
    return (width, height) if turned else (height, width)


def _read_image(pair: Pair, size: tuple[int, int]) -> Image.Image:
    """The picture of a pair, whose mask has `size`: it may have changed since the two were compared."""
    from PIL import Image

    try:
        with Image.open(pair.image) as picture:
            plain = plain_picture(picture, CHANNELS, pair.image)
    except BadData:
        raise
    except Exception as error:  # PIL's decoders raise many kinds
        raise BadData(f"{pair.image} cannot be read as an image: {error}") from error
    _check_size(pair, (plain.height, plain.width), size)
    return plain


def _check_size(pair: Pair, image: tuple[int, int], mask: tuple[int, int]) -> None:
    if image != mask:
        raise BadData(
            f"{pair.image} is {image[0]}×{image[1]} pixels (height × width) and its mask {pair.mask} "
            f"{mask[0]}×{mask[1]}: both must have one size"
        )
