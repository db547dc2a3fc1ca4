"""Who drives a run: the process that holds the lock on its `run.lock`.

The kernel lets go of the lock when the holder dies, however it dies, so a lock that nobody holds means that the run is
not being driven. The file itself stays.
"""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

from kdsearch.errors import RunError
from kdsearch.results.lease import is_leased

if TYPE_CHECKING:
    from types import TracebackType

FILE = "run.lock"
_PATIENCE = 0.5  # seconds: a reader that asks `is_locked` holds a shared lock for a moment


class RunLock:
    """The exclusive right to write into a run folder, across processes and threads. Not inherited by child programs."""

    def __init__(self, folder: str | Path) -> None:
        self.path = Path(folder) / FILE
        self._file: int | None = None

    def acquire(self) -> None:
        """Take the lock; raises `RunError` when another process (or another RunLock of this one) holds it."""
        if self._file is not None:
            raise RunError(f"run {self.path.parent.name!r} is locked by this very object already")
        file = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            self._wait_for(file)
            os.ftruncate(file, 0)
            os.pwrite(file, f"{os.getpid()}\n".encode(), 0)
        except BaseException:
            os.close(file)
            raise
        self._file = file

    def _wait_for(self, file: int) -> None:
        deadline = time.monotonic() + _PATIENCE
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                if time.monotonic() > deadline:
                    holder = os.pread(file, 20, 0).decode(errors="replace").strip()
                    raise RunError(
                        f"run {self.path.parent.name!r} is in use by process {holder or 'unknown'}: "
                        "wait until it ends, or stop it first"
                    ) from None
                time.sleep(0.02)

    def release(self) -> None:
        """Let go of the lock; harmless when it is not held."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def __enter__(self) -> RunLock:
        self.acquire()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.release()


def is_locked(folder: str | Path) -> bool:
    """Whether a living process drives the run in `folder`; needs no more than the right to read.

    Of a copy of a run at a URL: whether the lease held when it was copied, and has not run out since.
    """
    try:
        return is_held(Path(folder) / FILE)
    except FileNotFoundError:
        return is_leased(Path(folder))


def is_held(path: Path) -> bool:
    """Whether a process holds the exclusive lock on a file. Raises FileNotFoundError."""
    file = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(file)
    return False
