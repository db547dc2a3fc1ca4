"""What a report is made of, whatever it is written in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Text:
    """A paragraph."""

    content: str
    caution: bool = False
    """Whether it says what the figures do not."""


@dataclass(frozen=True)
class Cards:
    """A few figures that matter most: label, value, remark."""

    cards: Sequence[tuple[str, str, str]]


@dataclass(frozen=True)
class Table:
    """Rows under a head; columns from the `words`-th on hold numbers."""

    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    words: int = 1
    label: str = ""
    """What it is a table of, for those who hear it."""


@dataclass(frozen=True)
class Figure:
    """Drawings side by side under one caption; a text report leaves them out."""

    drawings: Sequence[str]
    """SVG."""
    caption: str
    legend: Sequence[tuple[str, str]] = ()
    """Style of a mark, and what it means."""


@dataclass(frozen=True)
class Code:
    """Something to copy."""

    content: str
    language: str = ""


@dataclass(frozen=True)
class Details:
    """What is folded away on a page."""

    summary: str
    blocks: Sequence[Block]


Block = Text | Cards | Table | Figure | Code | Details


@dataclass(frozen=True)
class Section:
    """A titled part."""

    title: str
    blocks: Sequence[Block]
