"""What a report says of several students: what each reached, what it costs, and which are on the front."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kdsearch.results.report.blocks import Block, Figure, Section, Table, Text
from kdsearch.results.report.charts import front_chart
from kdsearch.results.students import EXPLANATION, TITLES, cells

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kdsearch.results.report.document import Document


def students_section(document: Document) -> Section:
    """The students of a search that chose among several; without blocks where there was one."""
    return Section("Which student", list(_students(document)))


def _students(document: Document) -> Iterator[Block]:
    rows = document.students
    if not rows:
        return
    charts = [front_chart(rows, cost, document.metric) for cost in ("parameters", "latency")]
    drawn = [chart for chart in charts if chart is not None]
    if drawn:
        legend = [("complete", "on the front"), ("stopped", "another is at least as good in all three, better in one")]
        yield Figure(drawn, f"{document.metric} of each student over its size and over its latency.", legend)
    titles = [title or document.metric for title in TITLES]
    yield Table(titles, [cells(row) for row in rows], label="The students of the search")
    refused = [f"{row['name']}: {row['refused']}." for row in rows if row["refused"]]
    yield from (Text(sentence) for sentence in refused)
    yield Text(EXPLANATION)
