"""How many trials share a GPU, as a person sees it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kdsearch.cli.output import Column, Row, say, setting
from kdsearch.cli.table import print_table
from kdsearch.results.packing import GIB, in_words

if TYPE_CHECKING:
    from kdsearch.results.packing import KindDocument, LevelDocument, PackingDocument


def show_packing(document: PackingDocument, *, everything: bool = True, label: str = "") -> None:
    """The packing in a line, and what was measured of each kind of GPU in a table."""
    say(f"{label}{in_words(document)}")
    for kind in document["kinds"] if everything else ():
        _show_kind(kind)


def _show_kind(kind: KindDocument) -> None:
    demanding = {name: value for name, value in kind["setting"].items() if not isinstance(value, float)}
    named = f", measured with {setting(demanding)}" if demanding else ""
    say(f"{kind['gpu']}, {kind['total_memory'] / GIB:.1f} GiB{named}", "dim")
    columns = [
        Column("trials a GPU", right=True),
        Column("memory in use", right=True),
        Column("steps/s", right=True),
        Column("gain", right=True, spare=1),
    ]
    levels = kind["levels"]
    print_table(columns, [_row(level, before) for level, before in zip(levels, [None, *levels], strict=False)])
    say(f"{kind['copies']} a GPU: {kind['why']}", "dim")


def _row(level: LevelDocument, before: LevelDocument | None) -> Row:
    if level["memory"] is None or level["rate"] is None:
        return Row([str(level["copies"]), level["failure"] or "", "", ""], "dim")
    gain = f"{level['rate'] / before['rate'] - 1:+.0%}" if before is not None and before["rate"] else ""
    return Row([str(level["copies"]), f"{level['memory'] / GIB:.2f} GiB", f"{level['rate']:.4g}", gain])
