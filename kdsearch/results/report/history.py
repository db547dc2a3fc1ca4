"""The search as it went: the trials in the order in which they ended, and the best so far."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from kdsearch.results.results import Results


class Event(NamedTuple):
    """The end of a trial."""

    trial: int
    state: str
    ended: int
    """Trials that had ended by then, this one too."""
    epochs: int
    """Epochs of all these trials."""
    value: float | None
    """COMPLETE: the metric of its best weights; else the best score of its curve."""
    best: float | None
    """The best of the trials that had reached the full budget by then, as this one may have."""


def find_history(results: Results) -> list[Event]:
    """The ends of trials in their order; those that still run have none."""
    better = max if results.mode == "max" else min
    over = [trial for trial in results.trials if trial.state != "RUNNING"]
    over.sort(key=lambda trial: (math.inf if trial.ended is None else trial.ended, trial.number))
    events: list[Event] = []
    epochs, best = 0, None
    for ended, trial in enumerate(over, 1):
        epochs += trial.epochs
        if trial.state == "COMPLETE" and trial.best is not None:
            best = trial.best if best is None else better(best, trial.best)
        events.append(Event(trial.number, trial.state, ended, epochs, trial.best, best))
    return events
