"""Searchers with their schedulers, each as a user would set it up, behind one small interface."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, Protocol

import numpy as np
import optuna
from cube import place
from numpy.typing import NDArray
from optuna.pruners import BasePruner, HyperbandPruner, SuccessiveHalvingPruner
from optuna.trial import TrialState
from sklearn.ensemble import RandomForestRegressor  # type: ignore[import-untyped]
from workloads import EPOCHS

from kdsearch.experiment import Experiment
from kdsearch.settings import Scalar
from kdsearch.tuning.agenda import Agenda
from kdsearch.tuning.distributions import distributions
from kdsearch.tuning.pruner import ASHA, Never, Pruner
from kdsearch.tuning.sampler import Sampler

Setting = Mapping[str, Scalar]
Shows = Literal["raw", "averaged", "better", "averaged in the last"]
GRACE, REDUCTION = 3, 3


class Strategy(Protocol):
    """Asked for settings and told how they fare; trials are numbered in the order in which they are asked for."""

    shows: Shows
    """Which of its weights a trial shows the accuracy of. `better`: the higher of the two; `averaged in the last`: raw
    ones in the shorter trainings, averaged ones in the full one."""

    @property
    def stages(self) -> Sequence[int]:
        """The epochs of the trainings that a trial consists of: the full budget, or before it those of rungs at which
        it begins anew, with a schedule of that length; its epochs are counted on."""
        ...

    def ask(self, number: int) -> Setting | int | None:
        """The setting of the next trial, or one that was stopped and is to go on; None: none before another ends."""
        ...

    def told(self, number: int, epoch: int, value: float) -> bool:
        """Take the value of a trial after an epoch below the last; True ends the trial there."""
        ...

    def ended(self, number: int, value: float, *, complete: bool) -> None:
        """Take the end of a trial: at the full budget or where it was stopped, with its last value."""
        ...


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
        if number >= len(self._planned):
            return self._sampler.ask(number)
        self._sampler.add(number, self._planned[number])
        return self._planned[number]

    def told(self, number: int, epoch: int, value: float) -> bool:
        self._sampler.tell_value(number, epoch, value)
        return self._pruner.stops(number, number, epoch, value) and number >= len(self._planned)

    def ended(self, number: int, value: float, *, complete: bool) -> None:
        self._sampler.tell_end(number, TrialState.COMPLETE if complete else TrialState.PRUNED, value)


class Ahead(Ours):
    """kdsearch that asks for the setting of a trial when the one before it begins, not when a slot falls free."""

    def __init__(self, experiment: Experiment, seed: int, **search: Any) -> None:
        super().__init__(experiment, seed, **search)
        self._next: Setting | None = None

    def ask(self, number: int) -> Setting:
        setting = super().ask(number) if self._next is None else self._next
        self._next = super().ask(number + 1) if number + 1 >= len(self._planned) else None
        return setting


class Sprinkled(Ours):
    """kdsearch that draws each fourth setting at random, as BOHB does with each third (Falkner et al. 2018, arXiv
    1807.01774): the sampler cannot stay where it was lucky."""

    EACH = 4

    def __init__(self, experiment: Experiment, seed: int, **search: Any) -> None:
        super().__init__(experiment, seed, **search)
        self._random = Ours(experiment, seed, sampler="random", planned=False)

    def ask(self, number: int) -> Setting:
        if number < len(self._planned) or number % self.EACH:
            return super().ask(number)
        setting = self._random.ask(number)
        self._sampler.add(number, dict(setting))
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


class OptunaStudy:
    """Plain Optuna: its TPE with one of its pruners, as `study.optimize` drives them."""

    stages = (EPOCHS,)
    shows: Shows = "raw"

    def __init__(self, experiment: Experiment, seed: int, pruner: BasePruner) -> None:
        sampler = optuna.samplers.TPESampler(seed=seed)
        self._study = optuna.create_study(direction="maximize", sampler=sampler, pruner=pruner)
        self._distributions = distributions(experiment)
        self._trials: list[optuna.Trial] = []

    def ask(self, number: int) -> Setting:
        self._trials.append(self._study.ask(self._distributions))
        return dict(self._trials[number].params)

    def told(self, number: int, epoch: int, value: float) -> bool:
        self._trials[number].report(value, epoch)
        return self._trials[number].should_prune()

    def ended(self, number: int, value: float, *, complete: bool) -> None:
        self._study.tell(self._trials[number], value if complete else None, None if complete else TrialState.PRUNED)


class _RayTrial:
    """What Ray's scheduler looks at of a trial."""

    def __init__(self, number: int) -> None:
        self.trial_id, self.config, self.status = f"{number}", {}, "RUNNING"


