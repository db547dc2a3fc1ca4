"""What a set for super-resolution hands over: lists of pictures of any size, none of them read yet."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

from kdsearch.data.decoding import picture_array
from kdsearch.errors import BadData, UserError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray
    from PIL import Image


class Pictures(Protocol):
    """Random access to pictures in colour. A BadData of theirs names the picture."""

    def __len__(self) -> int: ...

    def name(self, row: int) -> str:
        """The picture as an error names it."""
        ...

    def size(self, row: int) -> tuple[int, int]:
        """Height and width, without decoding the picture."""
        ...

    def read(self, row: int) -> NDArray[np.uint8]:
        """The picture as uint8 [3, H, W]."""
        ...


@dataclass(frozen=True)
class FilePictures:
    """Image files under a folder, upright.

    Grey ones get three equal channels, what is transparent lies on white, 16 bits become 8.
    """

    folder: str
    paths: tuple[str, ...]
    """Relative to the folder."""

    def __len__(self) -> int:
        return len(self.paths)

    def name(self, row: int) -> str:
        return os.path.join(self.folder, self.paths[row])

    def size(self, row: int) -> tuple[int, int]:
        with _opened(self.name(row)) as picture:
            return _upright_size(picture)

    def read(self, row: int) -> NDArray[np.uint8]:
        name = self.name(row)
        with _opened(name) as picture:
            size = _upright_size(picture)
            picture.load()
            if _upright_size(picture) != size:
                raise BadData(f"{name} says after its pixels that it is to be turned: save it upright")
            return picture_array(picture, (3, *size), name)


@contextmanager
def _opened(name: str) -> Iterator[Image.Image]:
    """The picture in a file, whatever goes wrong with it being a BadData."""
    from PIL import Image

    try:
        with Image.open(name) as picture:
            yield picture
    except UserError:
        raise
    except Exception as error:  # PIL's decoders raise many kinds
        raise BadData(f"{name} cannot be read as an image: {error}") from error


def _upright_size(picture: Image.Image) -> tuple[int, int]:
    """Height and width as the EXIF orientation says, as far as the file was read."""
    # Asked for the EXIF data of a PNG that has none in front, PIL decodes it all.
    known = picture.format != "PNG" or "exif" in picture.info
    turned = known and picture.getexif().get(0x0112, 1) >= 5  # the sides are exchanged
    return (picture.width, picture.height) if turned else (picture.height, picture.width)


@dataclass(frozen=True)
class ArrayPictures:
    """Pictures in memory, uint8 [3, H, W] each. They must not be written to."""

    arrays: tuple[NDArray[np.uint8], ...]
    names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.arrays)

    def name(self, row: int) -> str:
        return self.names[row]

    def size(self, row: int) -> tuple[int, int]:
        height, width = self.arrays[row].shape[1:]
        return height, width

    def read(self, row: int) -> NDArray[np.uint8]:
        return self.arrays[row]


@dataclass(frozen=True)
class PicturePart:
    """Some of the pictures of a set."""

    pictures: Pictures
    rows: tuple[int, ...]

    @classmethod
    def of_files(cls, folder: Path, paths: Sequence[str]) -> PicturePart:
        """Image files under a folder."""
        return cls(FilePictures(str(folder), tuple(paths)), tuple(range(len(paths))))

    def __len__(self) -> int:
        return len(self.rows)

    def name(self, place: int) -> str:
        return self.pictures.name(self.rows[place])

    def size(self, place: int) -> tuple[int, int]:
        return self.pictures.size(self.rows[place])

    def read(self, place: int) -> NDArray[np.uint8]:
        return self.pictures.read(self.rows[place])

    def select(self, places: NDArray[np.int64]) -> PicturePart:
        return replace(self, rows=tuple(self.rows[int(place)] for place in places))

    def held(self) -> PicturePart:
        """The same pictures in memory."""
        places = range(len(self))
        with ThreadPoolExecutor() as pool:
            arrays = tuple(pool.map(self.read, places))
        return PicturePart(ArrayPictures(arrays, tuple(map(self.name, places))), tuple(places))


@dataclass(frozen=True)
class PictureSource:
    """A set of pictures; parts at None are cut from `train`. The numbers are what the set recommends."""

    train: PicturePart
    validation: PicturePart | None = None
    test: PicturePart | None = None
    samples: int = 1000
    """Patches an epoch, spread evenly over the training pictures."""
    patch_size: int = 160
    """Side in pixels of the high-resolution patches; the next smaller multiple of the scale is taken."""
    blur: float = 0.0
    """σ in pixels of the Gaussian blur before down-sampling."""
