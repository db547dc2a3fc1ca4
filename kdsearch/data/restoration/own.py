"""What a person's function may return for super-resolution, brought to a PictureSource.

A dict {"train": pictures, "validation" or "val": …, "test": …} of which only train is needed, a tuple (train,
validation, test), or one list of pictures, which is then divided. A picture is an array or tensor (uint8, or floating
in [0, 1]; [C, H, W], [H, W, C] or [H, W]) or a PIL picture; pictures may differ in size.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from kdsearch.data.decoding import image_array, picture_array
from kdsearch.data.restoration.source import ArrayPictures, PicturePart, PictureSource
from kdsearch.errors import BadData, UnknownName

if TYPE_CHECKING:
    from numpy.typing import NDArray

_KEYS = {"train": "train", "validation": "validation", "val": "validation", "test": "test"}


def as_picture_source(value: Any, name: str) -> PictureSource:
    """Bring what a set's function returned to a PictureSource. Raises BadData or UnknownName."""
    if isinstance(value, PictureSource):
        return value
    if isinstance(value, tuple) and len(value) == 3:
        value = dict(zip(("train", "validation", "test"), value, strict=True))
    elif isinstance(value, list):
        value = {"train": value}
    if not isinstance(value, dict) or value.get("train") is None:
        raise BadData(
            f"{name!r} returned {type(value).__name__}: it must return a list of pictures, a tuple (train, validation, "
            "test) of such lists, or a dict of them with 'train'"
        )
    parts: dict[str, PicturePart] = {}
    for key, pictures in value.items():
        if key not in _KEYS:
            raise UnknownName(f"split of {name!r}", str(key), _KEYS)
        if pictures is not None:
            parts[_KEYS[key]] = _part(pictures, f"{key} of {name!r}")
    return PictureSource(parts["train"], parts.get("validation"), parts.get("test"))


def _part(pictures: Any, name: str) -> PicturePart:
    arrays = tuple(_colour(picture, f"picture {place} of {name}") for place, picture in enumerate(pictures))
    names = tuple(f"picture {place} of {name}" for place in range(len(arrays)))
    return PicturePart(ArrayPictures(arrays, names), tuple(range(len(arrays))))


def _colour(picture: Any, name: str) -> NDArray[np.uint8]:
    """A picture as uint8 [3, H, W]; a grey one has three equal channels."""
    if hasattr(picture, "getbands"):
        return picture_array(picture, (3, picture.height, picture.width), name)
    array = image_array(picture, name)
    if array.shape[0] not in (1, 3):
        raise BadData(f"{name} has {array.shape[0]} channels: pictures are grey or in colour")
    return np.repeat(array, 3, axis=0) if array.shape[0] == 1 else array
