"""What the search asks of anything it can tune; the Trainer is one such thing, a test's stub another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Panels = Mapping[str, Sequence[NDArray[np.uint8]]]


@dataclass(frozen=True)
class Report:
    """What one epoch brought."""

    epoch: int
    """Epochs finished, from 1."""
    value: float
    """The score that the scheduler compares and the study holds."""
    metrics: Mapping[str, float] = field(default_factory=dict)
    """Flat names to finite numbers: loss terms, learning rate, validation metrics."""
    seconds: float = 0.0
    """Time this epoch took."""
    images: int = 0
    """Images that went through the student in training: batches × batch size × the method's `forwards`."""
    panels: Panels = field(default_factory=dict)
    """At a few epochs of tasks whose output is a picture: columns of the same validation images."""


class Objective(Protocol):
    """One trial, epoch by epoch: state in, state out."""

    @property
    def history(self) -> list[Report]:
        """Every report so far, oldest first: what a checkpoint brings back."""
        ...

    def epoch(self) -> Report:
        """Train one more epoch. Raises `errors.Diverged` when a loss is no longer finite."""
        ...

    def save(self, folder: Path) -> None:
        """Write the complete state into `folder`, whole or not at all."""
        ...

    def load(self, folder: Path) -> bool:
        """Take up the state in `folder`; False when there is none."""
        ...

    def finish(self, folder: Path) -> float:
        """After the last epoch: leave in `folder` what the results need; the value of the best weights."""
        ...
