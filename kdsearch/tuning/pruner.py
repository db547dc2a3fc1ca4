"""Which trials are stopped before the full budget: decisions as functions of what was told."""

from __future__ import annotations

import bisect
from functools import partial
from typing import TYPE_CHECKING, Protocol

import optuna

from kdsearch.students import STUDENT

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from kdsearch.experiment import Experiment
    from kdsearch.search_settings import SearchSettings
    from kdsearch.tuning.trials import LiveTrial


class Pruner(Protocol):
    """Decides after each epoch of a trial."""

    def stops(self, number: int, trial_id: int, epoch: int, value: float) -> bool:
        """Take the value of trial `number` after `epoch`, already told to the study; True ends the trial."""
        ...

    def learn(self, number: int, epoch: int, value: float) -> None:
        """Take a value that was told before this process began."""
        ...


class Never:
    """Every trial runs to the full budget."""

    def stops(self, number: int, trial_id: int, epoch: int, value: float) -> bool:
        return False

    def learn(self, number: int, epoch: int, value: float) -> None:
        """Nothing to remember."""


class ASHA:
    """Asynchronous successive halving, stopping type (Li et al., MLSys 2020, arXiv 1810.05934).

    A trial that reaches a rung with a value worse than the (1 − 1/η) quantile of what others brought there is stopped;
    the first arrival passes.
    """

    def __init__(self, rungs: Sequence[int], reduction_factor: int, mode: str) -> None:
        self.reduction_factor = reduction_factor
        self.sign = 1.0 if mode == "max" else -1.0
        self.rungs: dict[int, dict[int, float]] = {rung: {} for rung in rungs}
        self._scores: dict[int, list[float]] = {rung: [] for rung in self.rungs}
        """Those of each rung, rising: sorting them anew for each report would cost more with each trial."""

    def stops(self, number: int, trial_id: int, epoch: int, value: float) -> bool:
        rung = self.rungs.get(epoch)
        if rung is None:
            return False
        self.learn(number, epoch, value)
        return len(rung) > 1 and rung[number] < self._quantile_of_others(epoch, rung[number])

    def learn(self, number: int, epoch: int, value: float) -> None:
        if epoch in self.rungs and number not in self.rungs[epoch]:
            self.rungs[epoch][number] = self.sign * value
            bisect.insort(self._scores[epoch], self.sign * value)

    def _quantile_of_others(self, epoch: int, own: float) -> float:
        """The (1 − 1/η) quantile, interpolated, of the rung without one of this score."""
        scores = self._scores[epoch]
        left_out = bisect.bisect_left(scores, own)
        place = (len(scores) - 2) * (1 - 1 / self.reduction_factor)
        index = int(place)
        low, high = (scores[at + (at >= left_out)] for at in (index, min(index + 1, len(scores) - 2)))
        part = place - index
        # As numpy does it: the result is never beyond the nearer of the two, so that ties stay ties.
        return low + (high - low) * part if part < 0.5 else high - (high - low) * (1 - part)


class Apart:
    """A pruner for each group of trials: they are judged among those of their own.

    Args:
        make: makes the pruner of a group.
        group: the group of a trial, by its number.
    """

    def __init__(self, make: Callable[[], Pruner], group: Callable[[int], object]) -> None:
        self._make = make
        self._group = group
        self._pruners: dict[object, Pruner] = {}

    def stops(self, number: int, trial_id: int, epoch: int, value: float) -> bool:
        return self._own(number).stops(number, trial_id, epoch, value)

    def learn(self, number: int, epoch: int, value: float) -> None:
        self._own(number).learn(number, epoch, value)

    def _own(self, number: int) -> Pruner:
        group = self._group(number)
        if group not in self._pruners:
            self._pruners[group] = self._make()
        return self._pruners[group]


class OptunaPruner:
    """One of Optuna's pruners, asked about the record."""

    def __init__(self, study: optuna.Study, pruner: optuna.pruners.BasePruner) -> None:
        self._study = study
        self._pruner = pruner

    def stops(self, number: int, trial_id: int, epoch: int, value: float) -> bool:
        return self._pruner.prune(self._study, self._study._storage.get_trial(trial_id))

    def learn(self, number: int, epoch: int, value: float) -> None:
        """Nothing: the study itself is what the pruner reads."""


def decisions(search: SearchSettings, epochs: int) -> frozenset[int] | None:
    """Epochs after which the pruner may stop a trial; None: after each."""
    match search.scheduler:
        case "asha":
            return frozenset(search.rungs(epochs))
        case "none":
            return frozenset()
        case _:
            return None


def make_pruner(experiment: Experiment, mode: str, study: optuna.Study, trial: Callable[[int], LiveTrial]) -> Pruner:
    """The pruner that the experiment's scheduler names; `trial` finds a trial by its number.

    Of several students halving is apart for each: else only those of the largest came to the end.
    """
    search, epochs = experiment.search, experiment.training.epochs
    match search.scheduler:
        case "asha":
            asha = partial(ASHA, search.rungs(epochs), search.reduction_factor, mode)
            return Apart(asha, lambda number: trial(number).hyperparameters[STUDENT]) if experiment.students else asha()
        case "hyperband":  # Falkner et al. 2018's asynchronous form: brackets of successive halving
            return OptunaPruner(
                study, optuna.pruners.HyperbandPruner(search.grace_period, epochs, search.reduction_factor)
            )
        case "median":
            return OptunaPruner(study, optuna.pruners.MedianPruner(n_warmup_steps=search.grace_period - 1))
        case "none":
            return Never()
