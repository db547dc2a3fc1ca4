"""A setting as a point of the unit cube of its space."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from kdsearch.tuning.distributions import distributions

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from kdsearch.experiment import Experiment
    from kdsearch.settings import Scalar


def place(experiment: Experiment, setting: Mapping[str, Scalar]) -> NDArray[np.float64]:
    """A setting in the unit cube, float [hyperparameters]: by the logarithm where the space has it; another choice is
    as far as the whole range; what lies outside the space is at its border."""
    found: list[float] = []
    for hyperparameter, distribution in distributions(experiment).items():
        value = setting[hyperparameter]
        if isinstance(distribution, CategoricalDistribution):
            found += [float(value == choice) / np.sqrt(2) for choice in distribution.choices]
            continue
        assert isinstance(distribution, FloatDistribution | IntDistribution)
        low, high, own = float(distribution.low), float(distribution.high), float(value)
        if distribution.log:
            low, high, own = np.log(low), np.log(high), np.log(max(own, low))
        found.append(min(1.0, max(0.0, (own - low) / (high - low))))
    return np.array(found)
