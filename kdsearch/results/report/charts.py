"""The drawings of a report, each a function of what it shows."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from kdsearch.results.figures import score
from kdsearch.results.report.axes import OFF
from kdsearch.results.report.landscape import best_tenth
from kdsearch.results.report.surface import bands
from kdsearch.results.report.svg import (
    WIDTH,
    Scale,
    box,
    dots,
    drawing,
    line,
    polyline,
    polylines,
    ring,
    span,
    text,
    value_label,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from kdsearch.results.report.axes import Axis
    from kdsearch.results.report.history import Event
    from kdsearch.results.report.landscape import Landscape
    from kdsearch.results.report.svg import Point

LEFT, RIGHT, TOP, BOTTOM = 46, 12, 18, 34
HEIGHT = 230
BANDS = 6
_BAR = 26
_ROW = 52
GOLDEN = 0.618034  # its multiples, without their whole part, lie evenly however many there are
MOST_DRAWN = 300
"""Trials that a drawing shows where more would cover it; every so-many-th of them then."""
MOST_MARKED = 20
"""Lines that stand out among the parallel coordinates."""


def history_chart(events: Sequence[Event], by: str, metric: str, references: Mapping[str, float]) -> str:
    """Every ended trial and the best so far, over `epochs` or `ended` trials; `references`: style → value."""
    shown = [event for event in events if event.value is not None]
    values = [event.value for event in shown if event.value is not None]
    across = Scale(0, max([getattr(event, by) for event in events]), LEFT, WIDTH - RIGHT)
    up = Scale(*span([*values, *references.values()]), HEIGHT - BOTTOM, TOP)
    places = [(across(getattr(event, by)), up(event.value or 0.0), event.state) for event in shown]
    title = {"epochs": "epochs of the trials that ended", "ended": "trials that ended"}[by]
    parts = [
        *_frame(across, up, metric, title),
        *(line((LEFT, up(value)), (WIDTH - RIGHT, up(value)), style) for style, value in references.items()),
        *_marks(places),
        polyline(
            _steps([(across(getattr(event, by)), up(event.best)) for event in events if event.best is not None]), "best"
        ),
    ]
    found = [event.best for event in events if event.best is not None]
    label = f"{metric} of {len(shown)} ended trials over {title}"
    label += f"; the best so far goes from {score(found[0])} to {score(found[-1])}." if found else "."
    return drawing(HEIGHT, parts, label=label, across=across, up=up)


def _steps(points: Sequence[Point]) -> list[Point]:
    """A line that stays until it changes."""
    found: list[Point] = []
    for x, y in points:
        if found and found[-1][1] != y:
            found.append((x, found[-1][1]))
        if not found or found[-1][1] != y or (x, y) == points[-1]:
            found.append((x, y))
    return found


def _marks(places: Sequence[tuple[float, float, str]]) -> Iterator[str]:
    """Round dots of complete trials over small square ones of stopped and failed ones."""
    yield dots([(x, y) for x, y, state in places if state != "COMPLETE"], "stopped")
    yield dots([(x, y) for x, y, state in places if state == "COMPLETE"], "complete")


def _frame(across: Scale, up: Scale, metric: str, title: str) -> Iterator[str]:
    """Grid, ticks and titles of numeric axes."""
    yield from _heights(up, metric)
    for value in across.ticks():
        yield text(across(value), HEIGHT - BOTTOM + 14, value_label(value), "tick", anchor="middle")
    yield text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 4, title, "title", anchor="middle")


def _heights(up: Scale, metric: str) -> Iterator[str]:
    for value in up.ticks():
        yield line((LEFT, up(value)), (WIDTH - RIGHT, up(value)), "grid")
        yield text(LEFT - 5, up(value) + 3.5, value_label(value), "tick", anchor="end")
    yield text(LEFT + 2, TOP - 7, metric, "title")


def _ticks(axis: Axis, across: Scale, y: float) -> Iterator[str]:
    """The labels of an axis in a row; those that would run into their neighbour are left out."""
    ticks, free = axis.ticks(), -math.inf
    for place, label in ticks:
        x, half = across(place), 3.4 * len(label)
        x = min(max(x, half), WIDTH - half)
        if x - half >= free:
            yield text(x, y, label, "tick halo", anchor="middle")
            free = x + half + 3


def bar_chart(rows: Sequence[tuple[str, float, str]], label: str) -> str:
    """Horizontal bars: name, length (0 or more) and what stands after it."""
    longest = max([length for _, length, _ in rows]) or 1.0
    across = Scale(0, longest, 0, WIDTH - 110)
    parts = []
    for place, (name, length, said) in enumerate(rows):
        top = place * _BAR * 1.3
        parts += [text(0, top + 11, name, "name"), box(0, top + 15, across(length), 12, "bar")]
        parts.append(text(across(length) + 5, top + 25, said, "tick"))
    return drawing(len(rows) * _BAR * 1.3 + 2, parts, label=label, across=across)


def front_chart(rows: Sequence[Mapping[str, Any]], cost: str, metric: str) -> str | None:
    """What students reach over what they cost, their `parameters` or their `latency`; `rows`: as `student_rows` has
    them. None where nothing is known of any."""
    shown = [row for row in rows if row["value"] is not None and row[cost] is not None]
    if not shown:
        return None
    title, unit = {"parameters": ("parameters", 1), "latency": ("milliseconds for one image", 1000)}[cost]
    across = Scale(0, 1.05 * unit * max(row[cost] for row in shown), LEFT, WIDTH - RIGHT)
    up = Scale(*span([row["value"] for row in shown]), HEIGHT - BOTTOM, TOP)
    places = [(across(unit * row[cost]), up(row["value"])) for row in shown]
    names = [
        text(
            x + (-8 if x > WIDTH / 2 else 8),
            y + 3.5,
            row["name"],
            "tick halo",
            anchor="end" if x > WIDTH / 2 else "start",
            longest=24,
        )
        for (x, y), row in zip(places, shown, strict=True)
    ]
    marks = [(x, y, "COMPLETE" if row["front"] else "") for (x, y), row in zip(places, shown, strict=True)]
    label = f"{metric} of {len(shown)} students over {title}: "
    label += "; ".join(f"{row['name']} {score(row['value'])} at {value_label(unit * row[cost])}" for row in shown) + "."
    return drawing(
        HEIGHT, [*_frame(across, up, metric, title), *_marks(marks), *names], label=label, across=across, up=up
    )


def slice_chart(landscape: Landscape, place: int, metric: str, best: int | None) -> str:
    """The score at the rung over one hyperparameter; `best`: the number of the trial to mark."""
    axis = landscape.axes[place]
    across, up = Scale(0, 1, LEFT, WIDTH - RIGHT), Scale(*span(landscape.values.tolist()), HEIGHT - BOTTOM, TOP)
    positions = landscape.positions[:, place]
    points = {
        row.trial: (across(_spread(axis, at, row.trial)), up(row.value))
        for row, at in zip(landscape.tried, positions.tolist(), strict=True)
        if not math.isnan(at)
    }
    parts = [
        *_heights(up, metric),
        *_ticks(axis, across, HEIGHT - BOTTOM + 14),
        text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 4, _titled(axis), "title", anchor="middle"),
        dots(points.values(), "tried"),
        *([ring(points[best], "marked")] if best in points else []),
    ]
    label = f"{metric} after {landscape.epoch} epochs of {len(points)} trials over {axis.name}."
    return drawing(HEIGHT, parts, label=label, across=across, up=up)


def _spread(axis: Axis, at: float, number: int) -> float:
    """A position among those of one choice, or of `off`, so that trials with the same value lie side by side."""
    width = 1 / len(axis.choices) if axis.choices else OFF if axis.segment(at) else 0.0
    return at + 0.6 * width * (number * GOLDEN % 1 - 0.5)


def thinned(count: int) -> range:
    """The places of the trials that are drawn, of so many."""
    return range(0, count, -(-count // MOST_DRAWN) or 1)


def _titled(axis: Axis) -> str:
    return axis.name + (" (log)" if axis.log else "")


def contour_chart(landscape: Landscape, metric: str, best: int | None) -> tuple[str, list[float]] | None:
    """The score over the two first axes in bands, with the trials, and the bands' edges; None where it is the same
    everywhere."""
    one, other = landscape.axes[:2]
    places, values = landscape.positions[:, :2], landscape.values
    known = np.asarray(~np.isnan(places).any(axis=1))
    if np.ptp(values[known]) == 0:
        return None
    stretches, edges = bands(one, other, places[known], values[known], BANDS)
    height = WIDTH - LEFT - RIGHT + TOP + BOTTOM
    across, up = Scale(0, 1, LEFT, WIDTH - RIGHT), Scale(0, 1, height - BOTTOM, TOP)
    numbers = [row.trial for row, there in zip(landscape.tried, known.tolist(), strict=True) if there]
    points = {
        number: (across(_spread(one, x, number)), up(_spread(other, y, number)))
        for number, (x, y) in zip(numbers, places[known].tolist(), strict=True)
    }
    drawn = [list(points.values())[place] for place in thinned(len(points))]
    parts = [
        box(LEFT, TOP, WIDTH - LEFT - RIGHT, height - BOTTOM - TOP, "unknown"),
        *(
            box(
                across(cell.left),
                up(cell.top),
                across(cell.right) - across(cell.left) + 0.2,
                up(cell.bottom) - up(cell.top) + 0.2,
                f"band{cell.band}",
            )
            for cell in stretches
        ),
        dots(drawn, "under"),
        dots(drawn, "over"),
        *([ring(points[best], "marked")] if best in points else []),
        *_ticks(one, across, height - BOTTOM + 14),
        *(text(LEFT - 5, up(place) + 3.5, label, "tick", anchor="end", longest=7) for place, label in other.ticks()),
        text((LEFT + WIDTH - RIGHT) / 2, height - 4, f"→ {_titled(one)}", "title", anchor="middle"),
        text(LEFT + 2, TOP - 7, f"↑ {_titled(other)}", "title"),
    ]
    top = max(stretches, key=lambda cell: (cell.band, cell.right - cell.left))
    label = (
        f"Estimated {metric} after {landscape.epoch} epochs over {one.name} (across) and {other.name} (up), from "
        f"{score(edges[0])} to {score(edges[-1])}; highest around {_whereabouts((top.left + top.right) / 2)} of the "
        f"way across and {_whereabouts((top.bottom + top.top) / 2)} of the way up."
    )
    return drawing(height, parts, label=label, across=across, up=up), edges


def _whereabouts(share: float) -> str:
    return f"{100 * share:.0f} %"


def parallel_chart(landscape: Landscape, metric: str, mode: str) -> str:
    """Every trial as a line through all axes, the score's below; the best tenth stand out."""
    across = Scale(0, 1, 12, WIDTH - 12)
    values, positions = landscape.values, landscape.positions
    scores = Scale(*span(values.tolist()), across.start, across.end)
    rows = len(landscape.axes)
    heights = [26 + _ROW * row for row in range(rows + 1)]
    lines = []
    for places, value in zip(positions.tolist(), values.tolist(), strict=True):
        known = [(across(at), y) for at, y in zip(places, heights, strict=False) if not math.isnan(at)]
        lines.append([*known, (scores(value), heights[-1])])
    top = best_tenth(values.tolist(), mode, MOST_MARKED)
    parts = [
        polylines([lines[place] for place in thinned(len(lines)) if place not in top], "other"),
        polylines([lines[place] for place in top], "top"),
    ]
    for axis, y in zip(landscape.axes, heights, strict=False):
        parts += [line((across.start, y), (across.end, y), "axis"), text(0, y - 8, _titled(axis), "name halo")]
        parts += _ticks(axis, across, y + 13)
    y = heights[-1]
    parts += [
        line((across.start, y), (across.end, y), "axis"),
        text(0, y - 8, f"{metric} after {landscape.epoch} epochs", "name halo"),
    ]
    parts += [
        text(scores(value), y + 13, value_label(value), "tick halo", anchor="middle") for value in scores.ticks(5)
    ]
    label = (
        f"{len(lines)} trials as lines through {rows} hyperparameters to their {metric}; the best {len(top)} stand out."
    )
    return drawing(heights[-1] + 20, parts, label=label, across=across, up=scores)
