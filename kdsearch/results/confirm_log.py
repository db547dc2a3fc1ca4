"""The book of a confirmation: one line for each training that has ended, and for each reading of the test split."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from kdsearch.errors import RunError
from kdsearch.results.documents import plain

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

FILE = "results.jsonl"
TRAINING, TEST, EARLIER = "training", "test", "earlier"


@dataclass(frozen=True)
class Done:
    """What was done with one setting and seed."""

    what: str
    """`training`, `test` (the test split was read for its student) or `earlier` (so it was, by `kdsearch evaluate`)."""
    trial: int
    """Number of the trial that has the setting."""
    seed: int
    time: float
    """When, in seconds since the epoch."""
    value: float | None = None
    """The metric: of a training on validation; None when it diverged."""
    metrics: dict[str, float] = field(default_factory=dict)
    per_class: dict[str, dict[str, float | None]] = field(default_factory=dict)
    """Metric → class → value, of tasks that have it."""
    epoch: int | None = None
    """Of the best weights."""
    seconds: float | None = None
    error: str | None = None
    """Why there is no student: the training diverged, as it would again."""


class Log:
    """The lines in a confirmation's folder. One process writes; a line that a crash tore does not count."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / FILE
        self._done: dict[tuple[str, int, int], Done] = {}
        self.readings: list[Done] = []
        """Every reading of the test split that is known of this run, in order."""
        for number, line in enumerate(_lines(self.path), 1):
            try:
                self._take(Done(**json.loads(line)))
            except (ValueError, TypeError):
                raise RunError(f"{self.path}: line {number} is no entry of a confirmation; remove it") from None

    def _take(self, done: Done) -> None:
        if done.what != EARLIER:
            self._done[done.what, done.trial, done.seed] = done
        if done.what != TRAINING:
            self.readings.append(done)

    def add(self, done: Done) -> None:
        """Write a line; when this returns it is on the disk."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        line = json.dumps(plain(asdict(done)), separators=(",", ":")).encode() + b"\n"
        with self.path.open("ab") as file:
            file.truncate(sum(map(len, _lines(self.path))))  # what a crash left of a line must not swallow this one
            file.write(line)
            file.flush()
            os.fsync(file.fileno())
        self._take(done)

    def find(self, what: str, trial: int, seed: int) -> Done | None:
        return self._done.get((what, trial, seed))

    def trained(self, trial: int, seed: int) -> Done | None:
        return self.find(TRAINING, trial, seed)

    def value(self, trial: int, seed: int) -> float | None:
        """The validation metric of a training; None when it diverged or is still to come."""
        done = self.trained(trial, seed)
        return None if done is None else done.value


def _lines(path: Path) -> list[bytes]:
    """The whole lines, with their ends."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return []
    return [line for line in content.splitlines(keepends=True) if line.endswith(b"\n")]


def earlier(facts: Mapping[str, Any], log: Log) -> list[Done]:
    """The readings noted in an export's metrics.json that the log does not know."""
    known = {done.time for done in log.readings}
    trial, seed = student_of(facts)
    return [
        Done(EARLIER, trial, seed, reading["time"], reading["metrics"].get(facts.get("metric")), reading["metrics"])
        for reading in facts.get("test_readings") or []
        if reading["time"] not in known
    ]


def student_of(facts: Mapping[str, Any]) -> tuple[int, int]:
    """Trial and seed of an exported student."""
    return int((facts.get("search") or {}).get("trial", -1)), int(facts.get("seed", -1))
