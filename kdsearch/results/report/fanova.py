"""Functional analysis of variance: how much of the variance of a score each hyperparameter explains by itself.

F. Hutter, H. Hoos, K. Leyton-Brown, An Efficient Approach for Assessing Hyperparameter Importance, ICML 2014: a random
forest is fitted to the trials, and the variance of its marginals is integrated exactly over the boxes of its leaves.
Optuna's `FanovaImportanceEvaluator` gives the same figures, and takes minutes for a thousand trials; this takes
a second, since all boxes of a tree are integrated at once. [ours] Positions on a log axis are what is integrated over,
as the search draws them; Optuna integrates over the values themselves.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

TREES = 64
DEEPEST = 64
MANY = 1000
"""Trials from which on a quarter of the trees says as much."""


class Importance(NamedTuple):
    """The share of the variance that a hyperparameter explains by itself, from 0 to 1, over the trees of the forest."""

    share: float
    spread: float
    """Standard deviation over the trees."""


def importances(positions: Array, values: Array, trees: int | None = None) -> list[Importance] | None:
    """The importance of each column of `positions` [N, D], in [0, 1], for `values` [N].

    What is missing to a sum of 1 is explained by hyperparameters together. None where the values do not vary.
    Needs scikit-learn, which every installation has.
    """
    from sklearn.ensemble import RandomForestRegressor  # type: ignore[import-untyped]

    count = trees or (TREES if len(values) < MANY else TREES // 4)
    forest = RandomForestRegressor(n_estimators=count, max_depth=DEEPEST, random_state=0).fit(positions, values)
    shares = [found for tree in forest.estimators_ if (found := _shares(tree.tree_, positions.shape[1])) is not None]
    if not shares:
        return None
    table = np.asarray(shares)
    return [Importance(float(mean), float(std)) for mean, std in zip(table.mean(0), table.std(0), strict=True)]


def _shares(tree: Any, dimensions: int) -> Array | None:
    """The share of a tree's variance that each dimension explains; None of a tree that is constant."""
    low, high, value = _leaves(tree, dimensions)
    widths = high - low
    weight = widths.prod(axis=1)
    mean = weight @ value
    variance = weight @ (value - mean) ** 2
    if variance <= 0:
        return None
    marginals = [
        _variance(low[:, dimension], high[:, dimension], value * weight / widths[:, dimension], mean)
        for dimension in range(dimensions)
    ]
    return np.asarray(marginals, dtype=np.float64) / float(variance)


def _variance(low: Array, high: Array, density: Array, mean: float) -> float:
    """The variance of the marginal of one dimension: a step function, to which each leaf adds over its stretch."""
    edges = np.unique(np.concatenate([low, high]))
    steps = np.zeros(len(edges))
    np.add.at(steps, np.searchsorted(edges, low), density)
    np.add.at(steps, np.searchsorted(edges, high), -density)
    marginal = np.cumsum(steps)[:-1]
    return float(np.diff(edges) @ (marginal - mean) ** 2)


def _leaves(tree: Any, dimensions: int) -> tuple[Array, Array, Array]:
    """The boxes of a tree's leaves in the unit cube: lower and upper corners [L, D], and their values [L]."""
    low, high = np.zeros((tree.node_count, dimensions)), np.ones((tree.node_count, dimensions))
    left, right, feature, threshold = tree.children_left, tree.children_right, tree.feature, tree.threshold
    for node in range(tree.node_count):  # parents come before their children
        if left[node] < 0:
            continue
        for child in (left[node], right[node]):
            low[child], high[child] = low[node], high[node]
        high[left[node], feature[node]] = low[right[node], feature[node]] = threshold[node]
    leaf = left < 0
    return low[leaf], high[leaf], tree.value[leaf, 0, 0]
