"""Who drives a run at a URL: the process whose name stands in the run's `run.lease`, until the time in it has passed.

The driver renews its lease while it lives; the lease of one that crashed or was cut off runs out after LEASE_SECONDS,
by the clocks of the machines, which must agree to within some seconds. The object stays when a run has ended: it names
who drove the run last, and a working copy of that process is at least as new as what lies at the URL.

pyarrow has no conditional puts, so a lease is taken by writing it, waiting SETTLE_SECONDS and reading it back. What
that does not exclude: two processes that find the run free at the same time, where the write of one is on its way for
longer than that. Both then believe they hold it until the first renews (RENEW_SECONDS later at most), finds the other's
name, and stops writing; what it wrote until then is of the same run and settings, or of a run that had no trial yet.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kdsearch.errors import LeaseLost, RunError, StorageError
from kdsearch.files import write_atomic

if TYPE_CHECKING:
    from pathlib import Path

    from kdsearch.results.remote import Remote

FILE = "run.lease"
OWN = "run.owner"
"""In the working copy that a driver writes: the names under which it held the lease. Never leaves the machine."""
LEASE_SECONDS = 90.0
RENEW_SECONDS = 15.0
SETTLE_SECONDS = 2.0


@dataclass(frozen=True)
class Holder:
    """What a lease says."""

    owner: str
    expires: float
    """Seconds since the epoch; 0 where the owner gave it back."""

    @property
    def holds(self) -> bool:
        return time.time() < self.expires


def parse(content: bytes | None) -> Holder | None:
    """What the content of a lease says; None where there is none, or none of ours."""
    with contextlib.suppress(ValueError, TypeError, KeyError, RecursionError):
        found = json.loads(content or b"")
        return Holder(str(found["owner"]), float(found["expires"]))
    return None


def is_leased(folder: Path) -> bool:
    """Whether the lease that was copied into a folder still held a moment ago."""
    holder = parse(_content(folder / FILE))
    return holder is not None and holder.holds


def is_own(holder: Holder | None, folder: Path) -> bool:
    """Whether the last who held the lease was a driver on this machine, with this working copy."""
    return holder is not None and holder.owner in (_content(folder / OWN) or b"").decode(errors="replace").split()


def _content(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None


class Lease:
    """The right to write into a run at a URL.

    Args:
        run: where the run lies.
        copy: the working copy, whose `RunLock` the caller holds.
    """

    def __init__(self, run: Remote, copy: Path) -> None:
        self.owner = os.urandom(12).hex()
        self._run = run
        self._copy = copy
        self._expires = 0.0
        self._renewed = 0.0

    def acquire(self) -> bool:
        """Take the lease; whether the working copy is at least as new as what lies at the URL.

        It is taken at once where this working copy's driver held it: who holds the copy's lock knows that one dead.
        Raises RunError with the time until which another process holds it.
        """
        before = parse(self._run.read(FILE))
        ours = is_own(before, self._copy)
        if before is not None and before.holds and not ours:
            raise RunError(self._refusal(before))
        if before is not None and ours:  # both names: a crash from here on leaves one or the other at the URL
            write_atomic(self._copy / OWN, f"{before.owner}\n{self.owner}\n".encode())
        self._write(LEASE_SECONDS)
        time.sleep(SETTLE_SECONDS)
        now = parse(self._run.read(FILE))
        if now is None or now.owner != self.owner:
            raise RunError(self._refusal(now) if now else f"{self._run / FILE} was removed a moment ago: try again")
        return ours

    def keep(self) -> None:
        """Sign the working copy, once it is what lies at the URL, or newer."""
        write_atomic(self._copy / OWN, f"{self.owner}\n".encode())

    def renew(self, *, now: bool = False) -> None:
        """Before each write: read the lease again and prolong it, where that is due.

        A machine that slept through its lease keeps it if nobody took it. Raises LeaseLost where somebody did.
        """
        if not now and time.time() - self._renewed < RENEW_SECONDS and time.time() < self._expires:
            return
        holder = parse(self._run.read(FILE))
        if holder is None or holder.owner != self.owner:
            raise LeaseLost(f"another process took over {self._run}: this one writes nothing there any more")
        self._write(LEASE_SECONDS)

    def release(self) -> None:
        """Give the lease back, if it is still this process's."""
        with contextlib.suppress(StorageError, LeaseLost):
            self.renew(now=True)
            self._write(0)

    def _write(self, seconds: float) -> None:
        start = time.time()
        expires = start + seconds if seconds else 0.0
        self._run.write(FILE, json.dumps({"owner": self.owner, "expires": expires}).encode())
        self._expires, self._renewed = expires, start

    def _refusal(self, holder: Holder) -> str:
        until = time.strftime("%H:%M:%S", time.localtime(holder.expires))
        return (
            f"{self._run} is in use by another process, whose lease runs until {until} and is renewed while it lives: "
            "stop it first, or wait until then if it crashed"
        )
