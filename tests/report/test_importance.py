"""Importance and rank correlation against Optuna's and SciPy's."""

from __future__ import annotations

import warnings

import numpy as np
import optuna
import pytest
from optuna.distributions import FloatDistribution
from scipy.stats import kendalltau  # type: ignore[import-untyped]

from kdsearch.results.report.axes import OFF, Axis, axis
from kdsearch.results.report.fanova import importances
from kdsearch.results.report.landscape import best_tenth
from kdsearch.results.report.rungs import kendall_tau
from kdsearch.results.report.surface import bands


def optunas(positions: np.ndarray, values: np.ndarray, trees: int) -> list[float]:
    names = [f"p{place}" for place in range(positions.shape[1])]
    distributions = {name: FloatDistribution(0.0, 1.0) for name in names}
    study = optuna.create_study()
    study.add_trials(
        [
            optuna.create_trial(
                params=dict(zip(names, map(float, row), strict=True)), distributions=distributions, value=value
            )
            for row, value in zip(positions, values.tolist(), strict=True)
        ]
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        evaluator = optuna.importance.FanovaImportanceEvaluator(n_trees=trees, seed=0)
        found = evaluator.evaluate(study)
    return [found[name] for name in names]


@pytest.mark.parametrize("seed", [0, 1])
def test_importance_is_that_of_optuna(seed: int) -> None:
    random = np.random.default_rng(seed)
    positions = random.random((40, 4))
    values = positions[:, 0] + 2 * positions[:, 1] * positions[:, 2] + 0.1 * random.random(40)
    ours = importances(positions, values, trees=8)
    assert ours is not None
    assert [found.share for found in ours] == pytest.approx(optunas(positions, values, 8), abs=1e-6)
    assert all(found.spread > 0 for found in ours)


def test_a_hyperparameter_that_decides_alone_has_all_the_importance() -> None:
    positions = np.random.default_rng(0).random((300, 3))
    ours = importances(positions, np.sin(6 * positions[:, 1]))
    assert ours is not None
    assert ours[1].share > 0.98
    assert ours[0].share + ours[2].share < 0.01


def test_scores_that_do_not_vary_have_no_importance() -> None:
    assert importances(np.random.default_rng(0).random((30, 2)), np.ones(30)) is None


@pytest.mark.parametrize("levels", [3, 1000])
@pytest.mark.parametrize("count", [2, 5, 60])
def test_tau_is_that_of_scipy_with_ties_and_without(levels: int, count: int) -> None:
    random = np.random.default_rng(count)
    first = random.integers(levels, size=count).astype(float)
    second = first + random.integers(levels, size=count)
    expected = kendalltau(first, second).statistic
    found = kendall_tau(first.tolist(), second.tolist())
    assert found is None if np.isnan(expected) else found == pytest.approx(expected, abs=1e-12)


def test_tau_is_one_for_the_same_ranking_and_nothing_for_a_constant() -> None:
    assert kendall_tau([1, 2, 3], [10, 20, 99]) == 1
    assert kendall_tau([1, 2, 3], [3, 2, 1]) == -1
    assert kendall_tau([1, 2, 3], [5, 5, 5]) is None


def test_positions_follow_the_way_a_range_is_searched() -> None:
    linear, log = axis("a", {"low": 2, "high": 4}), axis("a", {"low": 1, "high": 100, "log": True})
    assert linear is not None
    assert log is not None
    assert [linear.position(value) for value in (2, 3, 4, 5, True, "3", None)] == [0, 0.5, 1, None, None, None, None]
    assert [log.position(value) for value in (1, 10, 100)] == pytest.approx([0, 0.5, 1])
    off = axis("a", {"low": 1, "high": 100, "log": True, "or_zero": True})
    assert off is not None
    assert [off.position(value) for value in (0, 1, 10, 100)] == pytest.approx([OFF / 2, OFF, (1 + OFF) / 2, 1])
    assert [off.segment(place) for place in (OFF / 2, OFF, 1)] == [1, 0, 0]


def test_choices_lie_side_by_side_and_true_is_not_one() -> None:
    choices = Axis("a", choices=(1, True, "x"))
    assert [choices.position(value) for value in (1, True, "x", "y")] == [1 / 6, 3 / 6, 5 / 6, None]
    assert [choices.segment(place) for place in (0, 0.4, 1)] == [0, 1, 2]


@pytest.mark.parametrize(
    "entry", [{}, {"low": 1}, {"low": 2, "high": 1}, {"low": 0, "high": 1, "log": True}, {"low": "a", "high": "b"}]
)
def test_what_is_no_range_is_no_axis(entry: dict[str, object]) -> None:
    assert axis("a", entry) is None


def test_the_contour_is_the_mean_near_by_and_blank_where_no_trial_is() -> None:
    across, up = Axis("a"), Axis("b")
    places = np.random.default_rng(0).random((400, 2)) * [0.5, 1.0]  # nothing in the right half
    stretches, edges = bands(across, up, places, places[:, 0], 5)
    assert max(cell.right for cell in stretches) < 0.75
    for cell in stretches:
        if cell.left > 0.1 and cell.right < 0.4:  # inside, where the kernel has no edge
            middle = (cell.left + cell.right) / 2
            assert edges[cell.band] - 0.05 <= middle <= edges[cell.band + 1] + 0.05


def test_the_contour_does_not_mix_choices() -> None:
    across, up = Axis("a", choices=("x", "y")), Axis("b")
    places = np.asarray([[place, height] for place in (0.25, 0.75) for height in np.linspace(0, 1, 9)])
    stretches, edges = bands(across, up, places, (places[:, 0] > 0.5).astype(float), 4)
    assert edges == pytest.approx([0, 0.25, 0.5, 0.75, 1])
    assert {(cell.left, cell.right, cell.band) for cell in stretches} == {(0.0, 0.5, 0), (0.5, 1.0, 3)}


def test_the_best_tenth_is_one_at_least_and_follows_the_mode() -> None:
    assert best_tenth([0.1, 0.9, 0.5], "max", 20) == [1]
    assert best_tenth([0.1, 0.9, 0.5], "min", 20) == [0]
    assert best_tenth([float(value) for value in range(100)], "max", 3) == [99, 98, 97]
