"""Panels of horizontal bars as a PNG."""

from __future__ import annotations

from typing import TYPE_CHECKING

from PIL import Image, ImageDraw, ImageFont

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    Panel = tuple[str, Sequence[tuple[str, float]], str]
    """A title, labelled values, and the format of a value."""

WIDTH, BAR, GAP, TITLE, MARGIN, LABELS = 1100, 40, 14, 50, 28, 260
INK, OURS, THEIRS, PAPER = (32, 38, 46), (38, 110, 190), (168, 176, 186), (255, 255, 255)


def draw_bars(path: Path, panels: Sequence[Panel]) -> None:
    """One panel under the other; the first bar of each is the one that the picture is about."""
    heights = [TITLE + len(values) * (BAR + GAP) + MARGIN for _, values, _ in panels]
    image = Image.new("RGB", (WIDTH, sum(heights) + MARGIN), PAPER)
    draw = ImageDraw.Draw(image)
    top = MARGIN
    for (title, values, form), height in zip(panels, heights, strict=True):
        draw.text((MARGIN, top), title, INK, font=ImageFont.load_default(24))
        _bars(draw, top + TITLE, values, form)
        top += height
    path.parent.mkdir(exist_ok=True)
    image.save(path, optimize=True)


def _bars(draw: ImageDraw.ImageDraw, top: int, values: Sequence[tuple[str, float]], form: str) -> None:
    font = ImageFont.load_default(21)
    left, room = MARGIN + LABELS, WIDTH - 2 * MARGIN - LABELS - 110
    most = max(value for _, value in values)
    for place, (label, value) in enumerate(values):
        y, length = top + place * (BAR + GAP), round(room * value / most)
        draw.text((MARGIN, y + BAR / 2), label, INK, font=font, anchor="lm")
        draw.rectangle((left, y, left + length, y + BAR), fill=OURS if place == 0 else THEIRS)
        draw.text((left + length + 12, y + BAR / 2), form.format(value), INK, font=font, anchor="lm")
