"""The driver's side of a run at a URL: it writes a working copy here, and a thread sends what changes.

Window of loss: what the driver wrote in the last EVERY_SECONDS, or since the last trial ended, whichever is less; after
an outage of the storage, what it wrote since that began. Trials send their checkpoints and students themselves (see
`place`), before the driver hears of the epoch. The journal goes up last of each round, as it was when the round began:
all that its lines lean on lies at the URL before them, so the run there can be resumed at any moment.
"""

from __future__ import annotations

import contextlib
import threading
import time
import zlib
from pathlib import Path
from typing import TYPE_CHECKING

from kdsearch.errors import LeaseLost, StorageBehind, StorageError
from kdsearch.results.copies import TRIALS, is_drivers
from kdsearch.results.results import EXPERIMENT, JOURNAL
from kdsearch.results.samples import FILE as PANELS
from kdsearch.tuning.folder import trial_folder
from kdsearch.tuning.objective import CHECKPOINT
from kdsearch.tuning.place import Apart

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from kdsearch.objective import Report
    from kdsearch.results import Results
    from kdsearch.results.lease import Lease
    from kdsearch.results.remote import Remote
    from kdsearch.tuning.trials import LiveTrial

EVERY_SECONDS = 10.0
LONGEST_WAIT_SECONDS = 30.0
"""Between two tries to reach a storage that is away."""
PATIENCE_SECONDS = 120.0
"""How long the end of a search waits for such a storage."""
NODE_PATIENCE_SECONDS = 1800.0
"""How long a trial that is done waits to store its student, from a node that alone cannot reach the storage."""
BUNDLE_SECONDS = 0.5
"""What is written in the moment after a trial's end goes up with it."""
BEST_FACTS = "best/metrics.json"
"""What says that the run's student is whole: it goes before the student is replaced, and comes after."""


