"""Intervals, probabilities and adjusted p-values against tables, scipy, and simulations whose truth is known."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import scipy.stats

from kdsearch.results.confirmation import WINNER, decide, gains, optimism, summary
from kdsearch.results.statistics import (
    Interval,
    bootstrap_ends,
    expanded_levels,
    holm,
    interval,
    p_value,
    probability_positive,
    t_ends,
    t_quantile,
)

SIX = [0.912, 0.934, 0.921, 0.948, 0.903, 0.917]


@pytest.mark.parametrize(
    ("degrees", "quantile"), [(1, 12.706), (2, 4.303), (4, 2.776), (9, 2.262), (18, 2.101), (120, 1.980)]
)
def test_quantiles_are_those_of_the_printed_table(degrees: int, quantile: float) -> None:
    assert t_quantile(0.975, degrees) == pytest.approx(quantile, abs=5e-4)


def test_the_interval_of_few_values_is_students() -> None:
    # Mean 3, s = √2.5, s/√5 = √0.5, and t of 4 degrees of freedom 2.7764.
    assert interval([1, 2, 3, 4, 5]) == Interval(
        3.0, pytest.approx(1.0368, abs=1e-4), pytest.approx(4.9632, abs=1e-4), 5
    )
    expected = scipy.stats.ttest_1samp(SIX, 0).confidence_interval(0.9)
    assert t_ends(np.array(SIX), 0.9) == pytest.approx((expected.low, expected.high), rel=1e-12)


def test_the_bootstrap_is_scipys_at_the_expanded_levels() -> None:
    values = np.random.default_rng(3).exponential(size=25)
    low, high = expanded_levels(25)
    theirs = scipy.stats.bootstrap(
        (values,), np.mean, confidence_level=high - low, n_resamples=100_000, method="percentile", rng=1
    ).confidence_interval
    ours = bootstrap_ends(values, resamples=100_000)
    assert ours == pytest.approx((theirs.low, theirs.high), abs=0.02 * values.std())
    assert ours != pytest.approx(t_ends(values), abs=0.02 * values.std())  # the skew shows


def test_expanded_levels_by_hand() -> None:
    # √(20/19) · 2.0930 = 2.1474, below which the normal distribution has all but 1.588 %.
    assert expanded_levels(20) == pytest.approx((0.01588, 1 - 0.01588), abs=1e-5)
    assert expanded_levels(10**6) == pytest.approx((0.025, 0.975), abs=1e-5)


def test_intervals_are_bootstrapped_from_20_values_on_and_the_same_every_time() -> None:
    values = np.random.default_rng(0).exponential(size=20)
    found = interval(list(values))
    assert (found.low, found.high) == bootstrap_ends(values) == bootstrap_ends(values)
    few = interval(list(values[:19]))
    assert (few.low, few.high) == t_ends(values[:19])


@pytest.mark.parametrize("values", [[0.7], [0.7, 0.7, 0.7], [0.1 + 0.2, 0.3], [0.0] * 25], ids=str)
def test_values_without_spread_claim_nothing(values: list[float]) -> None:
    assert interval(values) == Interval(values[0], None, None, len(values))
    assert probability_positive(values) is None
    assert p_value(values) is None


def test_no_values_have_no_interval() -> None:
    with pytest.raises(ValueError, match="needs values"):
        interval([])


def test_shifting_and_mirroring_an_interval() -> None:
    found = Interval(0.5, 0.4, 0.7, 5)
    assert found.shifted(1.0) == Interval(1.5, 1.4, 1.7, 5)
    assert found.shifted(1.0, -1) == Interval(0.5, pytest.approx(0.3), 0.6, 5)
    assert Interval(0.5, None, None, 1).shifted(1.0, -1) == Interval(0.5, None, None, 1)


def test_p_values_and_probabilities_are_those_of_scipys_paired_t_tests() -> None:
    others = [0.905, 0.936, 0.910, 0.921, 0.908, 0.899]
    differences = [value - other for value, other in zip(SIX, others, strict=True)]
    assert p_value(differences) == pytest.approx(scipy.stats.ttest_rel(SIX, others).pvalue)
    greater = scipy.stats.ttest_rel(SIX, others, alternative="greater").pvalue
    assert probability_positive(differences) == pytest.approx(1 - greater)


def test_the_probability_is_the_share_of_the_posterior_above_0() -> None:
    """σ² from its posterior, a scaled inverse χ², then μ given σ²: what the formula integrates."""
    differences = np.array([0.02, -0.01, 0.03, 0.01])
    random, n = np.random.default_rng(0), len(differences)
    variance = (n - 1) * differences.var(ddof=1) / random.chisquare(n - 1, size=400_000)
    means = random.normal(differences.mean(), np.sqrt(variance / n))
    assert probability_positive(list(differences)) == pytest.approx((means > 0).mean(), abs=0.003)


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.7]) == [1.0, 1.0]
    assert holm([0.03]) == [0.03]
    assert holm([]) == []


@dataclass
class World:
    """100 settings that are equally good, and noise whose size is known; part of it is the seed's, for all settings."""

    sign: int = 1
    truth: float = 0.9
    noise: float = 0.01
    settings: int = 100

    def confirmed(self, random: np.random.Generator, seeds: int) -> dict[str, Any]:
        """A search of which the best 3 are confirmed: what `kdsearch confirm` computes, by its own functions."""
        searched = self.truth + self.noise * random.normal(size=self.settings)
        order = [int(number) for number in np.argsort(-self.sign * searched) if number != 0][:3]
        deciding = self._trained(random, 3, seeds)
        values = {number: list(row) for number, row in zip(order, deciding, strict=True)}
        best = decide(order, values, self.sign)
        assert best is not None
        winner, default = self._trained(random, 2, seeds)
        reported = {WINNER: self._setting(searched[best], winner), "paper": self._setting(searched[0], default)}
        return {
            "winner": summary(list(winner)),
            "gain": gains(reported, self.sign)["paper"]["test"],
            "optimism": optimism(reported[WINNER], self.sign),
            "searched": float(searched[best]),
            "best of search": float(self.sign * (searched * self.sign).max()),
            "decided": float(np.mean(values[best])),
        }

    def _trained(self, random: np.random.Generator, settings: int, seeds: int) -> np.ndarray:
        shared, own = random.normal(size=(1, seeds)), random.normal(size=(settings, seeds))
        return self.truth + self.noise * (math.sqrt(0.3) * shared + math.sqrt(0.7) * own)

    @staticmethod
    def _setting(searched: float, values: np.ndarray) -> dict[str, Any]:
        rows = [{"seed": seed, "validation": value, "test": value} for seed, value in enumerate(values)]
        return {"search": searched, "per_seed": rows}


