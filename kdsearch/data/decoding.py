"""Pictures and arrays of any kind as uint8 [C, H, W], without silent clipping."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from kdsearch.errors import BadData

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from PIL import Image

GREY_MODES = ("1", "L", "I;16", "I;16L", "I;16B", "I;16N", "I")


def picture_array(picture: Image.Image, shape: tuple[int, int, int], name: str) -> NDArray[np.uint8]:
    """A picture as uint8 of `shape` [C, H, W]: upright, in colour or grey, its middle cut out after resizing.

    Where the size differs, the picture is scaled until it just covers H × W (bilinear, with antialiasing). Raises
    BadData for kinds of pictures whose range of values is not known.
    """
    from PIL import Image, ImageOps

    channels, height, width = shape
    picture = plain_picture(picture, channels, name)
    if picture.size != (width, height):
        picture = ImageOps.fit(picture, (width, height), Image.Resampling.BILINEAR)
    array = np.asarray(picture, dtype=np.uint8).reshape(height, width, channels)
    return np.ascontiguousarray(array.transpose(2, 0, 1))


def plain_picture(picture: Image.Image, channels: int, name: str) -> Image.Image:
    """A picture upright and in 8 bits, in colour (3 channels) or grey (1). Raises BadData as `picture_array` does."""
    from PIL import ImageOps

    picture = _eight_bit(ImageOps.exif_transpose(picture), picture.format, name)
    return picture.convert("L" if channels == 1 else "RGB")


def _eight_bit(picture: Image.Image, file_format: str | None, name: str) -> Image.Image:
    """The picture in 8 bits a channel; what is transparent lies on white; 16-bit grey is scaled, not clipped."""
    from PIL import Image

    if picture.mode.startswith("I;16") or (picture.mode == "I" and file_format == "PNG"):
        return Image.fromarray(np.round(np.asarray(picture).astype(np.float64) / 257).astype(np.uint8))
    if picture.mode in ("I", "F"):
        raise BadData(f"{name} has 32 bits a pixel (mode {picture.mode}) of unknown range: save it with 8 or 16 bits")
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture)
    return picture


def image_array(image: Any, name: str) -> NDArray[np.uint8]:
    """One image, tensor or array, as uint8 [C, H, W]; see `image_arrays`."""
    array = as_numpy(image)
    if array.ndim not in (2, 3):
        raise BadData(f"{name} has shape {list(array.shape)}: an image is [C, H, W], [H, W, C] or [H, W]")
    only: NDArray[np.uint8] = image_arrays(array[None], name)[0]
    return only


def image_arrays(images: Any, name: str) -> NDArray[np.uint8]:
    """Images [N, C, H, W], [N, H, W, C] or [N, H, W] as uint8 [N, C, H, W].

    They are uint8, or floating in [0, 1] and then scaled by 255 and rounded. Raises BadData for everything else.
    """
    array = as_numpy(images)
    if array.ndim == 3:
        array = array[:, None]
    elif array.ndim == 4:
        array = array if _channels_first(array.shape, name) else np.moveaxis(array, 3, 1)
    else:
        raise BadData(f"{name} have shape {list(array.shape)}: images are [N, C, H, W], [N, H, W, C] or [N, H, W]")
    if array.size == 0:
        raise BadData(f"{name} have shape {list(array.shape)}: there are no images")
    if array.dtype == np.uint8:
        return np.ascontiguousarray(array)
    if not np.issubdtype(array.dtype, np.floating):
        raise BadData(f"{name} are {array.dtype}: images are uint8, or floating in [0, 1]")
    low, high = float(array.min()), float(array.max())
    if not (low >= 0 and high <= 1):  # also where either is not a number
        raise BadData(
            f"{name} have values from {low:g} to {high:g}: floating images must lie in [0, 1], not normalised"
        )
    return np.ascontiguousarray(np.round(array * np.float32(255)).astype(np.uint8))


def _channels_first(shape: tuple[int, ...], name: str) -> bool:
    """Whether axis 1 holds the channels: 1 or 3 there and not at the end, else the shorter of the two."""
    first, last = shape[1] in (1, 3), shape[3] in (1, 3)
    if first == last:
        first, last = shape[1] < min(shape[2:]), shape[3] < min(shape[1:3])
    if first == last:
        raise BadData(f"{name} have shape {list(shape)}: which axis holds the channels cannot be told")
    return first


def label_array(labels: Any, samples: int, name: str) -> NDArray[np.int64]:
    """Labels as int64 [N]. Raises BadData when they are no integers, below 0 or not as many as images."""
    array = as_numpy(labels)
    if array.ndim != 1 or len(array) != samples:
        raise BadData(f"{name} has {samples} images but labels of shape {list(array.shape)}: one integer per image")
    if not np.issubdtype(array.dtype, np.integer):
        raise BadData(f"{name} has labels of type {array.dtype}: they must be integers from 0")
    if samples and int(array.min()) < 0:
        raise BadData(f"{name} has the label {int(array.min())}: labels are integers from 0")
    return array.astype(np.int64)


def as_numpy(values: Any) -> NDArray[Any]:
    """A tensor on any device, an array or a sequence, as an array."""
    if hasattr(values, "detach"):
        values = values.detach().cpu()
    return np.asarray(values)
