"""Lines of text on a picture, in the one font that PIL carries with it."""

from __future__ import annotations

import unicodedata
from functools import cache, lru_cache
from typing import TYPE_CHECKING

from PIL import Image, ImageDraw, ImageFont

if TYPE_CHECKING:
    from collections.abc import Sequence

    Font = ImageFont.ImageFont | ImageFont.FreeTypeFont
    Color = tuple[int, int, int]

INK: Color = (32, 38, 46)
FAINT: Color = (104, 112, 122)
PAPER: Color = (255, 255, 255)
LONGEST_NAME = 24


def plain(text: str) -> str:
    """Text in the letters that PIL's own font has: accents are dropped, what is left over becomes a question mark."""
    letters = (letter for letter in unicodedata.normalize("NFKD", text) if not unicodedata.combining(letter))
    return " ".join("".join(letters).encode("ascii", "replace").decode().split())


def class_name(name: str, index: int) -> str:
    """A class name short enough to be shown; its index where none of its letters can be drawn."""
    text = plain(name)
    if not text.replace("?", "").strip():
        return f"class {index}"
    return text if len(text) <= LONGEST_NAME else f"{text[: LONGEST_NAME - 1]}…"


def fitted(text: str, room: float, size: int) -> str:
    """As much of the text as fits into `room` pixels."""
    if text_width(text, size) <= room:
        return text
    while text and text_width(f"{text}…", size) > room:
        text = text[:-1]
    return f"{text}…"


def write(
    draw: ImageDraw.ImageDraw, x: float, y: float, text: str, size: int, ink: Color = INK, align: str = "left"
) -> None:
    """A line of text at the baseline `y`. Word by word, since the font's own spaces nearly vanish in small sizes."""
    x -= {"left": 0.0, "middle": 0.5, "right": 1.0}[align] * text_width(text, size)
    for word in text.split(" "):
        draw.text((x, y), word, ink, font(size), anchor="ls")
        x += text_width(word, size) + space(size)


def write_upwards(image: Image.Image, x: float, y: float, text: str, size: int) -> None:
    """A line of text that runs upwards from `y`, centred on `x`."""
    strip = Image.new("RGB", (text_width(text, size) + 2, size + 4), PAPER)
    write(ImageDraw.Draw(strip), 0, 2 + 0.86 * size, text, size)
    turned = strip.rotate(90, expand=True)
    image.paste(turned, (round(x - turned.width / 2), round(y - turned.height)))


@cache
def font(size: int) -> Font:
    return ImageFont.load_default(size)


def space(size: int) -> int:
    return round(0.3 * size)


@lru_cache(4096)
def text_width(text: str, size: int) -> int:
    """Pixels that a line of text takes."""
    words = text.split(" ")
    return sum(round(font(size).getlength(word)) for word in words) + space(size) * (len(words) - 1)


def widest_text(lines: Sequence[str], size: int) -> int:
    return max((text_width(line, size) for line in lines), default=0)
