"""A report as one HTML file: nothing is loaded and no script runs, and its figures lie in it as JSON too."""

from __future__ import annotations

import json
from importlib import resources
from typing import TYPE_CHECKING

from kdsearch.results.report.blocks import Cards, Code, Details, Figure, Table, Text
from kdsearch.results.report.sections import sections
from kdsearch.results.report.svg import escape

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from kdsearch.results.report.blocks import Block, Section
    from kdsearch.results.report.document import Document

DATA = "report-data"
"""The id of the element that holds the document as JSON."""

_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'"


def to_html(document: Document) -> str:
    """The whole page."""
    title = f"{document.run}: what the search found"
    found = sections(document)
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{_POLICY}">
<meta name="color-scheme" content="light">
<title>{escape(title)}</title>
<link rel="icon" href="data:,">
<style>{_style()}</style>
</head>
<body>
<header>
<h1>{escape(document.run)}</h1>
<nav aria-label="Sections">{"".join(_link(place, section) for place, section in enumerate(found))}</nav>
</header>
<main>
{"".join(_section(place, section) for place, section in enumerate(found))}
</main>
<script type="application/json" id="{DATA}">{_json(document)}</script>
</body>
</html>
"""


def _style() -> str:
    return resources.files(__package__).joinpath("style.css").read_text(encoding="utf-8")


def _json(document: Document) -> str:
    """JSON in which no tag and no comment can begin or end."""
    text = json.dumps(document.to_dict(), allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _link(place: int, section: Section) -> str:
    return f'<a href="#part{place}">{escape(section.title)}</a>'


def _section(place: int, section: Section) -> str:
    return f'<section id="part{place}"><h2>{escape(section.title)}</h2>{_blocks(section.blocks)}</section>\n'


def _blocks(blocks: Iterable[Block]) -> str:
    return "\n".join(_block(block) for block in blocks)


def _block(block: Block) -> str:
    match block:
        case Text(content, caution):
            return f'<p class="{"caution" if caution else "plain"}">{escape(content)}</p>'
        case Cards(cards):
            return f'<dl class="cards">{"".join(_card(*card) for card in cards)}</dl>'
        case Table():
            return _table(block)
        case Code(content):
            return f'<pre tabindex="0"><code>{escape(content.rstrip())}</code></pre>'
        case Details(summary, blocks):
            return f"<details><summary>{escape(summary)}</summary>{_blocks(blocks)}</details>"
        case Figure():
            return _figure(block)


def _card(label: str, value: str, said: str) -> str:
    return f"<div><dt>{escape(label)}</dt><dd><b>{escape(value)}</b> {escape(said)}</dd></div>"


def _table(table: Table) -> str:
    head = "".join(_cell("th", title, place < table.words, ' scope="col"') for place, title in enumerate(table.head))
    head = f"<thead><tr>{head}</tr></thead>" if any(table.head) else ""
    rows = "".join(f"<tr>{_row(row, table.words)}</tr>" for row in table.rows)
    label = escape(table.label)
    return (
        f'<div class="table" role="region" aria-label="{label}" tabindex="0">'
        f'<table aria-label="{label}">{head}<tbody>{rows}</tbody></table></div>'
    )


def _row(cells: Sequence[str], words: int) -> str:
    return "".join(_cell("td", cell, place < words) for place, cell in enumerate(cells))


def _cell(tag: str, content: str, is_word: bool, more: str = "") -> str:
    shown = escape(content)
    if is_word or tag == "th":
        shown = shown.replace("_", "_<wbr>")  # learning_rate may break in a narrow column
    return f'<{tag}{more} class="{"word" if is_word else "number"}">{shown}</{tag}>'


def _figure(figure: Figure) -> str:
    keys = "".join(f"<li>{_sample(style)}{escape(meaning)}</li>" for style, meaning in figure.legend)
    legend = f'<ul class="legend">{keys}</ul>' if keys else ""
    drawings = "".join(f'<div class="drawing">{drawing}</div>' for drawing in figure.drawings)
    size = "many" if len(figure.drawings) > 1 else "one"
    caption = f"<figcaption>{escape(figure.caption)}{legend}</figcaption>"
    return f'<figure><div class="{size}">{drawings}</div>{caption}</figure>'


def _sample(style: str) -> str:
    """The mark that a legend explains, as it is drawn."""
    if style.startswith("band"):
        mark = f'<rect x="1" y="2" width="22" height="10" class="{style}"/>'
    elif style == "marked":
        mark = '<circle cx="12" cy="7" r="5.5" class="marked"/>'
    elif style == "over":
        mark = '<path d="M12 7h0" class="dots under"/><path d="M12 7h0" class="dots over"/>'
    elif style in ("complete", "stopped", "tried"):
        mark = f'<path d="M12 7h0" class="dots {style}"/>'
    else:
        mark = f'<path d="M1 7h22" class="line {style}"/>'
    return f'<svg viewBox="0 0 24 14" class="sample" aria-hidden="true">{mark}</svg>'
