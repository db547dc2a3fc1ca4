"""The score over the searched hyperparameters, of every trial at one rung: few trials reach the end, and those are the
lucky ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from kdsearch.results.report.axes import Axis, axis
from kdsearch.results.report.fanova import Importance, importances
from kdsearch.results.report.rungs import milestones, value_at

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from kdsearch.results.results import Results

ENOUGH = 20
"""Trials from which on importance says more than the luck of the draw."""


class Tried(NamedTuple):
    """A trial at the rung."""

    trial: int
    value: float
    setting: tuple[Any, ...]
    """The value of each axis's hyperparameter; None where the trial has none."""


@dataclass(frozen=True)
class Landscape:
    """Scores at one rung."""

    epoch: int
    """The rung: that with the most trials, the highest of equal ones."""
    end: int
    """The full budget, in epochs."""
    axes: tuple[Axis, ...]
    """What was searched; in the order of importance where that is known."""
    tried: tuple[Tried, ...]
    """Every trial with a score there; the control is not in the space and not in here."""
    without: int
    """Trials without a score there, the control not counted."""
    importance: Mapping[str, Importance]
    """Name → share of the variance; empty where there are too few trials, or nothing varies."""
    measured: int
    """Trials that the importance is made of: those whose whole setting lies in the space."""

    @cached_property
    def positions(self) -> NDArray[np.float64]:
        """Where the trials lie on the axes, [N, D]; NaN where a value is not on its axis."""
        rows = [[ax.position(value) for ax, value in zip(self.axes, row.setting, strict=True)] for row in self.tried]
        return np.asarray(rows, dtype=np.float64).reshape(len(self.tried), len(self.axes))

    @cached_property
    def values(self) -> NDArray[np.float64]:
        """The scores, [N]."""
        return np.asarray([row.value for row in self.tried], dtype=np.float64)


def find_landscape(results: Results) -> Landscape:
    """The landscape at the rung that most trials have a score at."""
    epochs = milestones(results.experiment)
    end = epochs[-1]
    trials = [trial for trial in results.trials if trial.role != "control"]
    axes = _axes(results.experiment.get("space"))
    known = {
        epoch: [(trial, value) for trial in trials if (value := value_at(trial, epoch, end)) is not None]
        for epoch in epochs
    }
    epoch = max(epochs, key=lambda rung: (len(known[rung]), rung))
    tried = tuple(
        Tried(trial.number, value, tuple(trial.hyperparameters.get(ax.name) for ax in axes))
        for trial, value in known[epoch]
    )
    landscape = Landscape(epoch, end, tuple(axes), tried, len(trials) - len(tried), {}, 0)
    return _with_importance(landscape)


def _axes(space: Any) -> list[Axis]:
    if not isinstance(space, Mapping):
        return []
    found = [axis(str(name), entry) for name, entry in space.items() if isinstance(entry, Mapping)]
    return [one for one in found if one is not None]


def _with_importance(landscape: Landscape) -> Landscape:
    """The landscape with the importance of its axes, and these in its order."""
    positions, values = landscape.positions, landscape.values
    # Of a space with conditions an axis may be known of a few trials only; the others are compared where they are.
    usual = [place for place in range(len(landscape.axes)) if 2 * _known(positions[:, place]) > len(positions)]
    whole = ~np.isnan(positions[:, usual]).any(axis=1)
    if not usual or whole.sum() < ENOUGH:
        return landscape
    found = importances(positions[whole][:, usual], values[whole])
    if found is None:
        return landscape
    share = dict(zip((landscape.axes[place].name for place in usual), found, strict=True))
    order = sorted(
        range(len(landscape.axes)), key=lambda place: -share.get(landscape.axes[place].name, Importance(-1, 0)).share
    )
    return Landscape(
        epoch=landscape.epoch,
        end=landscape.end,
        axes=tuple(landscape.axes[place] for place in order),
        tried=tuple(row._replace(setting=tuple(row.setting[place] for place in order)) for row in landscape.tried),
        without=landscape.without,
        importance={landscape.axes[place].name: share[landscape.axes[place].name] for place in order if place in usual},
        measured=int(whole.sum()),
    )


def _known(column: NDArray[np.float64]) -> int:
    return int(np.count_nonzero(~np.isnan(column)))


def best_tenth(values: Sequence[float], mode: str, most: int) -> list[int]:
    """The places of the best tenth of the values, the best first: one at least, `most` at most."""
    sign = -1 if mode == "max" else 1
    order = sorted(range(len(values)), key=lambda place: sign * values[place])
    return order[: min(most, -(-len(values) // 10))]
