"""Shares of a cluster that many searches run on: how many trials each of them may hold at a time.

Each driver tells a small named actor once a second what it could use and what it holds, and is answered with its fair
share. What the actor knows lives for ten seconds, so a killed driver's share returns to the others; and whoever misses
the actor makes it anew, so it may die with its node or with the driver that made it.
"""

from __future__ import annotations

import contextlib
import itertools
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

# The number belongs to what the methods take and answer: versions of kdsearch that differ in it do not meet.
NAME, NAMESPACE = "kdsearch-shares-1", "kdsearch"

BEAT = 1.0
"""Seconds between two tellings of a driver."""
EXPIRES = 10.0
"""Seconds after which a driver that tells nothing holds no share."""
ALONE = 30.0
"""Seconds without any answer after which a search goes on as if it were alone: it must not stand still."""
TURN = 300.0
"""Seconds of one slot by which a search may be ahead before another has its turn, where slots do not come out even."""


@dataclass
class Need:
    """What one search told of itself."""

    kind: str
    """What is shared: GPU, or CPU where its trials take no GPU."""
    size: float
    """What a trial takes of it."""
    wanted: int
    """Trials that it could run now."""
    held: int
    """Trials that it holds."""
    total: float
    """What the cluster has of it."""
    order: int = 0
    """Who came first."""
    served: float = 0.0
    """What it held so far, in units of `kind` times seconds; a newcomer starts at the least of the others."""
    told: float = field(default_factory=time.monotonic)


def fair_shares(needs: Mapping[str, Need]) -> dict[str, int]:
    """Trials that each search may hold: max-min fairness, all searches alike.

    Trial by trial, the next goes to the search that has least of what is shared and wants more; among those that have
    equally much, to one that is not ahead by a whole `TURN` in what it held so far, then to the one that holds more. So
    what one does not want is the others', and where there are more searches than slots, they take turns.
    """
    shares = dict.fromkeys(needs, 0)
    for kind in {need.kind for need in needs.values()}:
        members = {name: need for name, need in needs.items() if need.kind == kind}
        left, least = max(need.total for need in members.values()), min(need.served for need in members.values())
        ahead = {name: int((need.served - least) / (TURN * need.size)) for name, need in members.items()}
        while candidates := [
            (shares[name] * need.size, ahead[name], -need.held, need.order, name)
            for name, need in members.items()
            if shares[name] < need.wanted and need.size <= left + 1e-9
        ]:
            name = min(candidates)[-1]
            shares[name] += 1
            left -= members[name].size
    return shares


class Shares:
    """The actor: what the searches of a cluster told, and their shares."""

    def __init__(self) -> None:
        self._needs: dict[str, Need] = {}
        self._arrivals = itertools.count()

    def tell(self, search: str, kind: str, size: float, wanted: int, held: int, total: float) -> int:
        """Take what a search needs; its share, in trials."""
        now = time.monotonic()
        self._needs = {name: need for name, need in self._needs.items() if now - need.told < EXPIRES}
        before = self._needs.get(search)
        if before is None:
            served = min((need.served for need in self._needs.values() if need.kind == kind), default=0.0)
            order = next(self._arrivals)
        else:
            served, order = before.served + before.held * before.size * (now - before.told), before.order
        self._needs[search] = Need(kind, size, wanted, held, total, order, served, now)
        return fair_shares(self._needs)[search]

    def leave(self, search: str) -> None:
        """The search has ended."""
        self._needs.pop(search, None)

    def searches(self) -> list[str]:
        """Who takes part."""
        return list(self._needs)


class Membership:
    """A driver's part in it. Nothing here waits, and nothing that goes wrong with the actor reaches the search.

    Args:
        search: a name that no other search of the cluster has.
    """

    def __init__(self, search: str) -> None:
        self.share: int | None = 1
        """Trials that this search may hold; None: no limit is known. One, until the first answer is there."""
        self._search = search
        self._actor: Any = None
        self._answer: Any = None
        self._asked = float("-inf")
        self._heard = time.monotonic()

    def update(self, kind: str, size: float, wanted: int, held: int, total: float) -> None:
        """Take the last answer and, once in a `BEAT`, tell what this search needs."""
        now = time.monotonic()
        if self._answer is not None:
            self._collect(now)
        if self._answer is None and now - self._asked >= BEAT:
            self._asked = now
            # Between two actors, or without the control store, a call can fail in many ways: the next beat tries again.
            with contextlib.suppress(Exception):
                self._actor = self._actor or _shared_actor()
                self._answer = self._actor.tell.remote(self._search, kind, size, wanted, held, total)
        if now - self._heard > ALONE:
            self.share = None

    def _collect(self, now: float) -> None:
        import ray

        try:
            # However long it takes: who lets go of an actor that is still being started ends it.
            if ray.wait([self._answer], timeout=0)[0]:
                self.share, self._heard = ray.get(self._answer), now
                self._answer = None
        except Exception:  # the actor is gone, or its node: another one is made at the next beat
            self._actor = self._answer = None

    def leave(self) -> None:
        """Give the share back at once."""
        with contextlib.suppress(Exception):
            if self._actor is not None:
                self._actor.leave.remote(self._search)


def _shared_actor() -> Any:
    """The actor of this cluster; made where there is none. It ends with the driver that made it."""
    import ray

    remote: Any = ray.remote(Shares)
    return remote.options(name=NAME, namespace=NAMESPACE, get_if_exists=True, num_cpus=0).remote()
