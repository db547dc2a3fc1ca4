"""Where the seconds of a search went."""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from kdsearch.results.results import Results, Trial


@dataclass(frozen=True)
class Spending:
    """Seconds of slots: a search of one minute with two trials at a time has 120 of them."""

    slots: int
    """The most trials that ran at one time, which is what shows of the number of slots."""
    elapsed: float
    """Wall time from the start of the search to its end, or to now."""
    training: float
    """Epochs, with their validation."""
    around: float
    """Inside trials and not in their epochs: starting, checkpoints, the measurements of a finished student, and
    waiting for the driver."""
    idle: float
    """Slots without a trial: before the first one and after the last, and between trials."""
    by_state: Mapping[str, float]
    """State → training seconds of the trials that are in it."""
    first_report: float | None
    """Median seconds from a trial's start to its first report; None where nothing is known."""


def find_spending(results: Results, now: float | None = None) -> Spending | None:
    """Where the time went until `now` (seconds since the epoch; default: this moment); None before the first trial."""
    until = results.ended or now or time.time()
    spans = [(trial, trial.started, trial.ended or until) for trial in results.trials if trial.started is not None]
    if results.started is None or not spans:
        return None
    inside = sum(max(0.0, end - start) for _, start, end in spans)
    training = sum(trial.seconds for trial in results.trials)
    around = sum(max(0.0, end - start - trial.seconds) for trial, start, end in spans)
    slots, elapsed = _most_at_once((start, end) for _, start, end in spans), max(0.0, until - results.started)
    states = {trial.state for trial in results.trials}
    return Spending(
        slots=slots,
        elapsed=elapsed,
        training=training,
        around=around,
        idle=max(0.0, slots * elapsed - inside),
        by_state={state: _seconds(results.trials, state) for state in sorted(states)},
        first_report=_first_report(results.trials),
    )


def _seconds(trials: Iterable[Trial], state: str) -> float:
    return sum(trial.seconds for trial in trials if trial.state == state)


def _most_at_once(spans: Iterable[tuple[float, float]]) -> int:
    """The most spans that overlap; one that ends as another starts does not."""
    changes = sorted(change for start, end in spans for change in ((start, 1), (max(start, end), -1)))
    most = running = 0
    for _, change in changes:
        running += change
        most = max(most, running)
    return max(most, 1)


def _first_report(trials: Iterable[Trial]) -> float | None:
    waits = [
        trial.curve[0].time - trial.started
        for trial in trials
        if trial.curve and trial.curve[0].time is not None and trial.started is not None
    ]
    return statistics.median(waits) if waits else None
