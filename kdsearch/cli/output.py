"""How the commands speak: rich on a terminal, plain lines into a pipe or a file, one JSON document for scripts."""

from __future__ import annotations

import sys
import textwrap
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from kdsearch.results.figures import duration as duration
from kdsearch.results.figures import ends as ends
from kdsearch.results.figures import gain as gain
from kdsearch.results.figures import number as number
from kdsearch.results.figures import score as score

SEPARATOR = " · "
_UNBROKEN = "\N{NO-BREAK SPACE}"

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from rich.console import Console

WIDE = 1_000_000  # columns: no line of a pipe is ever cut or wrapped


@dataclass(frozen=True)
class Column:
    """A column of a table."""

    title: str
    right: bool = False
    """Numbers stand to the right."""
    spare: int = 0
    """Above 0 the column is left out where the terminal is too narrow, the highest first; 1: as the last resort."""


@dataclass(frozen=True)
class Row:
    """A line of a table."""

    cells: Sequence[str]
    """A text for each column."""
    style: str = ""
    values: Mapping[str, str] = field(default_factory=dict)
    """Named values: columns of their own where they fit, else a line below."""
    text: str = ""
    """Long text: flows beside the columns where there is room, else below."""


def console(*, stderr: bool = False) -> Console:
    """A console on standard output (or error); its `is_terminal` tells whether a person looks on."""
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    encoding = getattr(stream, "encoding", None) or "utf-8"
    if "utf" not in encoding.lower() and hasattr(stream, "reconfigure"):
        stream.reconfigure(errors="replace")  # a '·' that the terminal cannot show is no reason to fail
    found = Console(file=stream, highlight=False, markup=False, emoji=False, soft_wrap=False)
    if not found.is_terminal:
        found.width = WIDE
    return found


def say(text: str = "", style: str = "", *, wrap: bool = True) -> None:
    """A line for people; control characters in it are made visible, never obeyed.

    `wrap=False` leaves long lines to the terminal: a command that is to be copied holds no line breaks.
    """
    console().print(safe(text), style=style or None, soft_wrap=not wrap)


def say_parts(parts: Iterable[str], style: str = "") -> None:
    """Parts in a line, `a · b · c`, which breaks between parts only."""
    for line in wrapped(in_a_line(parts), console().width):
        say(line, style, wrap=False)


def in_a_line(parts: Iterable[str]) -> str:
    """Parts joined by the separator, so that `wrapped` breaks between them and never inside one."""
    return SEPARATOR.replace(" ", _UNBROKEN, 1).join(safe(part).replace(" ", _UNBROKEN) for part in parts)


def wrapped(text: str, room: int) -> list[str]:
    """The text in lines of at most `room` columns; a longer word stays whole."""
    lines = textwrap.wrap(text, max(room, 10), break_long_words=False, break_on_hyphens=False)
    return [line.replace(_UNBROKEN, " ") for line in lines]


def print_json(document: Mapping[str, Any]) -> None:
    """One JSON document and nothing else on standard output."""
    from kdsearch.results.documents import to_json

    sys.stdout.write(to_json(document))
    sys.stdout.flush()


def safe(text: str) -> str:
    """The text in one line with control characters (a terminal would obey them) shown as \\x1b and the like."""
    return "".join(character if character.isprintable() else repr(character)[1:-1] for character in text)


def setting(hyperparameters: Mapping[str, Any], names: Sequence[str] = ()) -> str:
    """A setting in one line: `temperature 4 · alpha 0.9`; of all its values, or of `names` that it has."""
    return SEPARATOR.join(f"{name} {value}" for name, value in values(hyperparameters, names).items())


def values(hyperparameters: Mapping[str, Any], names: Sequence[str] = ()) -> dict[str, str]:
    """The values of a setting as text: of all it has, or of `names` that it has."""
    shown = [name for name in names if name in hyperparameters] or list(hyperparameters)
    return {name: number(hyperparameters[name]) for name in shown}
