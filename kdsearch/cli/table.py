"""Tables that fit the terminal: spare columns go first, then what is long moves below its line."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TypeVar

from kdsearch.cli.output import SEPARATOR, Column, Row, console, in_a_line, safe, wrapped

T = TypeVar("T")

_GAP = "  "
_INDENT = "    "
_LEAST_TEXT = 30  # columns beside the others that are worth flowing text in


@dataclass(frozen=True)
class _Grid:
    """Columns with the texts that stand in them, every cell one line."""

    columns: Sequence[Column]
    cells: Sequence[Sequence[str]]

    @cached_property
    def widths(self) -> list[int]:
        titles = [max(map(_width, lines)) for lines in self.titles]
        columns = zip(*self.cells, strict=True) if self.cells else [()] * len(self.columns)
        return [max([title, *map(_width, column)]) for title, column in zip(titles, columns, strict=True)]

    @cached_property
    def titles(self) -> list[list[str]]:
        """Each title in lines: `learning_rate` may stand as `learning_` over `rate`."""
        return [column.title.split("\n") for column in self.columns]

    @property
    def width(self) -> int:
        return sum(self.widths) + len(_GAP) * max(0, len(self.columns) - 1)

    def without(self, index: int) -> _Grid:
        return _Grid(_but(self.columns, index), [_but(row, index) for row in self.cells])


def print_table(columns: Sequence[Column], rows: Sequence[Row], text: str = "") -> None:
    """Print a table on standard output; `text` is the title over the rows' long text.

    Into a pipe every column is printed, one line a row, padded with spaces and never cut.
    """
    screen = console()
    for line, style in lay_out(columns, rows, text, screen.width, stacked=screen.is_terminal):
        screen.print(line.rstrip(), style=style or None, soft_wrap=True)


def lay_out(
    columns: Sequence[Column], rows: Sequence[Row], text: str, room: int, *, stacked: bool
) -> Iterator[tuple[str, str]]:
    """The lines of the table in `room` columns, each with its style; `stacked` titles may take several lines."""
    titled = [replace(column, title=safe(column.title)) for column in columns]
    grid = _Grid(titled, [[safe(cell) for cell in row.cells] for row in rows])
    names = list(dict.fromkeys(name for row in rows for name in row.values))
    with_values = _fit(_with_values(grid, rows, names, stacked=stacked), room, spare=2)
    values_fit = with_values.width <= room
    grid = with_values if values_fit else _fit(grid, room)
    beside = room - grid.width - len(_GAP)
    longest = max((_width(row.text) for row in rows), default=0)
    text_fits = beside >= min(longest, _LEAST_TEXT)
    for line in _header(grid, text if text_fits else ""):
        yield line, "dim"
    for row, cells in zip(rows, grid.cells, strict=True):
        flowing = wrapped(safe(row.text), beside) if text_fits else []
        for line in _beside(_line(cells, grid), flowing):
            yield line, row.style
        below = [] if values_fit else [in_a_line(f"{name} {value}" for name, value in row.values.items())]
        below += [] if text_fits else [safe(row.text)]
        for line in wrapped(SEPARATOR.join(filter(None, below)), room - len(_INDENT)):
            yield _INDENT + line, row.style


def _with_values(grid: _Grid, rows: Sequence[Row], names: Sequence[str], *, stacked: bool) -> _Grid:
    """The grid with a column for each named value."""
    added = [[safe(row.values.get(name, "")) for name in names] for row in rows]
    widest = [max((_width(row[index]) for row in added), default=0) for index in range(len(names))]
    titles = [_stacked(safe(name), width) if stacked else safe(name) for name, width in zip(names, widest, strict=True)]
    columns = [*grid.columns, *(Column(title, right=True) for title in titles)]
    return _Grid(columns, [[*cells, *more] for cells, more in zip(grid.cells, added, strict=True)])


def _stacked(name: str, width: int) -> str:
    """The name broken after underscores into lines no longer than `width` or its longest part."""
    parts = [part + "_" for part in name.split("_")[:-1]] + [name.split("_")[-1]]
    width = max(width, *map(_width, parts))
    lines = [""]
    for part in parts:
        if lines[-1] and _width(lines[-1] + part) > width:
            lines.append(part)
        else:
            lines[-1] += part
    return "\n".join(lines)


def _fit(grid: _Grid, room: int, spare: int = 1) -> _Grid:
    """The grid without its spare columns, as many as it takes to fit; those below `spare` stay."""
    while grid.width > room and any(column.spare >= spare for column in grid.columns):
        grid = grid.without(max(range(len(grid.columns)), key=lambda index: (grid.columns[index].spare, index)))
    return grid


def _header(grid: _Grid, text: str) -> Iterator[str]:
    titles = grid.titles
    height = max(map(len, titles), default=1)
    for number in range(height):
        level = [lines[number - height] if height - number <= len(lines) else "" for lines in titles]
        line = _line(level, grid)
        yield line + _GAP + text if text and number == height - 1 else line


def _line(cells: Sequence[str], grid: _Grid) -> str:
    padded = []
    for cell, width, column in zip(cells, grid.widths, grid.columns, strict=True):
        padding = " " * (width - _width(cell))
        padded.append(padding + cell if column.right else cell + padding)
    return _GAP.join(padded)


def _beside(line: str, texts: Sequence[str]) -> Iterator[str]:
    """The line with the first text to its right, and the others under that."""
    first, *more = texts or [""]
    yield line + _GAP + first
    for text in more:
        yield " " * (_width(line) + len(_GAP)) + text


def _width(text: str) -> int:
    from rich.cells import cell_len

    return cell_len(text)


def _but(items: Sequence[T], index: int) -> list[T]:
    return [*items[:index], *items[index + 1 :]]
