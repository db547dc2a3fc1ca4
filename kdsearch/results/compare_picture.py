"""The picture of a comparison: the best so far against what was spent, a panel for each state of the labels.

Drawn with PIL alone. Each line ends at its name, so that the picture can be read without colour.
"""

from __future__ import annotations

import io
import math
from typing import TYPE_CHECKING, Any

from PIL import Image, ImageDraw

from kdsearch.results.compare_words import labels_of, state_of_labels
from kdsearch.results.figures import score
from kdsearch.results.lettering import FAINT, PAPER, fitted, plain, widest_text, write
from kdsearch.results.pictures import LINE, MARGIN

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from kdsearch.results.lettering import Color

    Row = Mapping[str, Any]

# Okabe and Ito's colours, with grey for the yellow that is too light for a line.
_COLORS: tuple[Color, ...] = (
    (0, 0, 0), (0, 114, 178), (213, 94, 0), (0, 158, 115),
    (204, 121, 167), (86, 180, 233), (230, 159, 0), (130, 130, 130),
)  # fmt: skip
_WIDTH, _HEIGHT = 520, 300
_HEAD, _FOOT, _LEFT, _TEXT = 44, 44, 64, 13
_LONGEST_NAME = 220


def comparison_picture(document: Mapping[str, Any]) -> bytes:
    """PNG of the best validation metric so far against images seen or seconds, for each search of a comparison.

    A line goes on level from its last rise to what its search has spent. What has not begun has no line.
    """
    rows = document["rows"]
    states = list(dict.fromkeys(labels_of(row) for row in rows))
    names = list(dict.fromkeys(row["name"] for row in rows))
    colors = {name: _COLORS[place % len(_COLORS)] for place, name in enumerate(names)}
    right = 16 + min(_LONGEST_NAME, widest_text([plain(name) for name in names], _TEXT))
    panel = (_LEFT + _WIDTH + right, _HEAD + _HEIGHT + _FOOT)
    columns = min(2, len(states))
    size = (2 * MARGIN + columns * panel[0], 3 * MARGIN + 12 + -(-len(states) // columns) * panel[1])
    image = Image.new("RGB", size, PAPER)
    draw = ImageDraw.Draw(image)
    title = plain(f"{document['comparison']}: best {document['metric']} on validation so far, {document['data']}")
    write(draw, MARGIN, MARGIN + 14, fitted(title, size[0] - 2 * MARGIN, 17), 17)
    for place, state in enumerate(states):
        corner = (MARGIN + place % columns * panel[0] + _LEFT, 2 * MARGIN + 12 + place // columns * panel[1] + _HEAD)
        shown = [row for row in rows if labels_of(row) == state]
        if len(states) > 1:
            write(draw, corner[0], corner[1] - 12, state_of_labels(*state), _TEXT)
        _panel(draw, corner, shown, document, colors)
    file = io.BytesIO()
    image.save(file, "PNG", optimize=True)
    return file.getvalue()


def _panel(
    draw: ImageDraw.ImageDraw,
    corner: tuple[int, int],
    rows: Sequence[Row],
    document: Mapping[str, Any],
    colors: Mapping[str, Color],
) -> None:
    left, top = corner
    unit, budget = document["budget"]["unit"], float(document["budget"]["amount"])
    curves = {row["name"]: _to_the_end(row, unit) for row in rows if row.get("curve")}
    furthest = max([budget, *(curve[-1][0] for curve in curves.values())])
    values = [value for curve in curves.values() for _, value in curve]
    draw.rectangle((left, top, left + _WIDTH, top + _HEIGHT), outline=LINE)
    axis = "images seen" if unit == "images" else "seconds of training"
    write(draw, left + _WIDTH / 2, top + _HEIGHT + 36, axis, _TEXT, FAINT, "middle")
    for share in (0.0, 0.5, 1.0):
        x = left + share * _WIDTH * budget / furthest
        draw.line((x, top + _HEIGHT, x, top + _HEIGHT + 4), LINE)
        write(draw, x, top + _HEIGHT + 18, f"{share * budget:,.0f}", 12, FAINT, "middle")
    if not values:
        write(draw, left + _WIDTH / 2, top + _HEIGHT / 2, "nothing yet", _TEXT, FAINT, "middle")
        return
    low, high = _range(values, document["mode"])
    for value in (low, (low + high) / 2, high):
        y = _y(value, low, high, top)
        draw.line((left - 4, y, left, y), LINE)
        write(draw, left - 8, y + 4, score(value), 12, FAINT, "right")
    ends = {}
    for name, curve in curves.items():
        points = _steps(curve, furthest, low, high, corner)
        draw.line(points, colors[name], 3 if name == document["reference"] else 2)
        ends[name] = points[-1]
    _names(draw, left + _WIDTH, top, ends, colors)


def _to_the_end(row: Row, unit: str) -> list[list[float]]:
    """The curve of a search, to what its trials have spent by now."""
    curve = row["curve"]
    return [*curve, [max(curve[-1][0], row[unit]), curve[-1][1]]]


def _range(values: Sequence[float], mode: str) -> tuple[float, float]:
    """The values of the axis: where the lines end takes most of it, what they rose from may be cut off."""
    ordered = sorted(values, reverse=mode == "min")
    best, start = ordered[-1], ordered[len(ordered) // 4]
    low, high = min(best, start), max(best, start)
    room = 0.1 * (high - low) or 0.05 * max(abs(high), 1e-3)
    return low - room, high + room


def _y(value: float, low: float, high: float, top: int) -> float:
    share = (value - low) / (high - low)
    return top + _HEIGHT * (1 - min(max(share, 0.0), 1.0))


def _steps(
    curve: Sequence[Sequence[float]], furthest: float, low: float, high: float, corner: tuple[int, int]
) -> list[tuple[float, float]]:
    """The corners of a line that rises in steps."""
    left, top = corner
    found: list[tuple[float, float]] = []
    for spent, value in curve:
        x, y = left + _WIDTH * spent / furthest, _y(value, low, high, top)
        if found:
            found.append((x, found[-1][1]))
        found.append((x, y))
    return found


def _names(
    draw: ImageDraw.ImageDraw,
    right: int,
    top: int,
    ends: Mapping[str, tuple[float, float]],
    colors: Mapping[str, Color],
) -> None:
    """The name of each line beside its end, outside of the frame where that is near; moved down where two meet."""
    last = -math.inf
    for name, (x, y) in sorted(ends.items(), key=lambda pair: pair[1][1]):
        last = max(y + 4, last + _TEXT + 3, top + 8.0)
        outside = x > right - _LONGEST_NAME / 2
        write(draw, (right if outside else x) + 8, last, fitted(plain(name), _LONGEST_NAME, _TEXT), _TEXT, colors[name])
