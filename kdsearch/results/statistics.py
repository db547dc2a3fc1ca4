"""What a few seeds can tell: intervals of a mean, and how sure a difference is. Numbers in, numbers out."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

LEVEL = 0.95
BOOTSTRAP_FROM = 20
"""Values from which on an interval is bootstrapped; fewer say too little about the shape of their distribution."""
RESAMPLES = 9_999


@dataclass(frozen=True)
class Interval:
    """A mean and the interval that holds the true one."""

    mean: float
    low: float | None
    """None, as `high`, where there is no spread to judge by: of a single value, and of values that are all equal."""
    high: float | None
    count: int
    """How many values it is made of."""

    def shifted(self, by: float, sign: int = 1) -> Interval:
        """That of `by + sign · value`; `sign` is 1 or −1."""
        ends = [None if end is None else by + sign * end for end in (self.low, self.high)]
        low, high = ends if sign > 0 else reversed(ends)
        return Interval(by + sign * self.mean, low, high, self.count)


def interval(values: Sequence[float], level: float = LEVEL) -> Interval:
    """The mean of independent values with its two-sided confidence interval.

    Student's t below 20 values, the expanded percentile bootstrap from there on. Raises ValueError without values.
    """
    if not values:
        raise ValueError("an interval needs values")
    known = np.asarray(values, dtype=np.float64)
    if not _has_spread(known):
        return Interval(float(known[0]), None, None, len(known))
    low, high = (bootstrap_ends if len(known) >= BOOTSTRAP_FROM else t_ends)(known, level)
    return Interval(float(known.mean()), low, high, len(known))


def t_ends(values: NDArray[np.float64], level: float = LEVEL) -> tuple[float, float]:
    """Mean ± t · s / √n, t being the quantile of Student's t with n − 1 degrees of freedom; exact for normal values."""
    half = t_quantile((1 + level) / 2, len(values) - 1) * _standard_error(values)
    return float(values.mean()) - half, float(values.mean()) + half


def bootstrap_ends(
    values: NDArray[np.float64], level: float = LEVEL, resamples: int = RESAMPLES
) -> tuple[float, float]:
    """The expanded percentile bootstrap interval of the mean; the same values give the same interval.

    Quantiles of the means of samples drawn with replacement, at the levels Φ(± √(n / (n − 1)) · t) instead of
    Φ(± z): T. Hesterberg, What Teachers Should Know about the Bootstrap, The American Statistician 69 (2015).
    [ours] The plain percentiles of 20 normal values cover 93 % instead of 95 %, these 95 %. BCa is 0.6 points nearer
    for exponential values, and 3 points further away for heavy tails (t with 3 degrees of freedom: 91 %).
    """
    count = len(values)
    random = np.random.default_rng(0)
    means = values[random.integers(count, size=(resamples, count))].mean(axis=1)
    low, high = np.quantile(means, expanded_levels(count, level))
    return float(low), float(high)


def expanded_levels(count: int, level: float = LEVEL) -> tuple[float, float]:
    """The quantiles of a bootstrap distribution that bound an interval of `count` values."""
    from scipy.special import ndtr  # type: ignore[import-untyped]

    z = math.sqrt(count / (count - 1)) * t_quantile((1 + level) / 2, count - 1)
    return float(ndtr(-z)), float(ndtr(z))


def t_quantile(probability: float, degrees: int) -> float:
    """The value below which Student's t with so many degrees of freedom is with this probability."""
    from scipy.special import stdtrit

    return float(stdtrit(degrees, probability))


def probability_positive(differences: Sequence[float]) -> float | None:
    """The probability that the true mean of paired differences is above 0; None where they show no spread.

    From the posterior of the mean of normal values under the flat prior p(μ, σ) ∝ 1/σ: (μ − d̄) / (s/√n) is Student's
    t with n − 1 degrees of freedom (Gelman et al., Bayesian Data Analysis, 3rd edition, section 3.2).
    """
    from scipy.special import stdtr

    known = np.asarray(differences, dtype=np.float64)
    return float(stdtr(len(known) - 1, known.mean() / _standard_error(known))) if _has_spread(known) else None


def p_value(differences: Sequence[float]) -> float | None:
    """That of the two-sided paired t test, which asks whether the true mean is 0; None where they show no spread."""
    from scipy.special import stdtr

    known = np.asarray(differences, dtype=np.float64)
    if not _has_spread(known):
        return None
    return float(2 * stdtr(len(known) - 1, -abs(known.mean()) / _standard_error(known)))


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values adjusted for how many there are (S. Holm, Scandinavian Journal of Statistics 6, 1979), in their order.

    The smallest of m is multiplied by m, the next by m − 1 and so on; none becomes smaller than one before it, nor
    larger than 1.
    """
    adjusted, largest = [0.0] * len(p_values), 0.0
    for place, index in enumerate(sorted(range(len(p_values)), key=lambda index: p_values[index])):
        largest = max(largest, min(1.0, (len(p_values) - place) * p_values[index]))
        adjusted[index] = largest
    return adjusted


def _has_spread(values: NDArray[np.float64]) -> bool:
    """Whether the values differ by more than rounding. A few that do not, of a metric that counts images, are luck."""
    return len(values) > 1 and float(np.ptp(values)) > 1e-12 * max(1.0, float(np.abs(values).max()))


def _standard_error(values: NDArray[np.float64]) -> float:
    return float(values.std(ddof=1)) / math.sqrt(len(values))
