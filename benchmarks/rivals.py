"""What a user could take in place of kdsearch, each as documented."""

from __future__ import annotations

import warnings

import optuna
from optuna.pruners import BasePruner
from optuna.trial import TrialState
from strategy import GRACE, REDUCTION, Setting, Shows
from variants import Ours
from workloads import EPOCHS

from kdsearch.experiment import Experiment
from kdsearch.tuning.distributions import distributions


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
