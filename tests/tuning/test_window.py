"""What TPE sees of a long search, against a sort of all of it."""

from __future__ import annotations

import random

import optuna
import pytest
from optuna.distributions import FloatDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial

from kdsearch.tuning.window import BEST, LATEST, Window

ASKED = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.RUNNING)
SPACE = {"temperature": FloatDistribution(1, 20)}


def study_of(complete: int, stopped: int, running: int = 3, direction: str = "maximize") -> optuna.Study:
    """A study in random order, the running trials last."""
    draw = random.Random(0)
    study = optuna.create_study(storage=Window(), direction=direction)
    for state in draw.sample([TrialState.COMPLETE] * complete + [TrialState.PRUNED] * stopped, complete + stopped):
        steps = 9 if state == TrialState.COMPLETE else draw.choice([1, 3])
        values = {step: draw.random() for step in range(1, steps + 1)}
        study.add_trial(
            create_trial(
                state=state,
                value=values[steps] if state == TrialState.COMPLETE else None,
                params={"temperature": draw.uniform(1, 20)},
                distributions=dict(SPACE),
                intermediate_values=values,
            )
        )
    for _ in range(running):
        study.ask(dict(SPACE))
    return study


def seen(study: optuna.Study) -> list[FrozenTrial]:
    return study._storage.get_all_trials(study._study_id, deepcopy=False, states=ASKED)


@pytest.mark.parametrize("direction", ["maximize", "minimize"])
@pytest.mark.parametrize(("complete", "stopped"), [(100, 1000), (10, 1000)])
def test_the_best_the_latest_and_the_running_are_seen(complete: int, stopped: int, direction: str) -> None:
    study = study_of(complete, stopped, direction=direction)
    found = seen(study)
    numbers = [trial.number for trial in found]
    assert numbers == sorted(numbers)
    assert LATEST + 3 <= len(found) <= LATEST + BEST + 3
    assert {*range(complete + stopped - LATEST, complete + stopped + 3)} <= set(numbers)
    # As Optuna splits them: complete ones by value, then stopped ones, those that came furthest first.
    below, _ = optuna.samplers._tpe.sampler._split_trials(study, study.get_trials(deepcopy=False), BEST)
    assert {trial.number for trial in below} <= set(numbers)
    assert optuna.samplers._tpe.sampler._split_trials(study, found, BEST)[0] == below


def test_a_search_that_is_not_long_is_seen_whole_and_so_is_any_by_others_than_tpe() -> None:
    assert len(seen(study_of(LATEST // 2, LATEST // 2))) == LATEST + 3
    study = study_of(100, 1000)
    assert len(study.get_trials(deepcopy=False)) == 1103
    assert len(study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))) == 100
