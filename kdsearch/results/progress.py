"""How far a search has come, and when it may end."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from kdsearch.results.figures import duration
from kdsearch.results.storage import is_comparison

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kdsearch.results.results import Results


LIMITS = ("time", "gpu_hours", "images", "training_time")
"""The search settings that end a search, beside the number of its trials."""


@dataclass(frozen=True)
class Budget:
    """What ends a search, whichever comes first; None: no such limit."""

    trials: int | None
    seconds: float | None
    gpu_hours: float | None
    images: float | None = None
    training_time: float | None = None
    kept: Mapping[str, float] = field(default_factory=dict)
    """By the limit's name: what was kept beside it for the confirmation of the search."""


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
    budget = _budget(results)
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
    """`32 trials`, `32 trials or 2 h 00 m`; `none`. What is kept for a confirmation is said beside it."""
    limits = zip(LIMITS, (budget.seconds, budget.gpu_hours, budget.images, budget.training_time), strict=True)
    parts = [f"{budget.trials} trials"] if budget.trials else []
    parts += [amount_in_words(name, limit) for name, limit in limits if limit]
    kept = [amount_in_words(name, part) for name, part in budget.kept.items()]
    rest = f", beside {' or '.join(kept)} for the confirmation" if kept else ""
    return (" or ".join(parts) or "none") + rest


def amount_in_words(limit: str, amount: float) -> str:
    """An amount of one of the LIMITS: `2 h 00 m`, `1.5 GPU hours`, `2,000 images`, `10 m 00 s of training`."""
    if limit == "gpu_hours":
        return f"{amount:g} GPU hours"
    if limit == "images":
        return f"{amount:,.0f} images"
    return duration(amount) if limit == "time" else f"{duration(amount)} of training"


def _budget(results: Results) -> Budget:
    """What ends the search itself. The trials of a comparison's search are more than any budget pays for."""
    search, kept = results.experiment.get("search"), _kept(results.attribute("reserve"))
    known = search if isinstance(search, dict) else {}
    stated = {name: _positive(known.get(name)) for name in LIMITS}
    seconds, hours, images, training = (
        None if limit is None else max(0.0, limit - kept.get(name, 0.0)) for name, limit in stated.items()
    )
    trials = None if is_comparison(results.folder.resolve().parent) else _positive(known.get("trials"))
    return Budget(int(trials) if trials else None, seconds, hours, images, training, kept)


def _kept(reserve: Any) -> dict[str, float]:
    known = reserve if isinstance(reserve, dict) else {}
    return {name: part for name in LIMITS if (part := _positive(known.get(name))) is not None}


def _positive(value: Any) -> float | None:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if number and math.isfinite(value) and value > 0 else None


def _share(spent: Any, limit: float | None) -> float:
    known = _positive(spent)
    return known / limit if known and limit else 0.0
