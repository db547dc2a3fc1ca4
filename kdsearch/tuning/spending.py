"""What a search has spent, and whether that is all that it was given."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from kdsearch.tuning.reserve import within

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kdsearch.search_settings import SearchSettings


class Spending:
    """Counts the training of all trials against the limits of a search.

    Args:
        search: the limits.
        reserve: what of them is kept for a confirmation.
        seconds_before: how long earlier drivers drove the run.
    """

    def __init__(self, search: SearchSettings, reserve: Mapping[str, float], seconds_before: float) -> None:
        self._limits = within(search, reserve)
        self._rest = "; the rest is for the confirmation" if reserve else ""
        self._started = time.time() - seconds_before
        self._gpu_seconds = 0.0
        self._seconds = 0.0
        self._images = 0

    def add(self, seconds: float, images: int, gpus: float) -> None:
        """Some training of a trial that has this share of a GPU."""
        self._gpu_seconds += seconds * gpus
        self._seconds += seconds
        self._images += images

    @property
    def gpu_hours(self) -> float:
        """GPU hours spent on training so far."""
        return self._gpu_seconds / 3600

    def exceeded(self) -> str | None:
        """Why the search is to end; None while no limit is reached."""
        limits = self._limits
        spent = {
            f"{limits.time or 0:g} s": (time.time() - self._started, limits.time),
            f"{limits.gpu_hours or 0:g} GPU hours": (self.gpu_hours, limits.gpu_hours),
            f"{limits.images or 0:,} images": (self._images, limits.images),
            f"{limits.training_time or 0:g} s of training": (self._seconds, limits.training_time),
        }
        for budget, (amount, limit) in spent.items():
            if limit is not None and amount >= limit:
                return f"the budget of {budget} is spent{self._rest}"
        return None
