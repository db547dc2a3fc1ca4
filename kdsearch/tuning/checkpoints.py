"""When a training's next checkpoint is due."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


class CheckpointClock:
    """Tells after an epoch whether a checkpoint is due.

    Args:
        every: epochs between two checkpoints, from 1.
        seconds: least time between two of them; 0: only epochs count.
        now: a clock that never goes back, in seconds.
    """

    def __init__(self, every: int, seconds: float, now: Callable[[], float] = time.monotonic) -> None:
        self._every, self._seconds, self._now = every, seconds, now
        self._last = now()

    def is_due(self, epoch: int) -> bool:
        """Whether to write one after this epoch, counted from 1."""
        return epoch % self._every == 0 and self._now() - self._last >= self._seconds

    def written(self) -> None:
        """One was written."""
        self._last = self._now()
