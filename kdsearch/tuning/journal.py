"""The study's journal on disk: Optuna's file format, one writer, every line stamped with its time."""

from __future__ import annotations

import json
import os
import time
from typing import TYPE_CHECKING, Any

from optuna.storages.journal import BaseJournalBackend
from optuna.trial import TrialState

from kdsearch.files import write_atomic

if TYPE_CHECKING:
    from collections.abc import Iterable, Set
    from pathlib import Path

# Operations of Optuna's journal after which the line must be on the disk: a trial began or ended.
CREATE_TRIAL, SET_TRIAL_STATE, SET_TRIAL_ATTRIBUTE = 4, 6, 8
SET_STUDY_ATTRIBUTE = 2

FLUSH_SECONDS = 1.0


class StudyJournal(BaseJournalBackend):
    """A journal with a single writer, which the run's lock guarantees.

    Optuna's own backend locks and syncs for each line (2.4 ms a report on the driver); with one writer no lock is
    needed, and a sync is owed only when a trial begins or ends and else once a second: after a crash of the machine
    (not of the process) at most that second of intermediate values is told again. Optuna and optuna-dashboard read
    the file while it grows. The extra key `time` (seconds since the epoch) is ours; Optuna's readers ignore it.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        path.touch()
        _drop_torn_line(path)
        with path.open("rb") as file:
            self._written = sum(1 for _ in file)
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND)
        self._size = os.fstat(self._file).st_size
        self._unread: list[dict[str, Any]] = []
        self._synced = time.monotonic()

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        now = time.time()
        lines = [json.dumps({**log, "time": now}, separators=(",", ":")) for log in logs]
        self._append("".join(line + "\n" for line in lines).encode())
        # Parsed back, so that the storage sees exactly what a reader of the file will see.
        self._unread += [json.loads(line) for line in lines]
        self._written += len(lines)
        owed = any(log["op_code"] in (CREATE_TRIAL, SET_TRIAL_STATE) for log in logs)
        if owed or time.monotonic() - self._synced > FLUSH_SECONDS:
            self.sync()

    def _append(self, content: bytes) -> None:
        """Write whole lines; where the disk is full, none of them."""
        rest = content
        try:
            while rest:
                rest = rest[os.write(self._file, rest) :]
        except OSError:
            os.ftruncate(self._file, self._size)  # needs no room
            raise
        self._size += len(content)

    def read_logs(self, log_number_from: int) -> Iterable[dict[str, Any]]:
        unread, self._unread = self._unread, []
        if log_number_from == self._written - len(unread):
            return unread
        with self._path.open("rb") as file:
            return [json.loads(line) for number, line in enumerate(file) if number >= log_number_from]

    def sync(self) -> None:
        """Have everything that was written on the disk."""
        os.fsync(self._file)
        self._synced = time.monotonic()

    def close(self) -> None:
        try:
            self.sync()
        finally:
            os.close(self._file)


def reopen_failed(path: Path, notes: Set[str]) -> None:
    """Let the failed trials run again under their numbers: the lines that ended them, and these notes of them, go.

    An end is final in Optuna's format, so the file is replaced, as a whole and only while nobody writes to it. A trial
    that diverged is PRUNED there and stays.
    """
    _drop_torn_line(path)
    with path.open("rb") as file:
        lines = [(line, json.loads(line)) for line in file]
    ends = [log for _, log in lines if log["op_code"] == SET_TRIAL_STATE]
    failed = {log["trial_id"] for log in ends if log["state"] == TrialState.FAIL.value}

    def stays(log: dict[str, Any]) -> bool:
        if log.get("trial_id") not in failed:
            return True
        noted = log["op_code"] == SET_TRIAL_ATTRIBUTE and not notes.isdisjoint(log["user_attr"])
        return log["op_code"] != SET_TRIAL_STATE and not noted

    write_atomic(path, b"".join(line for line, log in lines if stays(log)))


def seconds_driven(path: Path) -> float:
    """How long the run of this journal has been driven, summed over its drivers: of each from the line with which it
    says that it drives to the last one that it wrote, whatever ended it."""
    total, last, began = 0.0, 0.0, None
    if not path.is_file():
        return total
    _drop_torn_line(path)
    with path.open("rb") as file:
        for log in map(json.loads, file):
            if log["op_code"] == SET_STUDY_ATTRIBUTE and log["user_attr"].get("state") == "RUNNING":
                total += 0.0 if began is None else last - began
                began = log["time"]
            last = log.get("time", last)
    return total + (0.0 if began is None else last - began)


def _drop_torn_line(path: Path) -> None:
    """Cut off a last line that a crash left without its end."""
    content = path.read_bytes()
    if content and not content.endswith(b"\n"):
        with path.open("rb+") as file:
            file.truncate(content.rfind(b"\n") + 1)
