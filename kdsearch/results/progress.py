"""How far a search has come, and when it may end."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kdsearch.results.figures import duration

if TYPE_CHECKING:
    from kdsearch.results.results import Results


@dataclass(frozen=True)
class Budget:
    """What ends a search, whichever comes first; None: no such limit."""

    trials: int | None
    seconds: float | None
    gpu_hours: float | None
    images: float | None = None
    training_time: float | None = None


@dataclass(frozen=True)
class Progress:
    """How far a search has come."""

    budget: Budget
    ended: int
    """Trials that are neither running nor still to come."""
    epochs: int
    """Epochs trained, over all trials."""
    elapsed: float | None
    """Seconds for which the search has been driven; the time between a driver's end and a resume does not count."""
    fraction: float
    """The share of the budget that is spent, in [0, 1]; of several limits the one that is nearest."""
    left: float | None
    """Seconds left at the pace so far; None when nothing can be said, or nothing is left."""


def progress(results: Results, now: float | None = None) -> Progress:
    """Where the search stands at `now` (seconds since the epoch; default: this moment)."""
    budget = _budget(results.experiment.get("search"))
    running = results.state == "RUNNING"
    until = results.ended if not running else now or time.time()
    elapsed = _elapsed(results, until)
    ended = sum(trial.state != "RUNNING" for trial in results.trials)
    spent = [
        _share(ended, budget.trials),
        _share(elapsed, budget.seconds),
        _share(results.attribute("gpu_hours"), budget.gpu_hours),
        _share(sum(trial.images or 0 for trial in results.trials), budget.images),
        _share(sum(trial.seconds for trial in results.trials), budget.training_time),
    ]
    fraction = min(1.0, max(spent))
    can_tell = running and elapsed and 0 < fraction < 1
    return Progress(
        budget=budget,
        ended=ended,
        epochs=sum(trial.epochs for trial in results.trials),
        elapsed=elapsed,
        fraction=fraction,
        left=elapsed * (1 - fraction) / fraction if can_tell and elapsed else None,
    )


def _elapsed(results: Results, until: float | None) -> float | None:
    since = _positive(results.attribute("resumed")) or results.started
    before = _positive(results.attribute("seconds_before")) or 0.0
    return None if until is None or since is None else before + max(0.0, until - since)


def budget_in_words(budget: Budget) -> str:
    """`32 trials`, `32 trials or 2 h 00 m`; `none`."""
    parts = [f"{budget.trials} trials"] if budget.trials else []
    parts += [duration(budget.seconds)] if budget.seconds else []
    parts += [f"{budget.gpu_hours:g} GPU hours"] if budget.gpu_hours else []
    parts += [f"{budget.images:,.0f} images"] if budget.images else []
    parts += [f"{duration(budget.training_time)} of training"] if budget.training_time else []
    return " or ".join(parts) or "none"


def _budget(search: Any) -> Budget:
    known = search if isinstance(search, dict) else {}
    trials = _positive(known.get("trials"))
    limits = (_positive(known.get(name)) for name in ("time", "gpu_hours", "images", "training_time"))
    return Budget(int(trials) if trials else None, *limits)


def _positive(value: Any) -> float | None:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if number and math.isfinite(value) and value > 0 else None


def _share(spent: Any, limit: float | None) -> float:
    known = _positive(spent)
    return known / limit if known and limit else 0.0
