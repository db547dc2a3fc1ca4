"""Learning-rate schedules as functions of the share of the full budget that is spent."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kdsearch.search_settings import SearchSettings
    from kdsearch.settings import TrainingSettings


def rate_factor(training: TrainingSettings, progress: float) -> float:
    """What the learning rate is multiplied with at `progress` ∈ [0, 1] of the full budget.

    A linear warm-up over the first `warmup` of the budget, then: cosine to 0 (Loshchilov & Hutter 2017, eq. 5, one
    period), a division at each milestone, or 1. `plateau` is 1 here: its decays depend on results (see `Plateau`).
    """
    if progress < training.warmup:
        return progress / training.warmup
    if training.schedule == "cosine":
        share = (progress - training.warmup) / (1 - training.warmup) if training.warmup < 1 else 1.0
        return 0.5 * (1 + math.cos(math.pi * share))
    if training.schedule == "step":
        return training.decay_factor ** sum(progress >= milestone for milestone in training.milestones)
    return 1.0


@dataclass
class Plateau:
    """Decay the rate when the validation score has not improved for `patience` epochs (after Keras and PyTorch)."""

    patience: int
    decay_factor: float
    best: float | None = None
    waited: int = 0
    factor: float = 1.0

    def update(self, score: float) -> None:
        """Take one epoch's score, the higher the better."""
        if self.best is None or score > self.best:
            self.best, self.waited = score, 0
            return
        self.waited += 1
        if self.waited > self.patience:
            self.factor *= self.decay_factor
            self.waited = 0


def shown_epochs(search: SearchSettings, epochs: int) -> frozenset[int]:
    """Epochs whose pictures are worth a look: the first, each rung's and the last of a budget of so many."""
    return frozenset({1, epochs, *search.rungs(epochs)})
