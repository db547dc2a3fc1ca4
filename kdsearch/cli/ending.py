"""What a person sees of a search as it runs, as it ends, and as it is confirmed."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from kdsearch.cli.output import print_json, say

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

    from kdsearch.experiment import Experiment
    from kdsearch.results import Results
    from kdsearch.tuning.confirm import Watcher as Confirming
    from kdsearch.tuning.trials import Watcher


class Shown:
    """The displays of a search and of the confirmation that may follow it; `quiet` ones say nothing."""

    def __init__(self, experiment: Experiment, earlier: Results | None = None, *, quiet: bool = False) -> None:
        from kdsearch.cli.display import Display

        self._display = None if quiet else Display(experiment, earlier)

    @property
    def watchers(self) -> list[Watcher]:
        return [] if self._display is None else [self._display]

    def announce(self, sentence: str) -> None:
        if self._display is not None:
            self._display.announce(sentence)

    def __enter__(self) -> Shown:
        if self._display is not None:
            self._display.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._display is not None:
            self._display.__exit__(kind, error, traceback)

    @contextlib.contextmanager
    def confirming(self, results: Results) -> Iterator[Confirming]:
        """The display of the confirmation, below what the search has found."""
        from kdsearch.cli.confirm import Display
        from kdsearch.tuning.confirm import Quiet

        if self._display is None:
            yield Quiet()
            return
        self._display.__exit__(None, None, None)  # a terminal has room for one display that changes
        _show_found(results)
        say()
        with Display() as display:
            yield display


def show_end(results: Results) -> None:
    """The end of a search: what was found, how it compares, what to type next."""
    from kdsearch.cli.confirm import show_confirmation
    from kdsearch.cli.confirmed import confirmed_by
    from kdsearch.cli.views import show_next
    from kdsearch.results.confirm_state import CONFIRMED, confirmation_state, read_confirmation

    confirmation = confirmation_state(results) if _is_to_confirm(results) else None
    if confirmation is None:
        _show_found(results)
        say()
    if results.state == "INTERRUPTED":
        say(f"Go on with:  {_resuming(results)}", "bold", wrap=False)
    elif confirmation is None:
        show_next(results)
    elif confirmation["state"] == CONFIRMED:
        document = read_confirmation(results.folder)
        assert document is not None
        say()
        show_confirmation(results, document)
    else:
        say(f"Go on with:  {confirmed_by(results, confirmation)}", "bold", wrap=False)


def print_end(results: Results) -> None:
    """The end of a search as one JSON document: `search` is that of `best --json`, `confirmation` that of
    `confirm --json`, null while there is none."""
    from kdsearch.cli.runs import best_document
    from kdsearch.results.confirm_state import read_confirmation

    found: dict[str, Any] | None = read_confirmation(results.folder) if _is_to_confirm(results) else None
    print_json({"search": best_document(results, top=5), "confirmation": found})


def _is_to_confirm(results: Results) -> bool:
    return bool((results.experiment.get("search") or {}).get("confirm"))


def _resuming(results: Results) -> str:
    from kdsearch.cli.views import typed
    from kdsearch.consent import names_code

    return f"kdsearch resume {typed(results)}{' --allow-code' if names_code(results.experiment) else ''}"


def _show_found(results: Results) -> None:
    from kdsearch.cli.views import show_best, show_classes, show_failures, show_headline
    from kdsearch.results.documents import read_json
    from kdsearch.results.export import BEST, METRICS

    show_headline(results)
    say()
    show_best(results, top=5)
    show_failures(results)
    metrics = results.folder / BEST / METRICS
    if metrics.is_file():
        say()
        show_classes(read_json(metrics))
