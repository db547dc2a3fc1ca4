"""kdsearch and what was tried in its place."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from cube import place
from numpy.typing import NDArray
from optuna.trial import TrialState
from sklearn.ensemble import RandomForestRegressor  # type: ignore[import-untyped]
from strategy import GRACE, REDUCTION, Setting, Shows

from kdsearch.experiment import Experiment
from kdsearch.tuning.agenda import Agenda
from kdsearch.tuning.pruner import ASHA, Never, Pruner
from kdsearch.tuning.sampler import Sampler


class Ours:
    """kdsearch: the published setting and the control to the end, then its sampler and its scheduler.

    Args:
        shows: what trials show.
        planned: whether it begins with the published setting and the control.
        search: settings of the search other than the defaults.
    """

    def __init__(
        self,
        experiment: Experiment,
        seed: int,
        *,
        shows: Shows = "averaged in the last",
        planned: bool = True,
        **search: Any,
    ) -> None:
        settings = experiment.search.model_copy(update={"grace_period": GRACE, "reduction_factor": REDUCTION, **search})
        experiment = experiment.model_copy(update={"search": settings})
        self.stages, self.shows = settings.stages(experiment.training.epochs), shows
        self._rungs = settings.rungs(experiment.training.epochs)
        self._planned = [setting for _, setting in Agenda(experiment).planned] if planned else []
        self._sampler = Sampler(experiment, "max", seed)
        self._pruner: Pruner = Never()
        if settings.scheduler == "asha":
            self._pruner = ASHA(self._rungs, settings.reduction_factor, "max")

    def ask(self, number: int) -> Setting:
        return self._planned[number] if number < len(self._planned) else self._sampler.ask(number)

    def told(self, number: int, epoch: int, value: float) -> bool:
        self._sampler.tell_value(number, epoch, value)
        return self._pruner.stops(number, number, epoch, value) and number >= len(self._planned)

    def ended(self, number: int, value: float, *, complete: bool) -> None:
        self._sampler.tell_end(number, TrialState.COMPLETE if complete else TrialState.PRUNED, value)


class Told(Ours):
    """kdsearch whose sampler is told of the published setting and the control as of any other."""

    def ask(self, number: int) -> Setting:
        setting = super().ask(number)
        if number < len(self._planned):
            self._sampler.add(number, setting)
        return setting


class Ahead(Ours):
    """kdsearch that asks for the setting of a trial when the one before it begins, not when a slot falls free."""

    def __init__(self, experiment: Experiment, seed: int, **search: Any) -> None:
        super().__init__(experiment, seed, **search)
        self._next: Setting | None = None

    def ask(self, number: int) -> Setting:
        setting = super().ask(number) if self._next is None else self._next
        self._next = super().ask(number + 1) if number + 1 >= len(self._planned) else None
        return setting


class Promoting(Ours):
    """kdsearch's sampler under the promoting form of asynchronous halving (Li et al. 2020, algorithm 2).

    A trial waits at each rung; a slot that is free takes the best that waits among the top 1/η of its rung, the highest
    rung first, and only else a new setting.
    """

    def __init__(self, experiment: Experiment, seed: int, **search: Any) -> None:
        super().__init__(experiment, seed, **search)
        self._pruner = Never()
        self._at: dict[int, dict[int, float]] = {rung: {} for rung in reversed(self._rungs)}
        self._promoted: dict[int, set[int]] = {rung: set() for rung in self._at}
        self._settings: dict[int, Setting] = {}

    def _open(self) -> list[int]:
        """The rungs that trials may leave, the highest first."""
        return list(self._at)

    def ask(self, number: int) -> Setting | int:
        for rung in self._open():
            there = self._at[rung]
            ranked = sorted(there, key=lambda waits: -there[waits])
            for best in ranked[: len(ranked) // REDUCTION]:
                if best not in self._promoted[rung]:
                    self._promoted[rung].add(best)
                    return best
        self._settings[number] = super().ask(number)
        return self._settings[number]

    def told(self, number: int, epoch: int, value: float) -> bool:
        super().told(number, epoch, value)
        if epoch not in self._at or number < len(self._planned):
            return False
        self._at[epoch][number] = value
        return True

    def ended(self, number: int, value: float, *, complete: bool) -> None:
        """What goes on after it has waited is a trial of its own to the sampler, which knows no second end of one."""
        if any(number in promoted for promoted in self._promoted.values()):
            self._sampler.add(number, self._settings[number])
            if not complete:
                self._sampler.tell_value(number, self._rungs[-1], value)
        super().ended(number, value, complete=complete)


class Growing(Promoting):
    """PASHA (Bohdal et al. 2022, arXiv 2207.06940): the full budget is opened only once the second rung has ranked the
    best otherwise than the first; values that differ by less than 0.5 % count as equal."""

    EQUAL = 0.005

    def _open(self) -> list[int]:
        second, first = self._at
        high, low = self._at[second], self._at[first]
        ranked = sorted(high, key=lambda trial: -high[trial])[: max(2, len(low) // REDUCTION)]
        agree = all(
            low[better] >= low[worse] - self.EQUAL for rank, better in enumerate(ranked) for worse in ranked[rank + 1 :]
        )
        return [first] if len(high) < REDUCTION or agree else [second, first]


class Foreseeing(Ours):
    """kdsearch with halving by foreseen ends: at a rung a random forest over setting and value there, which has learnt
    from the trials that came to the end, says what the others would reach; who is not among the best third is stopped.
    """

    ENDS = 8
    """Trials that must have come to the end before the forest is asked."""

    def __init__(self, experiment: Experiment, seed: int, **search: Any) -> None:
        super().__init__(experiment, seed, **search)
        self._experiment, self._seed = experiment, seed
        self._at: dict[int, dict[int, float]] = {rung: {} for rung in self._rungs}
        self._points: dict[int, NDArray[np.float64]] = {}
        self._ends: dict[int, float] = {}

    def ask(self, number: int) -> Setting:
        setting = super().ask(number)
        self._points[number] = place(self._experiment, setting)
        return setting

    def told(self, number: int, epoch: int, value: float) -> bool:
        stops = super().told(number, epoch, value)
        if epoch not in self._at:
            return False
        there = self._at[epoch]
        there[number] = value
        if len(self._ends) < self.ENDS or number < len(self._planned):
            return stops
        foreseen = self._foreseen(there)
        return foreseen[number] < np.quantile(list(foreseen.values()), 1 - 1 / REDUCTION)

    def _foreseen(self, there: Mapping[int, float]) -> dict[int, float]:
        seen = {number: np.append(self._points[number], value) for number, value in there.items()}
        known = [number for number in seen if number in self._ends]
        forest = RandomForestRegressor(50, min_samples_leaf=2, random_state=self._seed)
        forest.fit([seen[number] for number in known], [self._ends[number] for number in known])
        return dict(zip(seen, map(float, forest.predict(list(seen.values()))), strict=True))

    def ended(self, number: int, value: float, *, complete: bool) -> None:
        super().ended(number, value, complete=complete)
        if complete:
            self._ends[number] = value
