"""Searchers with their schedulers, each as a user would set it up, by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from optuna.pruners import HyperbandPruner, SuccessiveHalvingPruner
from rivals import BestTenth, OptunaStudy, StockRay
from strategy import GRACE, REDUCTION, Strategy
from variants import Ahead, Foreseeing, Growing, Ours, Promoting, Told
from workloads import EPOCHS

from kdsearch.experiment import Experiment


def _kdsearch(of: Callable[..., Strategy] = Ours, **changed: Any) -> Callable[[Experiment, int], Strategy]:
    """kdsearch as the shipped spaces set it up, rungs beginning anew, with these changes."""
    return lambda experiment, seed: of(experiment, seed, **{"restarts": True, **changed})


def _alone(of: Callable[..., Strategy] = Ours, **changed: Any) -> Callable[[Experiment, int], Strategy]:
    """The same without the published setting and the control: where those are good, searching shows nothing."""
    return _kdsearch(of, **{"planned": False, **changed})


STRATEGIES: dict[str, Callable[[Experiment, int], Strategy]] = {
    "kdsearch": _kdsearch(),
    "kdsearch, sampler told of the published setting": _kdsearch(Told),
    "kdsearch, sampler told of the published setting, none at random": _kdsearch(Told, random_fraction=0),
    "kdsearch, one schedule": _kdsearch(restarts=False),
    "kdsearch, one schedule, first rung at a third": _kdsearch(restarts=False, grace_period=9),
    "search alone": _alone(),
    "search alone, one schedule": _alone(restarts=False),
    "search alone, one schedule, first rung at a third": _alone(restarts=False, grace_period=9),
    "search alone, one schedule, promoting": _alone(Promoting, restarts=False),
    "search alone, promoting": _alone(Promoting),
    "search alone, raw weights": _alone(shows="raw"),
    "search alone, better weights": _alone(shows="better"),
    "search alone, averaged weights in all": _alone(shows="averaged"),
    "search alone, first rung at a third": _alone(grace_period=9),
    "search alone, growing budget": _alone(Growing),
    "search alone, asked ahead": _alone(Ahead),
    "search alone, none at random": _alone(random_fraction=0),
    "search alone, a third at random": _alone(random_fraction=1 / 3),
    "search alone, half at random": _alone(random_fraction=0.5),
    "search alone, all at random": _alone(sampler="random"),
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
