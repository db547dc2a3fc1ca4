"""A space as Optuna sees it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from kdsearch.auto import METHOD, applies
from kdsearch.settings import Range

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kdsearch.experiment import Experiment
    from kdsearch.settings import Scalar
    from kdsearch.space import Dimension

# `NAME_on` is False where a term that may be off (`or_zero`) is off.
SWITCH = "_on"


def distributions(experiment: Experiment, names: tuple[str, ...] | None = None) -> dict[str, BaseDistribution]:
    """Optuna's distribution of every searched hyperparameter (or of those named)."""
    known = experiment.hyperparameters
    found: dict[str, BaseDistribution] = {}
    for name, dimension in experiment.dimensions.items():
        if names is not None and name not in names:
            continue
        found[name] = _distribution(dimension, known[name].is_integer)
        if not isinstance(dimension, Range) or not dimension.or_zero:
            continue
        if experiment.search.sampler == "grid":  # off is one more point, not one for each value
            found[name] = CategoricalDistribution((0.0, *_points(found[name])))
        else:
            found[name + SWITCH] = CategoricalDistribution((True, False))
    return found


def conditions_met(found: Mapping[str, BaseDistribution], params: Mapping[str, Any]) -> dict[str, BaseDistribution]:
    """Of these the distributions that a trial with these params has: of several methods those of the one it names."""
    if METHOD not in found:
        return dict(found)
    return {name: distribution for name, distribution in found.items() if applies(name, params.get(METHOD))}


def to_hyperparameters(experiment: Experiment, params: Mapping[str, Any]) -> dict[str, Scalar]:
    """What Optuna drew, as hyperparameters: a switched-off term is 0."""
    return {
        name: params[name] if params.get(name + SWITCH, True) else 0.0
        for name in experiment.dimensions
        if name in params
    }


def to_params(
    found: Mapping[str, BaseDistribution], hyperparameters: Mapping[str, Scalar], sampler: bool = False
) -> dict[str, Any]:
    """Hyperparameters as Optuna's params; those outside their distribution are left out.

    For the sampler a switched-off term keeps a place holder at the low end, since samplers that model values need
    every parameter in every trial; the record holds the truth, which is that there was none.
    """
    params: dict[str, Any] = {}
    for name, distribution in found.items():
        if name.endswith(SWITCH) and name.removesuffix(SWITCH) in found:
            continue
        value: Any = hyperparameters.get(name)
        if name + SWITCH in found and value is not None:
            params[name + SWITCH] = value != 0
            if value == 0 and sampler:
                value = distribution.low  # type: ignore[attr-defined]
        if value is not None and _contains(distribution, value):
            params[name] = value
    return params


def grid_size(found: Mapping[str, BaseDistribution]) -> int:
    """Number of points of a finite space."""
    size = 1
    for points in grid(found).values():
        size *= len(points)
    return size


def grid(found: Mapping[str, BaseDistribution]) -> dict[str, list[Any]]:
    """The points of each distribution of a finite space."""
    return {name: _points(distribution) for name, distribution in found.items()}


def _points(distribution: BaseDistribution) -> list[Any]:
    if isinstance(distribution, CategoricalDistribution):
        return list(distribution.choices)
    assert isinstance(distribution, IntDistribution | FloatDistribution)
    step = distribution.step
    assert step is not None, "the experiment refuses a grid over a range without points"
    count = int((distribution.high - distribution.low) / step + 1e-9) + 1
    return [distribution.low + index * step for index in range(count)]


def _distribution(dimension: Dimension, integer: bool) -> BaseDistribution:
    if not isinstance(dimension, Range):
        return CategoricalDistribution(dimension.choices)
    if integer:
        step = int(dimension.step or 1)
        return IntDistribution(int(dimension.low), int(dimension.high), log=dimension.log, step=step)
    return FloatDistribution(dimension.low, dimension.high, log=dimension.log, step=dimension.step)


def _contains(distribution: BaseDistribution, value: Any) -> bool:
    try:
        return distribution._contains(distribution.to_internal_repr(value))
    except (ValueError, TypeError):
        return False
