"""Ctrl-C and SIGTERM end a search cleanly."""

from __future__ import annotations

import contextlib
import signal
import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from kdsearch.tuning.ledger import Ledger


@contextlib.contextmanager
def clean_end(ledger: Ledger, announce: Callable[[str], None]) -> Iterator[None]:
    """Inside, Ctrl-C, and SIGTERM as preempted machines get it, end the search at its trials' next reports.

    A second one ends it at once. Outside the main thread, where Python allows no handlers, nothing changes.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def handle(number: int, frame: Any) -> None:
        if ledger.interrupted:
            raise KeyboardInterrupt
        announce("ending after the running epochs; once more ends at once")
        ledger.stop(f"interrupted by {signal.Signals(number).name}", interrupted=True)

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
