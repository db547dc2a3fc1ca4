"""Images that are read one by one: from files, or from a map-style data set such as torchvision's."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np

from kdsearch.data.decoding import GREY_MODES, as_numpy, image_array, picture_array
from kdsearch.errors import BadData, InvalidSetting, UserError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from kdsearch.data.base import Split

LARGEST_SIDE = 224
PROBES = 64


class Look(NamedTuple):
    """What can be said of a picture before it is brought to the set's shape."""

    channels: int
    height: int
    width: int
    resizable: bool


class Pictures(Protocol):
    """Random access to images. A BadData of theirs names the image."""

    @property
    def threads(self) -> bool:
        """Whether several threads may read at once."""
        ...

    def __len__(self) -> int: ...

    def look(self, index: int) -> Look: ...

    def read(self, index: int, shape: tuple[int, int, int]) -> NDArray[np.uint8]:
        """Image `index` as uint8 of `shape` [C, H, W]."""
        ...


@dataclass(frozen=True)
class ImageFiles:
    """Image files under a folder; always in colour."""

    folder: str
    paths: tuple[str, ...]
    """Relative to the folder."""
    threads: bool = True

    def __len__(self) -> int:
        return len(self.paths)

    def look(self, index: int) -> Look:
        from PIL import Image

        try:
            with Image.open(self._path(index)) as picture:
                turned = picture.getexif().get(0x0112, 1) >= 5  # EXIF orientation: the sides are exchanged
                width, height = picture.size
        except Exception as error:  # PIL's decoders raise many kinds
            raise self._unreadable(index, error) from error
        return Look(3, width if turned else height, height if turned else width, resizable=True)

    def read(self, index: int, shape: tuple[int, int, int]) -> NDArray[np.uint8]:
        from PIL import Image

        try:
            with Image.open(self._path(index)) as picture:
                return picture_array(picture, shape, self._path(index))
        except UserError:
            raise
        except Exception as error:  # PIL's decoders raise many kinds
            raise self._unreadable(index, error) from error

    def _path(self, index: int) -> str:
        return os.path.join(self.folder, self.paths[index])

    def _unreadable(self, index: int, error: Exception) -> BadData:
        return BadData(f"{self._path(index)} cannot be read as an image: {error}")


@dataclass(frozen=True)
class DatasetItems:
    """The images of a map-style data set, whose items are (image, label)."""

    dataset: Any
    name: str
    threads: bool = False

    def __len__(self) -> int:
        return len(self.dataset)

    def look(self, index: int) -> Look:
        image, _ = self._item(index)
        if hasattr(image, "getbands"):
            return Look(1 if image.mode in GREY_MODES else 3, image.height, image.width, resizable=True)
        channels, height, width = image_array(image, self._name(index)).shape
        return Look(channels, height, width, resizable=False)

    def read(self, index: int, shape: tuple[int, int, int]) -> NDArray[np.uint8]:
        image, _ = self._item(index)
        if hasattr(image, "getbands"):
            return picture_array(image, shape, self._name(index))
        array = image_array(image, self._name(index))
        if array.shape != shape:
            raise BadData(
                f"{self._name(index)} is {list(array.shape)}, others are {list(shape)}: all images must have one size "
                "and number of channels"
            )
        return array

    def _name(self, index: int) -> str:
        return f"image {index} of {self.name}"

    def label(self, index: int) -> int | None:
        """The label of an item where it is one integer, else None."""
        return _integer(self._item(index)[1])

    def _item(self, index: int) -> tuple[Any, Any]:
        try:
            image, label = self.dataset[index]
            return image, label
        except UserError:
            raise
        except Exception as error:  # whatever the data set raises
            raise BadData(f"{self._name(index)} cannot be read: {type(error).__name__}: {error}") from error


