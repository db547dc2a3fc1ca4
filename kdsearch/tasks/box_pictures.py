"""Boxes drawn into pictures, to be looked at."""

from __future__ import annotations

import colorsys
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Turning the hue by this share gives neighbouring classes colours that lie far apart.
_TURN = 0.618


def draw_boxes(
    image: NDArray[np.uint8], boxes: NDArray[np.floating], labels: NDArray[np.integer], largest: int = 2
) -> NDArray[np.uint8]:
    """An image uint8 [C, H, W] in colour, with boxes [n, 4] (x1, y1, x2, y2) in the colours of their classes [n].

    Lines are a pixel wide for images up to 256 pixels, at most `largest`.
    """
    from PIL import Image, ImageDraw

    colour = np.repeat(image, 3, axis=0) if len(image) == 1 else image[:3]
    picture = Image.fromarray(np.ascontiguousarray(colour.transpose(1, 2, 0)))
    pen = ImageDraw.Draw(picture)
    width = min(largest, 1 + max(picture.size) // 257)
    for box, label in zip(boxes.tolist(), labels.tolist(), strict=True):
        x1, y1 = round(box[0]), round(box[1])
        # A box ends where its last pixel does; PIL paints the last pixel too.
        x2, y2 = max(x1, round(box[2]) - 1), max(y1, round(box[3]) - 1)
        pen.rectangle((x1, y1, x2, y2), outline=class_colour(int(label)), width=width)
    return np.ascontiguousarray(np.asarray(picture).transpose(2, 0, 1))


def class_colour(label: int) -> tuple[int, int, int]:
    """A bright colour of its own for each class."""
    red, green, blue = colorsys.hsv_to_rgb(label * _TURN % 1.0, 1.0, 1.0)
    return round(255 * red), round(255 * green), round(255 * blue)
