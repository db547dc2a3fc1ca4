"""What a searcher with its scheduler is to the replay."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, Protocol

from kdsearch.settings import Scalar

Setting = Mapping[str, Scalar]
Shows = Literal["raw", "averaged", "better", "averaged in the last"]
GRACE, REDUCTION = 3, 3


class Strategy(Protocol):
    """Asked for settings and told how they fare; trials are numbered in the order in which they are asked for."""

    shows: Shows
    """Which of its weights a trial shows the accuracy of. `better`: the higher of the two; `averaged in the last`: raw
    ones in the shorter trainings, averaged ones in the full one."""

    @property
    def stages(self) -> Sequence[int]:
        """The epochs of the trainings that a trial consists of: the full budget, or before it those of rungs at which
        it begins anew, with a schedule of that length; its epochs are counted on."""
        ...

    def ask(self, number: int) -> Setting | int | None:
        """The setting of the next trial, or one that was stopped and is to go on; None: none before another ends."""
        ...

    def told(self, number: int, epoch: int, value: float) -> bool:
        """Take the value of a trial after an epoch below the last; True ends the trial there."""
        ...

    def ended(self, number: int, value: float, *, complete: bool) -> None:
        """Take the end of a trial: at the full budget or where it was stopped, with its last value."""
        ...