class StockRay:
    """Ray Tune as documented: OptunaSearch and ASHAScheduler, the real classes without an event loop."""

    stages = (EPOCHS,)
    shows: Shows = "raw"

    def __init__(self, experiment: Experiment, seed: int) -> None:
        from ray.tune.schedulers import ASHAScheduler
        from ray.tune.search.optuna import OptunaSearch

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            space = distributions(experiment)
            self._searcher = OptunaSearch(space=space, metric="accuracy", mode="max", seed=seed)
        self._scheduler = ASHAScheduler(
            metric="accuracy",
            mode="max",
            max_t=experiment.training.epochs,
            grace_period=GRACE,
            reduction_factor=REDUCTION,
        )
        self._trials: list[_RayTrial] = []

    def ask(self, number: int) -> Setting:
        self._trials.append(_RayTrial(number))
        self._scheduler.on_trial_add(None, self._trials[number])
        found: Setting = self._searcher.suggest(f"{number}")
        return found

    def told(self, number: int, epoch: int, value: float) -> bool:
        result = {"accuracy": value, "training_iteration": epoch}
        self._searcher.on_trial_result(f"{number}", result)
        verdict: str = self._scheduler.on_trial_result(None, self._trials[number], result)
        return verdict == "STOP"

    def ended(self, number: int, value: float, *, complete: bool) -> None:
        result = {"accuracy": value, "training_iteration": 1}
        self._searcher.on_trial_complete(f"{number}", result)


class BestTenth:
    """No searcher at all: 50 random settings for one rung each, then the best tenth of them to the end, and again."""

    AT_ONCE = 50
    stages = (EPOCHS,)
    shows: Shows = "raw"

    def __init__(self, experiment: Experiment, seed: int) -> None:
        self._random = Ours(experiment, seed, sampler="random", scheduler="none", planned=False)
        self._settings: dict[int, Setting] = {}
        self._short: dict[int, float] = {}
        self._to_the_end: list[Setting] = []
        self._asked = 0

    def ask(self, number: int) -> Setting | None:
        if self._to_the_end:
            return self._to_the_end.pop()
        if self._asked == self.AT_ONCE:
            return None
        self._asked += 1
        self._settings[number] = self._random.ask(number)
        return self._settings[number]

    def told(self, number: int, epoch: int, value: float) -> bool:
        return number in self._settings and epoch >= GRACE

    def ended(self, number: int, value: float, *, complete: bool) -> None:
        if number not in self._settings:
            return
        self._short[number] = value
        if len(self._short) == self.AT_ONCE:
            ranked = sorted(self._short, key=lambda short: self._short[short], reverse=True)
            self._to_the_end = [self._settings[best] for best in ranked[: self.AT_ONCE // 10]]
            self._settings, self._short, self._asked = {}, {}, 0


def _kdsearch(of: Callable[..., Strategy] = Ours, **changed: Any) -> Callable[[Experiment, int], Strategy]:
    """kdsearch as the shipped spaces set it up, rungs beginning anew, with these changes."""
    return lambda experiment, seed: of(experiment, seed, **{"restarts": True, **changed})


def _alone(of: Callable[..., Strategy] = Ours, **changed: Any) -> Callable[[Experiment, int], Strategy]:
    """The same without the published setting and the control: where those are good, searching shows nothing."""
    return _kdsearch(of, **{"planned": False, **changed})


STRATEGIES: dict[str, Callable[[Experiment, int], Strategy]] = {
    "kdsearch": _kdsearch(),
    "kdsearch, one schedule": _kdsearch(restarts=False),
    "kdsearch, one schedule, first rung at a third": _kdsearch(restarts=False, grace_period=9),
    "search alone": _alone(),
    "search alone, one schedule": _alone(restarts=False),
    "search alone, one schedule, first rung at a third": _alone(restarts=False, grace_period=9),
    "search alone, one schedule, first rung at a third, a fourth at random": _alone(
        Sprinkled, restarts=False, grace_period=9
    ),
    "search alone, one schedule, promoting": _alone(Promoting, restarts=False),
    "search alone, promoting": _alone(Promoting),
    "search alone, raw weights": _alone(shows="raw"),
    "search alone, better weights": _alone(shows="better"),
    "search alone, averaged weights in all": _alone(shows="averaged"),
    "search alone, first rung at a third": _alone(grace_period=9),
    "search alone, growing budget": _alone(Growing),
    "search alone, asked ahead": _alone(Ahead),
    "search alone, a fourth at random": _alone(Sprinkled),
    "search alone, a fourth at random, raw weights": _alone(Sprinkled, shows="raw"),
    "search alone, random": _alone(sampler="random"),
    "search alone, CMA-ES": _alone(sampler="cmaes"),
    "search alone, GP": _alone(sampler="gp"),
    "search alone, foreseen ends": _alone(Foreseeing),
    "random + ASHA": _alone(restarts=False, sampler="random", shows="raw"),
    "OptunaSearch + ASHA (stock Ray)": StockRay,
    "Optuna TPE + successive halving": lambda experiment, seed: OptunaStudy(
        experiment, seed, SuccessiveHalvingPruner(min_resource=GRACE, reduction_factor=REDUCTION)
    ),
    "Optuna TPE + Hyperband": lambda experiment, seed: OptunaStudy(
        experiment, seed, HyperbandPruner(min_resource=GRACE, max_resource=EPOCHS, reduction_factor=REDUCTION)
    ),
    "one rung for all, a tenth to the end": BestTenth,
}
