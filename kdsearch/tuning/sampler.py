"""What the sampler sees: an Optuna study in memory, apart from the record.

The record on disk tells a person what happened. A sampler wants something else of the same trials: every parameter
in each of them, a value for those that were stopped, nothing of those that run to the end whatever they are worth
(published setting and control), as ended trials count for more than stopped ones. So it gets a study of its own.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import optuna
from optuna.study import StudyDirection
from optuna.trial import TrialState, create_trial

from kdsearch.auto import METHOD
from kdsearch.tuning.distributions import conditions_met, distributions, grid, to_hyperparameters, to_params
from kdsearch.tuning.window import Window

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kdsearch.experiment import Experiment
    from kdsearch.settings import Scalar

# Samplers that model values and leave PRUNED trials out: they are told the value at the rung as if it were final.
VALUE_MODELLING = {"gp", "cmaes"}
LEARNING = {"tpe", *VALUE_MODELLING}
"""Samplers that choose by how earlier trials fared."""


class Sampler:
    """Asks Optuna for settings and tells it how they fared. The same seed and order of calls give the same settings."""

    def __init__(self, experiment: Experiment, mode: str, seed: int) -> None:
        self._experiment = experiment
        self._seed = seed
        direction = StudyDirection.MAXIMIZE if mode == "max" else StudyDirection.MINIMIZE
        sampler = optuna.samplers.RandomSampler(seed)
        self._study = optuna.create_study(storage=Window(), direction=direction, sampler=sampler)
        self._all = distributions(experiment)
        self._ids: dict[int, int] = {}
        self._common = optuna.search_space.IntersectionSearchSpace(include_pruned=True)

    def ask(self, number: int, names: tuple[str, ...] | None = None) -> dict[str, Scalar]:
        """A setting for trial `number`: of the whole space, or of the hyperparameters named."""
        wanted = self._all if names is None else distributions(self._experiment, names)
        with warnings.catch_warnings():
            # Optuna warns of what we chose: its experimental options.
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            self._study.sampler = self._make(number, wanted)
            trial = self._study.ask()
            if METHOD in wanted:  # says which of the others there are
                trial._suggest(METHOD, wanted[METHOD])
            for name, distribution in conditions_met(wanted, trial.params).items():
                trial._suggest(name, distribution)
        self._ids[number] = trial._trial_id
        setting = to_hyperparameters(self._experiment, trial.params)
        # As `add` would, so that a resumed search models the same trials: a term that is off has no drawn value.
        for name, value in to_params(wanted, setting, sampler=True).items():
            if value != trial.params[name]:
                internal = wanted[name].to_internal_repr(value)
                self._study._storage.set_trial_param(trial._trial_id, name, internal, wanted[name])
        return setting

    def add(self, number: int, hyperparameters: Mapping[str, Scalar]) -> bool:
        """A trial that was not asked for; False, and ignored, unless all of it lies inside the space."""
        params = to_params(self._all, hyperparameters, sampler=True)
        present = conditions_met(self._all, params)
        if params.keys() != present.keys():
            return False
        trial = create_trial(state=TrialState.RUNNING, params=params, distributions=present)
        self._ids[number] = self._study._storage.create_new_trial(self._study._study_id, trial)
        return True

    def tell_value(self, number: int, epoch: int, value: float) -> None:
        """An intermediate value of a running trial."""
        if number in self._ids:
            self._study._storage.set_trial_intermediate_value(self._ids[number], epoch, value)

    def tell_end(self, number: int, state: TrialState, value: float | None) -> None:
        """The end of a trial; `value` is its final value, or the last one of a stopped trial."""
        if number not in self._ids:
            return
        if state == TrialState.PRUNED and self._experiment.search.sampler in VALUE_MODELLING and value is not None:
            state = TrialState.COMPLETE
        values = None if value is None or state == TrialState.FAIL else [value]
        self._study._storage.set_trial_state_values(self._ids.pop(number), state, values)

    def _make(self, number: int, wanted: Mapping[str, Any]) -> optuna.samplers.BaseSampler:
        """A sampler seeded from (run seed, trial number): a journal holds no generator state to go on from."""
        seed = (self._seed * 1_000_003 + number) % 2**31
        samplers = optuna.samplers
        search = self._experiment.search
        if search.sampler in LEARNING and _falls_due(number, search.random_fraction):
            return samplers.RandomSampler(seed=seed)
        match search.sampler:
            case "tpe":
                conditional = METHOD in wanted  # parameters that occur together are modelled together
                made = samplers.TPESampler(seed=seed, multivariate=True, group=conditional, constant_liar=True)
                # Which parameters the trials have in common it would read out of all of them, anew for each trial.
                made._search_space = self._common
                return made
            case "random":
                return samplers.RandomSampler(seed=seed)
            case "gp":
                return samplers.GPSampler(seed=seed, warn_independent_sampling=False)
            case "cmaes":
                return samplers.CmaEsSampler(seed=seed, warn_independent_sampling=False)
            case "qmc":  # one sequence, which the whole search walks along
                return samplers.QMCSampler(
                    seed=self._seed, scramble=True, warn_asynchronous_seeding=False, warn_independent_sampling=False
                )
            case "grid":
                return samplers.GridSampler(grid(wanted), seed=self._seed)


def _falls_due(number: int, fraction: float) -> bool:
    """Whether this one, counted from 0, is among the evenly spaced that make up the fraction: known from the number
    alone, so that a resumed search draws the same ones at random."""
    return int((number + 1) * fraction) > int(number * fraction)
