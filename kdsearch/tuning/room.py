"""How many trials a search may hold now: by the person's caps, by the nodes that are there, by its share of them."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING

from kdsearch.tuning import pool

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kdsearch.search_settings import ResourceSettings
    from kdsearch.tuning.shares import Membership

LOOK = 1.0
"""Seconds between two looks at the nodes."""
LOOK_GROWTH = 30.0
"""Seconds between two looks at whether the cluster grows."""
PATIENCE = 30.0
"""Seconds that a search holds more than its share before it pauses trials, instead of waiting for some to end."""


class Room:
    """Asked before each trial; looks at the cluster once a second.

    On a cluster that grows by itself, as many trials again as now fit are asked for beyond those (but never beyond
    the caps): what Ray cannot place is what its autoscaler sees, and twice is the pace at which that grows.

    Args:
        resources: of the search.
        membership: in the shares of a cluster that others search on too; None: this search has the pool for itself.
    """

    def __init__(self, resources: ResourceSettings, membership: Membership | None = None) -> None:
        self._resources = resources
        self._membership = membership
        self._nodes = pool.alive()
        self._grows = False
        self._looked = self._looked_growth = float("-inf")
        self._running = 0
        self._over_since: float | None = None

    def look(self, running: int, out: Sequence[float], gpus: float, waiting: int) -> None:
        """See what has changed; each step of the event loop calls it.

        Args:
            running: trials that have a process.
            out: GPUs of each trial that was handed out and has not ended, those that wait for a process included.
            gpus: of the next one.
            waiting: trials that are still to be handed out.
        """
        now, self._running = time.monotonic(), running
        if now - self._looked >= LOOK:
            self._looked = now
            with contextlib.suppress(Exception):  # Ray's control store may be away: what was seen last holds
                self._nodes = pool.alive()
        if self._membership is None:
            return
        if now - self._looked_growth >= LOOK_GROWTH:
            self._looked_growth, self._grows = now, pool.grows()
        kind, size = ("GPU", gpus) if gpus else ("CPU", self._resources.cpus_per_trial)
        wanted = min(self._cap(gpus), self._fits(gpus), len(out) + waiting)
        self._membership.update(kind, size, wanted, running, sum(node.get(kind, 0.0) for node in self._nodes))
        if not self.exceeded:
            self._over_since = None
        elif self._over_since is None:
            self._over_since = now

    def admits(self, out: Sequence[float], gpus: float) -> bool:
        """Whether one more trial may be handed out."""
        max_concurrent, max_gpus = self._resources.max_concurrent, self._resources.max_gpus
        if max_concurrent is not None and len(out) >= max_concurrent:
            return False
        if max_gpus is not None and sum(out) + gpus > max_gpus + 1e-9:
            return False
        fits, share = self._fits(gpus), self._share
        beyond = fits if self._grows and not self.exceeded else 0
        return len(out) < (fits if share is None else min(fits, share)) + beyond

    @property
    def exceeded(self) -> bool:
        """Whether other searches are to have some of what this one holds."""
        return self._share is not None and self._running > self._share

    @property
    def must_pause(self) -> bool:
        """Whether it has been like that for so long that a trial is to make room before its end."""
        since = self._over_since
        return since is not None and self.exceeded and time.monotonic() - since >= PATIENCE

    @property
    def _share(self) -> int | None:
        return None if self._membership is None else self._membership.share

    def _cap(self, gpus: float) -> int:
        return pool.cap(gpus, self._resources.max_concurrent, self._resources.max_gpus)

    def _fits(self, gpus: float) -> int:
        """At least one: where no node is left, one request waits for the next."""
        return max(1, pool.fitting(self._nodes, self._resources.cpus_per_trial, gpus))