@dataclass(frozen=True)
class PicturePart:
    """Labelled pictures that are brought to one shape when they are read."""

    pictures: Pictures
    rows: NDArray[np.int64]
    """Which of the pictures, [N]."""
    targets: NDArray[np.int64]
    shape: tuple[int, int, int]

    @property
    def streamable(self) -> bool:
        return True

    def select(self, indices: NDArray[np.int64]) -> PicturePart:
        return replace(self, rows=self.rows[indices], targets=self.targets[indices])

    def relabel(self, targets: NDArray[np.int64]) -> PicturePart:
        return replace(self, targets=targets)

    def split(self, held: bool, workers: int) -> Split:
        from kdsearch.data.splits import MemorySplit, StreamedSplit, read_all

        if held:
            return MemorySplit.of_arrays(read_all(self.pictures, self.rows, self.shape), self.targets)
        return StreamedSplit(self.pictures, self.rows, self.targets, self.shape, workers)


def common_shape(pictures: Pictures, image_size: int | None) -> tuple[int, int, int]:
    """The shape [C, H, W] to which these pictures are brought, told from 64 of them.

    `image_size` squared where it is given. Else their own size where all have the same and no side above 224; else a
    square of the median shorter side, at most 224. Images that are arrays keep their size.
    """
    probes = np.unique(np.linspace(0, len(pictures) - 1, min(PROBES, len(pictures))).astype(int))
    looks = [pictures.look(int(index)) for index in probes]
    channels = max(look.channels for look in looks)
    sizes = {(look.height, look.width) for look in looks}
    first = looks[0]
    if not first.resizable:
        if image_size is not None and sizes != {(image_size, image_size)}:
            raise InvalidSetting(
                "data.image_size", image_size, f"the images are arrays of {first.height}×{first.width}"
            )
        return channels, first.height, first.width
    if image_size is not None:
        return channels, image_size, image_size
    if len(sizes) == 1 and max(first.height, first.width) <= LARGEST_SIDE:
        return channels, first.height, first.width
    side = min(LARGEST_SIDE, int(np.median([min(look.height, look.width) for look in looks])))
    return channels, side, side


def picture_part(pictures: Pictures, targets: NDArray[np.int64], shape: tuple[int, int, int]) -> PicturePart:
    """All of these pictures with their labels."""
    return PicturePart(pictures, np.arange(len(targets)), targets, shape)


def file_part(folder: Path, paths: Sequence[str], labels: Sequence[int], shape: tuple[int, int, int]) -> PicturePart:
    """Image files under a folder with their labels."""
    return picture_part(ImageFiles(str(folder), tuple(paths)), np.asarray(labels, dtype=np.int64), shape)


def dataset_labels(items: DatasetItems) -> NDArray[np.int64] | None:
    """The labels of a map-style data set: from where such sets keep them, else by reading every item.

    None where they are not one integer per image. What an attribute says is compared with some items.
    """
    probes = np.unique(np.linspace(0, len(items) - 1, min(8, len(items))).astype(int))
    expected = [items.label(int(index)) for index in probes]
    if None in expected:
        return None
    for kept in _kept_labels(items.dataset):
        if len(kept) == len(items) and [_integer(kept[index]) for index in probes] == expected:
            return _all_integers([_integer(label) for label in kept])
    return _all_integers([items.label(index) for index in range(len(items))])


def _all_integers(labels: list[int | None]) -> NDArray[np.int64] | None:
    return None if None in labels else np.array(labels, dtype=np.int64)


def _kept_labels(dataset: Any) -> list[Any]:
    candidates = [getattr(dataset, name, None) for name in ("targets", "labels", "_labels", "y")]
    for name in ("samples", "_samples"):
        pairs = getattr(dataset, name, None)
        if isinstance(pairs, list) and all(isinstance(pair, tuple) and len(pair) == 2 for pair in pairs):
            candidates.append([label for _, label in pairs])
    tensors = getattr(dataset, "tensors", None)
    if isinstance(tensors, tuple) and len(tensors) == 2:
        candidates.append(tensors[1])
    return [as_numpy(kept) for kept in candidates if hasattr(kept, "__len__")]


def _integer(label: Any) -> int | None:
    """The label where it is one integer, else None."""
    array = as_numpy(label)
    return int(array) if array.ndim == 0 and np.issubdtype(array.dtype, np.integer) else None
