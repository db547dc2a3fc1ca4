"""People who press Ctrl-C at a moment that a test names."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from typing import TYPE_CHECKING

from kdsearch.tuning.confirm import Quiet as QuietConfirmation
from kdsearch.tuning.series import Quiet

if TYPE_CHECKING:
    from kdsearch.objective import Report
    from kdsearch.results.confirm_log import Done
    from kdsearch.tuning.trials import LiveTrial


class CtrlC(Quiet):
    """One who presses it after so many epochs of a search."""

    def __init__(self, epochs: int) -> None:
        self.epochs = epochs

    def epoch_told(self, trial: LiveTrial, report: Report) -> None:
        self.epochs -= 1
        if self.epochs == 0:
            os.kill(os.getpid(), signal.SIGINT)


class CtrlCLater(QuietConfirmation):
    """One who presses it when so much of a confirmation is done; counts what is done."""

    def __init__(self, after: int | None = None) -> None:
        self.after = after
        self.done: list[Done] = []

    @contextlib.contextmanager
    def view(self, confirmed: object) -> Iterator[QuietConfirmation]:
        yield self

    def ended(self, done: Done) -> None:
        self.done.append(done)
        if len(self.done) == self.after:
            raise KeyboardInterrupt
