"""A report as Markdown: the same words and tables, without the drawings."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from kdsearch.results.report.blocks import Cards, Code, Details, Figure, Table, Text
from kdsearch.results.report.sections import sections

if TYPE_CHECKING:
    from collections.abc import Iterable

    from kdsearch.results.report.blocks import Block
    from kdsearch.results.report.document import Document

_SIGNS = re.compile(r"([\\`*_\[\]<>|#~])")


def to_markdown(document: Document) -> str:
    """The whole report, GitHub's flavour."""
    parts = [f"# {_text(document.run)}: what the search found"]
    for section in sections(document):
        parts += [f"## {section.title}", *_blocks(section.blocks)]
    return "\n\n".join(parts) + "\n"


def _blocks(blocks: Iterable[Block]) -> list[str]:
    return [written for block in blocks if (written := _block(block))]


def _block(block: Block) -> str:
    match block:
        case Text(content, caution):
            return f"> {_text(content)}" if caution else _text(content)
        case Cards(cards):
            return "\n".join(f"- {_text(label)}: **{_text(value)}** ({_text(said)})" for label, value, said in cards)
        case Table():
            return _table(block)
        case Code(content, language):
            return _code(content, language)
        case Details(summary, blocks):
            return "\n\n".join([f"**{_text(summary)}**", *_blocks(blocks)])
        case Figure():
            return ""


def _table(table: Table) -> str:
    lines = [_row(table.head), "|" + "".join("---|" if at < table.words else "---:|" for at in range(len(table.head)))]
    return "\n".join(lines + [_row(row) for row in table.rows])


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(_text(cell) for cell in cells)} |"


def _text(content: str) -> str:
    """One line in which nothing is markup."""
    shown = "".join(letter if letter.isprintable() else " " for letter in content)
    return _SIGNS.sub(r"\\\1", " ".join(shown.split()))


def _code(content: str, language: str) -> str:
    """A fence longer than any in the content."""
    longest = max((len(run) for run in re.findall(r"`+", content)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{content.rstrip()}\n{fence}"
