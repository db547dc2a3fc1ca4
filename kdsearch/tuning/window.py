"""What TPE looks at of a long search: the best trials, the latest, and those that run."""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING

from optuna.storages import InMemoryStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

if TYPE_CHECKING:
    from collections.abc import Container

BEST = 25
"""As many trials as TPE models as the good ones, however many there are (`default_gamma` of Optuna)."""
LATEST = 400
"""Of the others TPE weighs old ones less and less; beyond so many they cost time and change little."""


class Window(InMemoryStorage):
    """A study in memory whose sampler sees a part of it, so that a new trial costs the same however many there were.

    The part depends on the trials alone, not on when they were told: a resumed search asks as one that was not ended.
    """

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        """All trials; for TPE, who asks for the running ones along with the ended, those it needs."""
        trials = super().get_all_trials(study_id, deepcopy, states)
        if states is None or TrialState.RUNNING not in states or TrialState.PRUNED not in states:
            return trials
        ended = [trial for trial in trials if trial.state != TrialState.RUNNING]
        if len(ended) <= LATEST:
            return trials
        sign = -1.0 if self.get_study_directions(study_id)[0] == StudyDirection.MAXIMIZE else 1.0
        kept = {trial.number for trial in ended[-LATEST:]} | {trial.number for trial in _best(ended, sign)}
        return [trial for trial in trials if trial.number in kept or trial.state == TrialState.RUNNING]


def _best(ended: list[FrozenTrial], sign: float) -> list[FrozenTrial]:
    """The trials that TPE takes for the good ones: complete ones by value, then stopped ones, the furthest first."""
    complete = [trial for trial in ended if trial.state == TrialState.COMPLETE]
    best = heapq.nsmallest(BEST, complete, key=lambda trial: sign * (trial.value or 0.0))
    if len(best) == BEST:
        return best
    stopped = [trial for trial in ended if trial.state == TrialState.PRUNED and trial.intermediate_values]
    return best + heapq.nsmallest(BEST - len(best), stopped, key=lambda trial: _standing(trial, sign))


def _standing(trial: FrozenTrial, sign: float) -> tuple[int, float]:
    step, value = max(trial.intermediate_values.items())
    return -step, sign * value