class Upload:
    """Sends a working copy to its URL while a driver writes it; a watcher of the search, whose trials' ends hurry it.

    Args:
        folder: the working copy.
        run: where it goes.
        lease: held by this process.
        announce: told in a sentence when the storage is away, and when it is back.
    """

    def __init__(self, folder: Path, run: Remote, lease: Lease, announce: Callable[[str], None]) -> None:
        self.lost: LeaseLost | None = None
        """Set when another process took over the run."""
        self._folder, self._run, self._lease, self._announce = folder, run, lease, announce
        self._sent: dict[str, tuple[int, int]] = {}
        """Size and time of the files as they lie at the URL; of the journal, size and checksum."""
        self._away = 0
        """Times in a row that the storage could not be reached."""
        self._wanted: set[int] = set()
        self._behind: dict[int, float] = {}
        self._stop: Callable[[str], None] = lambda why: None
        self._one_round = threading.Lock()
        self._wake, self._ending = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._work, name="upload", daemon=True)

    def start(self) -> None:
        """Send what there is, raising StorageError where that fails; and from now on what changes."""
        for name, entry in self._run.entries().items():
            if is_drivers(name) and name != JOURNAL:
                self._sent[name] = (entry.size, entry.changed)  # `pull` gave the copy's files these times
        self._round()
        self._thread.start()

    def place(self) -> Apart:
        """Where the trials of this run keep their files."""
        return Apart(self._run, self._lease.owner)

    def when_lost(self, stop: Callable[[str], None]) -> None:
        """How to end the search when another process takes over the run."""
        self._stop = stop
        if self.lost is not None:
            stop(str(self.lost))

    def trial_started(self, trial: LiveTrial) -> None: ...

    def epoch_told(self, trial: LiveTrial, report: Report) -> None: ...

    def trial_ended(self, trial: LiveTrial, value: float | None) -> None:
        if trial.role == "control":  # its pictures stand beside all others
            self._wanted.add(trial.number)
        self._wake.set()

    def behind(self, number: int, node: str, why: str | None) -> bool:
        """Why a trial could not store its files, None where it could; whether to give it up: its node alone has had
        that trouble for long."""
        if why is None:
            self._behind.pop(number, None)
            return False
        if number not in self._behind and not self._away:
            self._announce(f"trial {number} on {node} goes on, and tries again: {why}")
        since = self._behind.setdefault(number, time.time())
        return not self._away and time.time() - since > NODE_PATIENCE_SECONDS

    def bring_home(self, results: Results) -> None:
        """Bring the best trial's student here. Raises StorageBehind when that fails for PATIENCE_SECONDS."""
        best = results.best
        if best is not None and best.state == "COMPLETE":
            self._patiently(lambda: self._fetch(best.number, lambda name: not name.startswith(CHECKPOINT)))

    def flush(self) -> None:
        """Bring the URL up to the working copy. Raises LeaseLost, or StorageBehind as `bring_home` does."""
        self._patiently(self._round)

    def discard(self, spent: Callable[[str], bool]) -> None:
        """Remove what trials left at the URL and nobody needs any more; what fails is left to the next resume.

        Args:
            spent: told `NUMBER/FILE`.
        """
        trials = self._run / TRIALS.rstrip("/")
        with contextlib.suppress(StorageError):
            for name in trials.entries():
                if spent(name):
                    self._lease.renew()
                    trials.delete(name)

    def finish(self) -> None:
        """The end: all is sent, and the lease given back. Raises as `flush` does."""
        self.abandon()
        self.flush()
        self._lease.release()

    def abandon(self) -> None:
        """End without sending anything more; the lease runs out by itself."""
        self._ending.set()
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join()

    def _patiently(self, action: Callable[[], None]) -> None:
        deadline = time.time() + PATIENCE_SECONDS
        while True:
            if self.lost is not None:
                raise LeaseLost(f"{self.lost}; what it found until then is in {self._folder}")
            try:
                action()
            except LeaseLost as error:
                self.lost = error
            except StorageError as error:
                if time.time() > deadline:
                    raise StorageBehind(
                        f"{error}; the run is whole in {self._folder}: resume it on this machine to send the rest"
                    ) from None
                self._away += 1
                time.sleep(self._pause())
            else:
                self._away = 0
                return

    def _work(self) -> None:
        while not self._ending.is_set() and self.lost is None:
            if self._wake.wait(self._pause()):
                self._wake.clear()
                self._ending.wait(BUNDLE_SECONDS)
            if not self._ending.is_set():
                self._try()

    def _pause(self) -> float:
        return min(2.0 ** min(self._away, 10), LONGEST_WAIT_SECONDS) if self._away else EVERY_SECONDS

    def _try(self) -> None:
        """One round. Any error, also one of this code, is one that the next round may not have."""
        try:
            self._round()
        except LeaseLost as error:
            self.lost = error
            self._stop(str(error))
        except Exception as error:
            if not self._away:
                self._announce(f"{error}: the search goes on here, and what it writes is sent when that works again")
            self._away += 1
        else:
            if self._away:
                self._announce(f"{self._run} is back and has the whole run again")
                self._behind.clear()
            self._away = 0

    def _round(self) -> None:
        with self._one_round:
            self._lease.renew()
            journal = self._journal()
            stamps = dict(self._stamps())
            changed = sorted((name for name, stamp in stamps.items() if self._sent.get(name) != stamp), key=_turn)
            gone = [name for name in self._sent if name not in stamps and name != JOURNAL]
            if BEST_FACTS in changed and BEST_FACTS in self._sent:
                gone.insert(0, BEST_FACTS)
            for name in gone:
                self._lease.renew()
                self._run.delete(name)
                self._sent.pop(name)
            for name in changed:
                with contextlib.suppress(FileNotFoundError):  # replaced in this moment; the next round finds it
                    self._send(name, (self._folder / name).read_bytes(), stamps[name])
            if journal is not None:
                self._send(JOURNAL, journal, (len(journal), zlib.crc32(journal)))
            for number in list(self._wanted):
                self._fetch(number, lambda name: name == PANELS)
                self._wanted.discard(number)

    def _send(self, name: str, content: bytes, stamp: tuple[int, int]) -> None:
        if self._sent.get(name) != stamp:
            self._lease.renew()
            self._run.write(name, content)
            self._sent[name] = stamp

    def _fetch(self, number: int, wanted: Callable[[str], bool]) -> None:
        name = trial_folder(TRIALS, number).as_posix()
        (self._run / name).pull(self._folder / name, lambda file: wanted(file) and not is_drivers(f"{name}/{file}"))

    def _journal(self) -> bytes | None:
        """Its whole lines."""
        try:
            content = (self._folder / JOURNAL).read_bytes()
        except FileNotFoundError:
            return None
        return content[: content.rfind(b"\n") + 1]

    def _stamps(self) -> Iterator[tuple[str, tuple[int, int]]]:
        for path in self._folder.rglob("*"):
            name = path.relative_to(self._folder).as_posix()
            if name == JOURNAL or not is_drivers(name) or _is_half_written(name):
                continue
            with contextlib.suppress(FileNotFoundError):
                if path.is_file():
                    found = path.stat()
                    yield name, (found.st_size, found.st_mtime_ns)


def _turn(name: str) -> tuple[int, str]:
    """What makes other files count goes up after them."""
    return 2 if name == EXPERIMENT else 1 if name == BEST_FACTS else 0, name


def _is_half_written(name: str) -> bool:
    return name.endswith(".part") or any(part.startswith(".") for part in Path(name).parts)
