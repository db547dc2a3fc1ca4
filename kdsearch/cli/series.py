"""Searches that belong together, a chain or a comparison, from the first to what came of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kdsearch.cli.output import print_json, say

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Document = dict[str, Any]


def drive(
    run: Callable[[], Document],
    folder: Path,
    show: Callable[[Document], None],
    show_next: Callable[[Path, Document], None],
    go_on: Callable[[Path], str],
    *,
    as_json: bool,
) -> None:
    """Run them and show the end; ended by Ctrl-C wherever, it says how to go on.

    Args:
        run: does it; its document.
        folder: where they lie, or will.
        show: prints the document.
        show_next: prints what may be done with one that is complete.
        go_on: the sentence with the command that goes on with the folder.
        as_json: print the document alone.
    """
    try:
        document = run()
    except KeyboardInterrupt:
        if folder.exists() and not as_json:
            say(go_on(folder), "bold", wrap=False)
        raise
    if as_json:
        print_json(document)
        return
    say()
    show(document)
    say()
    if document["state"] == "COMPLETE":
        show_next(folder, document)
    else:
        say(go_on(folder), "bold", wrap=False)
