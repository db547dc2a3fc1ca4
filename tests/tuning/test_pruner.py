"""ASHA's verdicts against its definition."""

from __future__ import annotations

import random

import hypothesis
import numpy as np
from hypothesis import strategies

from kdsearch.search_settings import SearchSettings
from kdsearch.tuning.pruner import ASHA, decisions


def survivors(values: list[float], mode: str = "max") -> list[int]:
    """Trials that one rung lets pass, arriving in order."""
    asha = ASHA([1], reduction_factor=3, mode=mode)
    return [number for number, value in enumerate(values) if not asha.stops(number, number, 1, value)]


def test_rungs_lie_at_powers_of_the_reduction_factor_below_the_full_budget() -> None:
    assert SearchSettings(grace_period=3, reduction_factor=3).rungs(27) == [3, 9]
    assert SearchSettings(grace_period=1, reduction_factor=2).rungs(9) == [1, 2, 4, 8]


def test_rungs_that_begin_anew_lie_where_their_trainings_end() -> None:
    search = SearchSettings(grace_period=3, reduction_factor=3, restarts=True)
    assert (search.stages(27), search.rungs(27), decisions(search, 27)) == ([3, 9, 27], [3, 12], frozenset({3, 12}))
    assert SearchSettings(grace_period=3).stages(27) == [27]
    # More than a third of the full training is too much to spend on a shorter one.
    assert (search.stages(26), search.rungs(26), search.trial_epochs(26)) == ([3, 26], [3, 3 + 9], 29)
    assert (search.stages(8), search.rungs(8), search.stages(3), search.rungs(3)) == ([8], [3], [3], [])
    for scheduler in ("none", "median", "hyperband"):
        other = SearchSettings(restarts=True, scheduler=scheduler)
        assert (other.stages(27), other.trial_epochs(27)) == ([27], 27), "it has no rungs to begin anew at"


def test_what_is_not_asked_for_is_written_as_before_there_was_such_a_key() -> None:
    assert not {"restarts", "random_fraction"} & SearchSettings().model_dump().keys()
    assert SearchSettings(**SearchSettings(random_fraction=0.5).model_dump()).random_fraction == 0.5
    assert SearchSettings(**SearchSettings(restarts=True).model_dump()).restarts


def test_ascending_trials_all_survive_and_descending_only_the_first() -> None:
    assert len(survivors([index / 81 for index in range(81)])) == 81
    assert survivors([1 - index / 81 for index in range(81)]) == [0]


def test_in_random_order_about_a_third_survives() -> None:
    """81 trials, reduction 3: 27 would be ideal; the optimism of early arrivals adds a few."""
    generator = random.Random(0)
    counts = [len(survivors([generator.random() for _ in range(81)])) for _ in range(200)]
    assert 27 <= np.mean(counts) <= 31


def test_a_metric_to_minimise_mirrors_the_verdicts() -> None:
    generator = random.Random(1)
    values = [generator.random() for _ in range(50)]
    assert survivors(values) == survivors([-value for value in values], mode="min")


def test_ties_pass_and_a_value_told_again_changes_nothing() -> None:
    asha = ASHA([1, 3], 3, "max")
    assert [asha.stops(number, number, 1, 0.5) for number in range(4)] == [False] * 4
    before = dict(asha.rungs[1])
    assert not asha.stops(2, 2, 1, 0.1)  # the first value stays
    assert asha.rungs[1] == before


@hypothesis.given(
    strategies.lists(
        strategies.sampled_from([0.1, 0.2, 1 / 3, 0.7]) | strategies.floats(-1, 1), min_size=2, max_size=40
    ),
    strategies.integers(2, 5),
)
def test_a_trial_is_stopped_below_the_quantile_of_what_the_others_brought(values: list[float], factor: int) -> None:
    """The verdicts against numpy's quantile over the whole list each time."""
    asha = ASHA([1], factor, "max")
    for number, value in enumerate(values):
        others = values[:number]
        expected = bool(others) and value < float(np.quantile(others, 1 - 1 / factor))
        assert asha.stops(number, number, 1, value) == expected


def test_between_rungs_nobody_is_stopped() -> None:
    asha = ASHA([3, 9], 3, "max")
    asha.stops(0, 0, 3, 0.9)
    assert not asha.stops(1, 1, 2, 0.0)
    assert asha.stops(1, 1, 3, 0.0)


def test_a_trial_waits_for_a_verdict_only_where_there_can_be_one() -> None:
    assert decisions(SearchSettings(scheduler="asha", grace_period=3), 27) == {3, 9}
    assert decisions(SearchSettings(scheduler="none"), 27) == set()
    assert decisions(SearchSettings(scheduler="median"), 27) is None
    assert decisions(SearchSettings(scheduler="hyperband"), 27) is None
