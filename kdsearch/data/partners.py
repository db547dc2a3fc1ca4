"""A partner of the same class for every image."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Partners:
    """Draws, for samples of a training set, other samples of the same class, uniformly over the whole set."""

    def __init__(self, targets: NDArray[np.int64]) -> None:
        self._targets = targets
        self._by_class = np.argsort(targets, kind="stable")
        self._counts = np.bincount(targets)
        self._first = np.cumsum(self._counts) - self._counts
        self._rank = np.empty_like(targets)
        self._rank[self._by_class] = np.arange(len(targets)) - self._first[targets[self._by_class]]
        self.alone = self._counts[targets] == 1
        """bool [N]: samples that are the only one of their class."""

    def draw(self, indices: NDArray[np.int64], random: np.random.Generator) -> NDArray[np.int64]:
        """A partner for each of `indices`; a sample that is alone in its class is its own."""
        labels = self._targets[indices]
        counts = self._counts[labels]
        steps = random.integers(1, np.maximum(counts, 2), size=indices.shape)
        return self._by_class[self._first[labels] + (self._rank[indices] + steps) % counts]
