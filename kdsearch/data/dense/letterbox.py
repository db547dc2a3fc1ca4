"""Pictures and masks brought to one size, their aspect kept: scaled until they just fit, padded around."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from PIL import Image


@dataclass(frozen=True)
class Letterbox:
    """Where a picture of `source` pixels lies in a frame of `target` pixels, all as (height, width).

    The picture is scaled by one factor until it just fits (up as well as down) and lies in the middle; where the
    padding is odd, its larger half is below or at the right.
    """

    source: tuple[int, int]
    target: tuple[int, int]

    @property
    def scale(self) -> float:
        """Target pixels for one source pixel, before the sides are rounded."""
        return min(self.target[0] / self.source[0], self.target[1] / self.source[1])

    @property
    def inner(self) -> tuple[int, int]:
        """Height and width of the scaled picture: each at least 1, and one of them the frame's."""
        height, width = (
            min(frame, max(1, round(side * self.scale))) for side, frame in zip(self.source, self.target, strict=True)
        )
        return height, width

    @property
    def offset(self) -> tuple[int, int]:
        """Row and column of the scaled picture's upper left pixel."""
        return (self.target[0] - self.inner[0]) // 2, (self.target[1] - self.inner[1]) // 2

    @property
    def window(self) -> tuple[slice, slice]:
        """The rows and columns of the frame that show the picture."""
        (top, left), (height, width) = self.offset, self.inner
        return slice(top, top + height), slice(left, left + width)

    def pixels(self, places: NDArray[np.integer]) -> NDArray[np.int64]:
        """Pixels (row, column) int [N, 2] of the picture → those of the frame that hold their centres, int64 [N, 2]."""
        ratio = np.array(self.inner) / np.array(self.source)
        inner = np.floor((places + 0.5) * ratio).astype(np.int64)
        moved: NDArray[np.int64] = np.minimum(inner, np.array(self.inner) - 1) + np.array(self.offset)
        return moved

    def picture(self, picture: Image.Image) -> NDArray[np.uint8]:
        """An 8-bit picture (mode L or RGB) in the frame: uint8 [C, H, W], bilinear with antialiasing, black around."""
        from PIL import Image

        resized = np.asarray(self._resized(picture, Image.Resampling.BILINEAR), dtype=np.uint8)
        channels = resized[None] if resized.ndim == 2 else resized.transpose(2, 0, 1)
        frame = np.zeros((len(channels), *self.target), dtype=np.uint8)
        frame[:, *self.window] = channels
        return frame

    def mask(self, mask: NDArray[np.uint8], outside: int) -> NDArray[np.uint8]:
        """A mask uint8 of the picture's size in the frame: nearest neighbour, `outside` around."""
        from PIL import Image

        frame = np.full(self.target, outside, dtype=np.uint8)
        frame[self.window] = np.asarray(self._resized(Image.fromarray(mask), Image.Resampling.NEAREST), dtype=np.uint8)
        return frame

    def _resized(self, picture: Image.Image, resample: Image.Resampling) -> Image.Image:
        assert picture.size == (self.source[1], self.source[0]), "the picture has another size than this letterbox"
        height, width = self.inner
        return picture if picture.size == (width, height) else picture.resize((width, height), resample)