@pytest.mark.parametrize(("seeds", "sign"), [(5, 1), (5, -1), (20, 1)])
def test_with_100_equal_settings_the_intervals_hold_the_truth_and_the_winner_claims_nothing(
    seeds: int, sign: int
) -> None:
    world, random = World(sign), np.random.default_rng(seeds)
    found = [world.confirmed(random, seeds) for _ in range(500)]

    def covered(name: str, truth: Any) -> float:
        return float(np.mean([entry[name]["low"] <= truth(entry) <= entry[name]["high"] for entry in found]))

    assert 0.93 <= covered("winner", lambda entry: world.truth) <= 0.97
    assert 0.93 <= covered("gain", lambda entry: 0) <= 0.97
    assert 0.93 <= covered("optimism", lambda entry: sign * (entry["searched"] - world.truth)) <= 0.97
    assert np.mean([entry["gain"]["low"] > 0 for entry in found]) <= 0.05
    probabilities = [entry["gain"]["probability_better"] for entry in found]
    assert scipy.stats.kstest(probabilities, "uniform").pvalue > 0.01  # of equal settings any is as likely


def test_what_was_chosen_by_looks_better_than_it_is_and_what_is_reported_does_not() -> None:
    world, random = World(), np.random.default_rng(7)
    found = [world.confirmed(random, 5) for _ in range(2000)]

    def excess(values: list[float]) -> float:
        return (float(np.mean(values)) - world.truth) / world.noise

    assert excess([entry["best of search"] for entry in found]) == pytest.approx(2.508, abs=0.05)  # E max of 100
    # The mean of 5 has 1/√5 of the noise, 0.7 of its variance the setting's own; E max of 3 is 0.846.
    assert excess([entry["decided"] for entry in found]) == pytest.approx(0.846 * math.sqrt(0.7 / 5), abs=0.04)
    assert excess([entry["winner"]["mean"] for entry in found]) == pytest.approx(0, abs=0.04)
