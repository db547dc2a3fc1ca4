"""The rungs of a search: how many trials reached each, and how well the ranking there agrees with that at the end."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from kdsearch.search_settings import SearchSettings
from kdsearch.settings import TrainingSettings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kdsearch.results.results import Results, Trial

FEWEST_RANKED = 5
"""Trials that a rank correlation needs to say anything: that of four is 1 or −1 by chance in one of twelve cases."""


@dataclass(frozen=True)
class Rung:
    """A number of epochs at which trials are compared; the last one is the full budget."""

    epoch: int
    reached: int
    """Trials that were trained so long, control and paper's setting too."""
    tau: float | None
    """Kendall's τ-b between the values here and at the end; None of the end itself, and of fewer than five trials."""
    ranked: int
    """Trials that τ is made of: those with a value here and at the end."""


def find_rungs(results: Results) -> list[Rung]:
    """The rungs from the first to the full budget; none where the experiment names no number of epochs."""
    epochs = milestones(results.experiment)
    if not epochs:
        return []
    end = epochs[-1]
    finals = {trial.number: final for trial in results.trials if (final := value_at(trial, end, end)) is not None}
    return [_rung(results, epoch, end, finals) for epoch in epochs]


def _rung(results: Results, epoch: int, end: int, finals: dict[int, float]) -> Rung:
    here = {trial.number: value for trial in results.trials if (value := value_at(trial, epoch, end)) is not None}
    both = sorted(here.keys() & finals.keys())
    known = len(both) >= FEWEST_RANKED and epoch != end
    tau = kendall_tau([here[number] for number in both], [finals[number] for number in both]) if known else None
    reached = sum(trial.epochs >= epoch for trial in results.trials)
    return Rung(epoch=epoch, reached=reached, tau=tau, ranked=len(both))


def milestones(experiment: dict[str, Any]) -> list[int]:
    """The epochs of the rungs, the full budget as the last; schedulers without rungs are looked at there too."""
    search = experiment.get("search")
    epochs = _whole(experiment.get("training"), "epochs", TrainingSettings)
    factor = _whole(search, "reduction_factor", SearchSettings)
    scheduler: Any = search.get("scheduler") if isinstance(search, dict) else None
    settings = SearchSettings.model_construct(  # without validation: a damaged experiment has a report too
        grace_period=_whole(search, "grace_period", SearchSettings) if factor > 1 else epochs,
        reduction_factor=factor,
        restarts=isinstance(search, dict) and search.get("restarts") is True,
        scheduler=scheduler,
    )
    return [*settings.rungs(epochs), settings.trial_epochs(epochs)]


def _whole(section: Any, name: str, model: Any) -> int:
    value = section.get(name) if isinstance(section, dict) else None
    if isinstance(value, int) and not isinstance(value, bool) and value > 0:
        return value
    default: int = model.model_fields[name].default
    return default


def value_at(trial: Trial, epoch: int, end: int) -> float | None:
    """The score after that epoch; at the full budget the metric of the best weights, which is what the search ranks."""
    values = (point.value for point in trial.curve if point.epoch == epoch)
    value = trial.best if epoch == end and trial.state == "COMPLETE" else next(values, None)
    return value if value is not None and math.isfinite(value) else None


def kendall_tau(first: Sequence[float], second: Sequence[float]) -> float | None:
    """Kendall's τ-b: agreement of two rankings, from −1 to 1, ties counted out; None where one of them is all ties."""
    one, other = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    agreement = untied_first = untied_second = 0
    for place in range(1, len(one)):  # a row at a time: all pairs at once would take n² of memory
        signs, others = np.sign(one[place] - one[:place]), np.sign(other[place] - other[:place])
        agreement += int(signs @ others)
        untied_first += int(np.count_nonzero(signs))
        untied_second += int(np.count_nonzero(others))
    pairs = float(untied_first) * float(untied_second)
    return agreement / pairs**0.5 if pairs else None
