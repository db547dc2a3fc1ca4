"""What a training of any setting would show, by the recorded ones.

A Gaussian process, fitted to the recorded settings, says what to expect of a setting at every look; on top comes what
a seed of the nearest setting with several of them differed by, at all looks together. The nearest setting itself is a
poor stand-in: of a setting that is left out it ranks the end worse than the process does (`ranks`), and a searcher
that looks for the best place of a cell in which all places are the same finds nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from cube import place
from record_curves import LOOKED_AT, SHORT
from recorded import tau
from sklearn.gaussian_process import GaussianProcessRegressor  # type: ignore[import-untyped]
from sklearn.gaussian_process.kernels import ConstantKernel, Matern, WhiteKernel  # type: ignore[import-untyped]
from sklearn.model_selection import KFold, cross_val_predict  # type: ignore[import-untyped]
from sklearn.neighbors import KNeighborsRegressor  # type: ignore[import-untyped]
from workloads import EPOCHS, workload

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray
    from recorded import Floats, Table
    from strategy import Shows

    from kdsearch.settings import Scalar

ABOVE = 1.02
"""Values are modelled as log(ABOVE − accuracy): what separates good settings is then as large as what separates poor
ones."""


class Surrogate:
    """Stands for the training of any setting of a workload."""

    def __init__(self, table: Table) -> None:
        self._experiment = workload(table.name)
        self._coordinates = table.coordinates
        seeds = np.log(ABOVE - table.looks)  # [weights, seeds, settings, looks]
        means = np.nanmean(seeds, 1)
        known = table.seeds
        # The mean of n seeds takes a share 1 / n of what they differ by along.
        self._noise = (seeds - means[:, None]) * np.sqrt(known / np.maximum(known - 1, 1))[:, None]
        self._several, self._seeds = table.better, known
        targets = means.transpose(1, 0, 2).reshape(len(known), -1)  # [settings, weights × looks]
        self._shape = means.shape[0], means.shape[2]
        kernel = _process(table.coordinates.shape[1]).fit(table.coordinates, means[1, :, -1]).kernel_
        self._process = GaussianProcessRegressor(kernel, optimizer=None, normalize_y=True)
        self._process.fit(table.coordinates, targets)
        expected = ABOVE - np.exp(self._process.predict(table.coordinates))
        self._recorded: Floats = expected.reshape(-1, *self._shape)  # [settings, weights, looks]
        self.recorded_ends: Floats = self._recorded[:, 1, -1]
        """What is expected of the recorded settings, float [settings]."""
        self.best = float(self.recorded_ends.max())

    def ahead(self, good: NDArray[np.bool_]) -> dict[str, float]:
        """Which share of the recorded settings is expected to show more than one of these does, at each rung: mean over
        these, raw weights. A rung that keeps a third throws away what has more than a third ahead of it."""
        columns = {f"{rung} anew": column for column, rung in enumerate(SHORT)}
        columns |= {f"{rung}": len(SHORT) + LOOKED_AT.index(rung) for rung in (*SHORT, EPOCHS)}
        shown = {rung: self._recorded[:, 0, column] for rung, column in columns.items()}
        shares = {rung: (values[:, None] > values[good]).mean() for rung, values in shown.items()}
        return {f"ahead of the good, {rung}": float(share) for rung, share in shares.items()}

    def training(
        self, setting: Mapping[str, Scalar], random: np.random.Generator, stages: Sequence[int], shows: Shows
    ) -> tuple[Floats, float]:
        """What a trial of these trainings shows after each epoch, NaN where it is not looked at; and its expected end
        with averaged weights."""
        point = place(self._experiment, setting)
        expected = self._process.predict(point[None])[0].reshape(self._shape)  # [weights, looks]
        distances = ((self._coordinates[self._several] - point) ** 2).sum(1)
        nearest = self._several[distances.argmin()]
        noise = self._noise[:, random.integers(self._seeds[nearest]), nearest]
        raw, averaged = np.maximum(ABOVE - np.exp(expected + noise), 0.0)
        last = np.append(raw[: len(SHORT)], averaged[len(SHORT) :])
        every = {"raw": raw, "averaged": averaged, "better": np.maximum(raw, averaged), "averaged in the last": last}
        return _epochs(every[shows], stages), float(ABOVE - np.exp(expected[1, -1]))


def _epochs(shown: Floats, stages: Sequence[int]) -> Floats:
    """Looks, put at the epochs of a trial."""
    parts = [np.append(np.full(stage - 1, np.nan), shown[SHORT.index(stage)]) for stage in stages[:-1]]
    whole = np.full(EPOCHS, np.nan)
    whole[np.array(LOOKED_AT) - 1] = shown[len(SHORT) :]
    return np.concatenate([*parts, whole])


def _process(dimensions: int) -> GaussianProcessRegressor:
    """With a length of its own for each hyperparameter."""
    kernel = ConstantKernel() * Matern([1.0] * dimensions, (0.1, 30), nu=2.5) + WhiteKernel(0.05)
    return GaussianProcessRegressor(kernel, normalize_y=True)


def ranks(table: Table) -> dict[str, float]:
    """Kendall's τ between the ends of the better half and what is said of them when they are left out (ten folds), by
    the process and by the nearest setting."""
    folds = KFold(10, shuffle=True, random_state=0)
    ends = np.log(ABOVE - table.ends)
    found = {}
    for name, model in {"process": _process(table.coordinates.shape[1]), "nearest": KNeighborsRegressor(1)}.items():
        said = cross_val_predict(model, table.coordinates, ends, cv=folds)
        found[f"tau left out, {name}"] = tau(said[table.better], ends[table.better])
    return found
