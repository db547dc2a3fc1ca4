"""Working copies, on this machine, of runs at a URL.

    CACHE/kdsearch/storage/NAME-DIGEST/url           the URL
                                       driven/RUN    written by a driver, mirrored to the URL
                                       seen/RUN      fetched by whoever reads
                                       .teachers/…   teachers, their outputs

CACHE is XDG_CACHE_HOME, else ~/.cache. What is only read is kept apart, so that no reader writes where a driver does.
"""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from kdsearch.errors import StorageError
from kdsearch.files import write_atomic
from kdsearch.results import lease
from kdsearch.results.lock import FILE as LOCK
from kdsearch.results.lock import is_locked
from kdsearch.results.remote import Remote
from kdsearch.results.results import EXPERIMENT, JOURNAL, Results

TRIALS, BEST = "trials/", "best/"
EVENTS = "events.out.tfevents."
WEIGHTS = ".safetensors"
LOCAL = (LOCK, lease.OWN, lease.FILE)
"""Files of a working copy that are no part of the run."""


@dataclass(frozen=True)
class Home:
    """A storage at a URL, and where its copies lie here."""

    url: str
    place: Path | None = None
    """The folder of the copies; None: as said above."""

    @cached_property
    def remote(self) -> Remote:
        return Remote.at(self.url)

    @cached_property
    def folder(self) -> Path:
        """The folder of the copies, made when first asked for."""
        if self.place is not None:
            return self.place
        cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
        place = str(self.remote)
        plain = re.sub(r"[^A-Za-z0-9]+", "-", place).strip("-")[:40]
        digest = hashlib.sha256(self.remote.url.encode()).hexdigest()[:12]
        folder = cache / "kdsearch" / "storage" / f"{plain}-{digest}"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if not (folder / "url").is_file():
                write_atomic(folder / "url", self.remote.url.encode())
        except OSError as error:
            raise StorageError(f"{folder}, for copies of {place}, cannot be made: {error.strerror}") from None
        return folder.resolve()

    def driven(self, name: str) -> Path:
        """Where a driver on this machine writes the run."""
        return self.folder / "driven" / name

    def see(self, name: str, *, weights: bool = False) -> Path:
        """The run as it stands: the driver's own copy where it is the newest, else one that is brought up to date.

        Fetched are the run's own files and its `best/`; with `weights` also what an export takes.
        """
        run, driven = self.remote / name, self.driven(name)
        if is_locked(driven) and not weights:
            return driven
        content = run.read(lease.FILE)
        if lease.is_own(lease.parse(content), driven) and not is_locked(driven):
            self._bring_trials_best(run, driven, weights)
            return driven
        seen = self.folder / "seen" / name
        fetched = run.pull(seen, _is_of_the_run, deep=False)
        fetched |= {BEST + file for file in (run / "best").pull(seen / "best", lambda file: _is_small(file) or weights)}
        _remove_others(seen, fetched)
        if fetched & {EXPERIMENT, JOURNAL} and content is not None:
            write_atomic(seen / lease.FILE, content)
        self._bring_trials_best(run, seen, weights)
        return seen

    def _bring_trials_best(self, run: Remote, folder: Path, weights: bool) -> None:
        """Where the search has not come to write `best/`, an export takes the best trial's own student."""
        if not weights or (folder / "best" / "metrics.json").is_file() or not (folder / EXPERIMENT).is_file():
            return
        found = Results(folder)
        if found.best is not None:
            kept = found.trial_folder(found.best) / "best"
            (run / kept.relative_to(folder).as_posix()).pull(kept, lambda file: True)


def home_of(folder: str | Path) -> Home | None:
    """The storage of which this folder is a working copy; None of a folder that is no copy."""
    kind = Path(folder).resolve().parent
    marker = kind.parent / "url"
    if kind.name not in ("driven", "seen") or not marker.is_file():
        return None
    return Home(marker.read_text(), kind.parent)


def where_driven(folder: Path) -> tuple[Remote | None, Path, Path]:
    """Of a run's folder, copy or not: the storage at a URL that it belongs to, if it does; the folder of runs on this
    machine; and the folder in which a driver writes the run, which need not exist."""
    home = home_of(folder)
    if home is None:
        return None, folder.parent, folder
    return home.remote, home.folder, home.driven(folder.name)


def is_drivers(name: str) -> bool:
    """Whether a file of a run is written by the driver; a trial's checkpoint, student and pictures are the trial's."""
    if name in LOCAL:
        return False
    return not name.startswith(TRIALS) or Path(name).name.startswith(EVENTS)


def _is_of_the_run(name: str) -> bool:
    return name not in LOCAL


def _is_small(name: str) -> bool:
    return not name.endswith(WEIGHTS)


def _remove_others(folder: Path, names: set[str]) -> None:
    """Remove what the URL does not hold any more: the run's own files and those of `best/`."""
    for path in [*folder.glob("*"), *folder.glob("best/*")]:
        name = path.relative_to(folder).as_posix()
        if path.is_file() and name not in names and not (name.startswith(BEST) and not _is_small(name)):
            path.unlink(missing_ok=True)
