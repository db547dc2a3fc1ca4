"""What a report tells of the hyperparameters: which matter, and where the good values lie."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

from kdsearch.results.report.blocks import Block, Details, Figure, Section, Table, Text
from kdsearch.results.report.charts import MOST_MARKED, bar_chart, contour_chart, parallel_chart, slice_chart, thinned
from kdsearch.results.report.landscape import ENOUGH, best_tenth
from kdsearch.results.report.svg import value_label

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kdsearch.results.report.document import Document
    from kdsearch.results.report.landscape import Landscape

_FEWEST_DRAWN = 3  # trials: two points are no picture of anything


def landscape_section(document: Document) -> Section:
    """Importance, slices, contour and parallel coordinates, all of the same trials at the same rung."""
    return Section("Which hyperparameters matter", list(_blocks(document)))


def _blocks(document: Document) -> Iterator[Block]:
    landscape = document.landscape
    if not landscape.axes or not document.counts:
        return
    if len(landscape.tried) < _FEWEST_DRAWN:
        yield Text(f"Too few trials have come to a rung to tell: {len(landscape.tried)}.")
        return
    yield Text(_scope(landscape))
    yield from _importance(landscape)
    best = document.winner.number if document.winner else None
    drawings = [slice_chart(landscape, place, document.metric, best) for place in range(len(landscape.axes))]
    legend = [("tried", "a trial"), ("marked", "the winner")]
    yield Figure(drawings, "The score at the rung over each hyperparameter, the others varying too.", legend)
    yield from _contour(landscape, document.metric, best)
    top = len(best_tenth(landscape.values.tolist(), document.mode, MOST_MARKED))
    legend = [
        ("top", f"the best {top} at the rung" if top > 1 else "the best at the rung"),
        ("other", _others(landscape)),
    ]
    caption = "Parallel coordinates: each line is a trial, from its hyperparameters down to its score."
    yield Figure([parallel_chart(landscape, document.metric, document.mode)], caption, legend)


def _scope(landscape: Landscape) -> str:
    at = f"after {landscape.epoch} of {landscape.end} epochs"
    at = f"at the full budget, {at}" if landscape.epoch == landscape.end else f"at the rung {at}"
    without = f" {landscape.without} trials have none there and are left out." if landscape.without else ""
    early = "" if landscape.epoch == landscape.end else " What is good early need not be good at the end: see τ above."
    return (
        f"Everything here is made of the scores {at}, which {len(landscape.tried)} trials have: few reach the end, and "
        f"those alone would mislead.{without} The control is outside of the space and not counted.{early}"
    )


def _importance(landscape: Landscape) -> Iterator[Block]:
    if not landscape.importance:
        yield Text(f"Importance is left out: it needs {ENOUGH} trials whose scores differ.")
        return
    rows = [(name, found.share, f"{found.share:.3f}") for name, found in landscape.importance.items()]
    said = ", ".join(f"{name} {said}" for name, _, said in rows)
    yield Text(
        f"Importance (fANOVA) over {landscape.measured} trials after {landscape.epoch} epochs: the share of the "
        "score's variance that each hyperparameter explains by itself."
    )
    yield Figure([bar_chart(rows, f"Importance: {said}.")], "Importance, the sum is 1 with what several do together.")
    together = max(0.0, 1 - sum(found.share for found in landscape.importance.values()))
    table = [[name, f"{found.share:.3f}", f"{found.spread:.3f}"] for name, found in landscape.importance.items()]
    table.append(["several together", f"{together:.3f}", ""])
    yield Details(
        "Importance in figures",
        [
            Table(["hyperparameter", "share", "spread"], table, label="Importance"),
            Text(
                "Spread: standard deviation over the trees of the forest. Figures within it of each other are no "
                "order. A range that is narrow, or lies well, makes a hyperparameter look unimportant."
            ),
        ],
    )


def _contour(landscape: Landscape, metric: str, best: int | None) -> Iterator[Block]:
    if len(landscape.importance) < 2:  # which two matter most is not known
        return
    drawn = contour_chart(landscape, metric, best)
    if drawn is None:
        return
    drawing, edges = drawn
    pairs = list(itertools.pairwise(edges))
    legend = [(f"band{band}", f"{value_label(low)} to {value_label(high)}") for band, (low, high) in enumerate(pairs)]
    one, other = landscape.axes[:2]
    caption = (
        f"The two that matter most, {one.name} and {other.name}: estimated {metric} (a kernel mean of the trials near "
    )
    yield Figure(
        [drawing],
        caption + f"by), with {_trials(landscape)}.",
        [*legend, ("over", "a trial"), ("marked", "the winner")],
    )


def _trials(landscape: Landscape) -> str:
    """How many of the trials are drawn where all would cover the drawing."""
    step = thinned(len(landscape.tried)).step
    return "the trials" if step == 1 else f"one of {step} trials drawn"


def _others(landscape: Landscape) -> str:
    step = thinned(len(landscape.tried)).step
    return "the others" if step == 1 else f"one of {step} of the others"
