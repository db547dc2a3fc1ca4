"""The picture of a chain: a line for each generation and control, a panel for each quantity. Drawn with PIL alone.

Generations are filled, controls hollow, so that the picture can be read without colour. The metric is a dot on an axis
that shows the differences; costs are bars from zero.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

from PIL import Image, ImageDraw

from kdsearch.results.lettering import FAINT, PAPER, fitted, plain, text_width, widest_text, write
from kdsearch.results.pictures import DEEP, LINE, MARGIN

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_HEIGHT, _HEAD, _TEXT = 34, 78, 14
_PANEL, _GAP = 210, 28
_LONGEST_LABEL = 340


def chain_picture(document: Mapping[str, Any]) -> bytes:
    """PNG of a chain's rows (see `read_chain`): metric, parameters, compression, multiply-adds, latency.

    What is not known yet is a dash.
    """
    rows = document["rows"]
    labels = [plain(_label(row)) for row in rows]
    left = 2 * MARGIN + min(_LONGEST_LABEL, widest_text(labels, _TEXT))
    size = (left + 5 * (_PANEL + _GAP) + MARGIN, _HEAD + _HEIGHT * len(rows) + MARGIN)
    image = Image.new("RGB", size, PAPER)
    draw = ImageDraw.Draw(image)
    title = plain(f"chain {document['chain']}: {document['task']} on {document['data']}, seed {document['seed']}")
    write(draw, MARGIN, MARGIN + 14, fitted(title, size[0] - 2 * MARGIN, 17), 17)
    write(draw, MARGIN, _HEAD - 14, "filled: generation, hollow: control", 12, FAINT)
    for place, label in enumerate(labels):
        write(draw, MARGIN, _middle(place) + 5, fitted(label, left - 2 * MARGIN, _TEXT), _TEXT)
        draw.line((MARGIN, _middle(place) + _HEIGHT // 2, size[0] - MARGIN, _middle(place) + _HEIGHT // 2), LINE)
    hollow = [row["kind"] == "control" for row in rows]
    better = "larger" if document["mode"] == "max" else "smaller"
    metric = f"{plain(document['metric'])} ({better} is better)"
    _dots(draw, left, metric, [row.get("value") for row in rows], hollow)
    latencies = [1000 * row["latency"]["seconds"] if row.get("latency") else None for row in rows]
    quantities: list[tuple[str, list[float | None], str]] = [
        ("parameters", [row.get("parameters") for row in rows], ",.0f"),
        ("compression", [row.get("compression") for row in rows], ".2f"),
        ("multiply-adds, one image", [row.get("multiply_adds") for row in rows], ",.0f"),
        ("latency in ms, one image", latencies, ".3g"),
    ]
    for number, (name, values, form) in enumerate(quantities, start=1):
        _bars(draw, left + number * (_PANEL + _GAP), name, values, hollow, form)
    file = io.BytesIO()
    image.save(file, "PNG", optimize=True)
    return file.getvalue()


def _label(row: Mapping[str, Any]) -> str:
    name = row["name"] if row["kind"] == "generation" else f"{row['name']}: {row['student']}"
    origin = f" from {row['teacher']}" if row["teacher"] else ", weights given" if row["method"] is None else ""
    return f"{name}{origin}"


def _middle(place: int) -> int:
    return _HEAD + _HEIGHT * place + _HEIGHT // 2


def _dots(draw: ImageDraw.ImageDraw, left: int, name: str, values: Sequence[float | None], hollow: list[bool]) -> None:
    """Values as dots on an axis from the lowest to the highest, the figures beside them."""
    write(draw, left, _HEAD - 14, fitted(name, _PANEL, 13), 13)
    known = [value for value in values if value is not None]
    low, high = (min(known), max(known)) if known else (0.0, 0.0)
    figures = [f"{value:.4f}" if abs(value) < 10 else f"{value:.2f}" for value in known] or ["–"]
    room = _PANEL - widest_text(figures, _TEXT) - 24
    draw.line((left + 6, _HEAD - 4, left + 6, _middle(len(values)) - _HEIGHT // 2), LINE)
    for place, value in enumerate(values):
        y = _middle(place)
        if value is None:
            write(draw, left + 6, y + 5, "-", _TEXT, FAINT)
            continue
        x = left + 6 + (room * (value - low) / (high - low) if high > low else room / 2)
        draw.ellipse((x - 6, y - 6, x + 6, y + 6), PAPER if hollow[place] else DEEP, DEEP, 2)
        text = f"{value:.4f}" if abs(value) < 10 else f"{value:.2f}"
        write(draw, x + 12, y + 5, text, _TEXT)


def _bars(
    draw: ImageDraw.ImageDraw, left: int, name: str, values: Sequence[float | None], hollow: list[bool], form: str
) -> None:
    """Values as bars from zero, the figures at their ends."""
    write(draw, left, _HEAD - 14, fitted(name, _PANEL, 13), 13)
    figures = ["-" if value is None else format(value, form) for value in values]
    largest = max((value for value in values if value is not None), default=0)
    room = _PANEL - max(text_width(text, _TEXT) for text in figures) - 10
    for place, (value, text) in enumerate(zip(values, figures, strict=True)):
        y, length = _middle(place), round(room * value / largest) if value and largest else 0
        if length:
            draw.rectangle((left, y - 7, left + length, y + 7), PAPER if hollow[place] else DEEP, DEEP, 2)
        write(draw, left + length + 8, y + 5, text, _TEXT, FAINT if value is None else DEEP)
