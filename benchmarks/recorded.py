"""The recorded trainings of a workload as arrays, and how much settings differ beside what seeds do."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import count
from typing import TYPE_CHECKING, Any

import numpy as np
from cube import place
from record_curves import LOOKED_AT, SHORT, WEIGHTS, recorded, settings
from scipy.stats import kendalltau  # type: ignore[import-untyped]
from workloads import EPOCHS, workload

from kdsearch import data as data_sets

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

RUNGS = (*SHORT, EPOCHS)


@dataclass(frozen=True)
class Table:
    """The trainings of one workload.

    Args:
        coordinates: of the settings in the unit cube, float [settings, hyperparameters].
        looks: accuracy, first at the ends of the trainings whose full budget is a rung's, then after the epochs of the
            full one that were looked at; NaN where a setting has fewer seeds; float [weights (raw, averaged), seeds,
            settings, looks].
    """

    name: str
    coordinates: Floats
    looks: Floats

    @cached_property
    def ends(self) -> Floats:
        """The denoised end of each setting: the mean over its seeds, averaged weights, float [settings]."""
        ends: Floats = np.nanmean(self.looks[1, :, :, -1], 0)
        return ends

    @cached_property
    def seeds(self) -> NDArray[np.int64]:
        """How many seeds each setting was trained with, int [settings]: the first ones."""
        found: NDArray[np.int64] = (~np.isnan(self.looks[1, :, :, -1])).sum(0)
        return found

    @cached_property
    def better(self) -> NDArray[np.int64]:
        """The settings with several seeds: the better half by the first."""
        return np.flatnonzero(self.seeds > 1)


def read_table(name: str) -> Table | None:
    """The table of a workload; None where fewer than 20 settings have several seeds yet."""
    rows = {(row["setting"], row["seed"]): row for row in recorded(name)}
    numbers = sorted(number for number, seed in rows if seed == 0)
    seen = {number: next(seed for seed in count() if (number, seed) not in rows) for number in numbers}
    if sum(seeds > 1 for seeds in seen.values()) < 20:
        return None
    experiment = workload(name)
    images = len(data_sets.load(experiment.data, experiment.task).validation)
    looks = np.full((len(WEIGHTS), max(seen.values()), len(numbers), len(SHORT) + len(LOOKED_AT)), np.nan)
    for column, number in enumerate(numbers):
        for seed in range(seen[number]):
            for which, weights in enumerate(WEIGHTS):
                looks[which, seed, column] = _looks(rows[number, seed], which, weights)
    drawn = settings(name, max(numbers) + 1)
    places = np.array([place(experiment, drawn[number]) for number in numbers])
    return Table(name, places, looks / images)


def _looks(row: dict[str, Any], which: int, weights: str) -> list[int]:
    """A diverged training scores nothing from there on."""
    curve: list[int] = row[weights]
    ends = [row["short"][str(rung)][which] for rung in SHORT]
    return [*ends, *curve, *[0] * (len(LOOKED_AT) - len(curve))]


def facts(table: Table) -> dict[str, Any]:
    """How much the better half of the settings differ beside what seeds do, and how well each rung ranks them.

    `tau`: Kendall's τ of what the first seed shows at a rung with the mean of the other seeds' ends; at the last rung
    it is the ceiling for what any rung could reach.
    """
    found: dict[str, Any] = {
        "settings": len(table.ends),
        "seeds": f"{table.seeds.min()} to {table.seeds.max()}",
        "best": float(table.ends.max()),
        "spread": float(table.ends[table.better].std()),
    }
    ends = table.looks[1, :, table.better, -1]  # [better settings, seeds]
    found["noise"] = float(np.sqrt(np.nanvar(ends, 1, ddof=1).mean()))
    others = np.nanmean(ends[:, 1:], 1)
    for which, weights in enumerate(WEIGHTS):
        first = table.looks[which, 0, table.better]
        for rung in RUNGS:
            found[f"tau {weights} {rung}"] = tau(first[:, len(SHORT) + LOOKED_AT.index(rung)], others)
        for column, rung in enumerate(SHORT):
            found[f"tau {weights} {rung} anew"] = tau(first[:, column], others)
    return found


def tau(shown: Floats, ends: Floats) -> float:
    """Kendall's τ-b of two rankings."""
    return float(kendalltau(shown, ends).statistic)
