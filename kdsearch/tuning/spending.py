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
        if limits.time is not None and time.time() - self._started >= limits.time:
            return self._why(f"{limits.time:g} s")
        if limits.gpu_hours is not None and self.gpu_hours >= limits.gpu_hours:
            return self._why(f"{limits.gpu_hours:g} GPU hours")
        if limits.images is not None and self._images >= limits.images:
            return self._why(f"{limits.images:,} images")
        if limits.training_time is not None and self._seconds >= limits.training_time:
            return self._why(f"{limits.training_time:g} s of training")
        return None

    def _why(self, budget: str) -> str:
        return f"the budget of {budget} is spent{self._rest}"
