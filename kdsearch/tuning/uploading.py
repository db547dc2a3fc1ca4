"""The time for which a driver holds a run at a URL: lease, fetch, send, give back."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from kdsearch.errors import KDSearchError, LeaseLost, StorageBehind, StorageError
from kdsearch.results.copies import TRIALS, is_drivers
from kdsearch.results.lease import Lease
from kdsearch.results.lock import FILE as LOCK
from kdsearch.results.results import EXPERIMENT
from kdsearch.tuning.upload import Upload

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from kdsearch.results.remote import Remote


@contextlib.contextmanager
def uploading(
    folder: Path, remote: Remote | None, announce: Callable[[str], None], *, new: bool = False
) -> Iterator[Upload | None]:
    """Inside, the run in `folder`, whose RunLock the caller holds, is sent to its storage at a URL; None: to nowhere.

    A run that goes on is fetched first, unless this machine's copy is the newest. Of a new one that ends before its
    first trial nothing stays at the URL. Raises RunError while another process drives the run, StorageError when the
    storage cannot be used, and at the end what `Upload.finish` raises.
    """
    if remote is None:
        yield None
        return
    run = remote / folder.name
    lease = Lease(run, folder)
    newest = lease.acquire()
    try:
        if not new and not newest:
            fetch_anew(run, folder)
        lease.keep()
        upload = Upload(folder, run, lease, announce)
        upload.start()
        try:
            yield upload
        except Exception as error:
            upload.abandon()
            if not new or (folder / TRIALS).exists():
                _finish_after(upload, error, announce)
            raise
        except BaseException:
            upload.abandon()
            raise
        upload.finish()
    except BaseException:
        if new and not (folder / TRIALS).exists():
            with contextlib.suppress(KDSearchError):
                lease.renew(now=True)  # else it is another's
                run.remove()
        raise


def _finish_after(upload: Upload, error: Exception, announce: Callable[[str], None]) -> None:
    """Send the rest of a run that ended with an error, which is what the person is to read."""
    if isinstance(error, LeaseLost | StorageBehind):
        return
    try:
        upload.finish()
    except KDSearchError as further:
        announce(str(further))


def fetch_anew(run: Remote, folder: Path) -> None:
    """Have in `folder` what drivers wrote of the run at a URL, and nothing else. Raises StorageError."""
    for path in sorted(folder.rglob("*"), reverse=True):
        if path.is_dir() and not path.is_symlink():
            path.rmdir()
        elif path.name != LOCK:
            path.unlink()
    names = run.pull(folder, is_drivers)
    if EXPERIMENT not in names:
        raise StorageError(f"{run} holds no run that could go on: there is no {EXPERIMENT}")
