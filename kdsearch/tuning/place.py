"""Where a trial keeps its files: in the run's folder, or, for a run at a URL, here and there.

A trial always writes into a plain folder. Of a run at a URL that is a scratch folder of the trial's process, whose
files go to the URL whenever the trial says that they matter; another process, on any node, brings them back.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from kdsearch.errors import LeaseLost
from kdsearch.results.copies import EVENTS
from kdsearch.results.lease import FILE as LEASE
from kdsearch.results.lease import parse
from kdsearch.results.lock import is_held
from kdsearch.tuning.folder import TRIALS, trial_folder

if TYPE_CHECKING:
    from kdsearch.results.remote import Remote

LAST = "facts.json"
"""What says that a student is there, and hence follows it."""
LOCK = ".lock"


class Place(Protocol):
    """Keeps the folders of trials."""

    def folder(self, number: int) -> Path:
        """The trial's folder in this process; it need not exist."""
        ...

    def fetch(self, number: int) -> None:
        """Have what the trial kept, in whatever process, lie in its folder. Raises StorageError."""
        ...

    def deliver(self, number: int) -> None:
        """Have what lies in the trial's folder where other processes find it. Raises StorageError, LeaseLost."""
        ...

    def leave(self, number: int) -> None:
        """This process is done with the trial."""
        ...


@dataclass(frozen=True)
class Shared:
    """The run's folder itself, which every process of the pool sees."""

    trials: str

    def folder(self, number: int) -> Path:
        return trial_folder(self.trials, number)

    def fetch(self, number: int) -> None: ...

    def deliver(self, number: int) -> None: ...

    def leave(self, number: int) -> None: ...


@dataclass
class Apart:
    """A scratch folder of this process, and the run at a URL.

    Nothing is delivered for a driver that has lost the run's lease: another one drives the trial then.
    """

    run: Remote
    owner: str
    """Under which name the driver holds the lease."""
    _scratch: str | None = None
    _sent: dict[str, tuple[int, int]] = field(default_factory=dict)
    """Size and time of the files as they were delivered."""

    def folder(self, number: int) -> Path:
        if self._scratch is None:
            self._scratch = _scratch()
        return Path(self._scratch) / f"{number:04d}"

    def fetch(self, number: int) -> None:
        (self.run / _name(number)).pull(self.folder(number), _matters)

    def deliver(self, number: int) -> None:
        folder, there = self.folder(number), self.run / _name(number)
        files = [path for path in folder.rglob("*") if path.is_file() and _matters(path.name)]
        for path in sorted(files, key=lambda path: (path.name == LAST, path)):
            found = path.stat()
            stamp = (found.st_size, found.st_mtime_ns)
            if self._sent.get(str(path)) == stamp:
                continue
            holder = parse(self.run.read(LEASE))
            if holder is None or holder.owner != self.owner:
                raise LeaseLost(f"another process took over {self.run}")
            there.write(path.relative_to(folder).as_posix(), path.read_bytes())
            self._sent[str(path)] = stamp

    def leave(self, number: int) -> None:
        shutil.rmtree(self.folder(number), ignore_errors=True)
        self._sent.clear()


def _name(number: int) -> str:
    return trial_folder(TRIALS, number).as_posix()


def _matters(name: str) -> bool:
    """Not curves, which the driver writes; not what is half written; nor the checkpoint before the last, since what
    lies at the URL is whole."""
    last = Path(name).name
    return not last.startswith((".", EVENTS)) and not last.endswith((".part", ".previous"))


def _scratch() -> str:
    """A folder of this process; those of processes that were killed on this node are removed."""
    root = Path(tempfile.gettempdir()) / f"kdsearch-trials-{os.getuid()}"
    root.mkdir(mode=0o700, exist_ok=True)
    if root.stat().st_uid != os.getuid():
        return tempfile.mkdtemp(prefix="kdsearch-trials-")
    for left in root.iterdir():
        with contextlib.suppress(OSError):  # without a lock: its process is about to make it
            if not is_held(left / LOCK):
                shutil.rmtree(left, ignore_errors=True)
    folder = tempfile.mkdtemp(dir=root)
    # Never closed: the kernel lets go of the lock when this process ends, however it ends.
    fcntl.flock(os.open(Path(folder) / LOCK, os.O_RDWR | os.O_CREAT, 0o600), fcntl.LOCK_EX)
    return folder
