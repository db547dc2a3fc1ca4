"""What a run found and how sure it is, on one page."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from kdsearch.results.report.document import gather
from kdsearch.results.report.markdown import to_markdown
from kdsearch.results.report.page import to_html

if TYPE_CHECKING:
    from kdsearch.results.results import Results

Format = Literal["html", "md"]


def report(results: Results, form: Format = "html") -> str:
    """The report of a run in any state: one HTML file that loads nothing, or Markdown without drawings.

    Raises RunError when the run's files are damaged.
    """
    document = gather(results)
    return to_html(document) if form == "html" else to_markdown(document)
