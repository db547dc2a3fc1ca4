"""A stub objective whose processes write down where and when they train, and can wait for each other."""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdsearch.objective import Report
from tests.tuning.stub import StubObjective, StubObjectives

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    from numpy.typing import NDArray

    from kdsearch.settings import Scalar

DEADLINE = 100
"""Seconds that a trial waits for others before it gives up, with an error that says so."""


@dataclass
class InMemorySet:
    """A data set in memory, that writes down when it is packed, and in which memory it comes out."""

    log: str
    images: NDArray[np.uint8]

    def __reduce__(self) -> tuple[Any, ...]:
        _note(self.log, "packed")
        return InMemorySet.unpacked, (self.log, self.images)

    @classmethod
    def unpacked(cls, log: str, images: NDArray[np.uint8]) -> InMemorySet:
        place = images.__array_interface__["data"][0]
        for line in Path("/proc/self/maps").read_text().splitlines():
            start, end = (int(bound, 16) for bound in line.split()[0].split("-"))
            if start <= place < end:
                _note(log, "shared" if " rw-s " in line or " r--s " in line else "copied")
        return cls(log, images)


def _note(log: str, what: str) -> None:
    with (Path(log) / "notes").open("a") as file:
        file.write(f"{what} {os.getpid()}\n")


@dataclass
class RecordingObjectives(StubObjectives):
    """Makes objectives that record each epoch."""

    log: str = ""
    """Folder of the records: one file a process, one line an epoch."""
    together: int = 1
    """A trial ends its first epoch when so many trials have begun theirs: they run at one moment."""

    data: InMemorySet | None = None
    hurry: str | None = None
    """A file: once it is there, epochs take no time."""

    teacher: str | None = None

    def load_teacher(self) -> None:
        """What the trials of a process share, as `TrainerObjectives.teacher` is; a cached property of a class that
        travels by value could not be packed."""
        if self.teacher is None:
            self.teacher = "loaded"
            _note(self.log, "teacher")

    def __call__(self, hyperparameters: Mapping[str, Scalar]) -> RecordingObjective:
        return RecordingObjective(self, hyperparameters)


class RecordingObjective(StubObjective):
    settings: RecordingObjectives

    def epoch(self) -> Report:
        import ray

        self.settings.load_teacher()
        started = time.time()
        log = Path(self.settings.log)
        # Paper's setting and control differ in the second alone.
        name = "-".join(f"{float(self.hyperparameters[key]):.9f}" for key in ("temperature", "alpha"))
        if not self.history and self.settings.together > 1:
            (log / f"{name}.begun").touch()
            while len(list(log.glob("*.begun"))) < self.settings.together:
                if time.time() - started > DEADLINE:
                    raise TimeoutError(f"never {self.settings.together} trials at a time")
                time.sleep(0.05)
        report = super().epoch()
        if self.settings.hurry and os.path.exists(self.settings.hurry):
            self.settings.seconds = 0
        context = ray.get_runtime_context()
        line = {
            "trial": name,
            "epoch": report.epoch,
            "process": os.getpid(),
            "node": context.get_node_id(),
            "gpus": [str(gpu) for gpu in ray.get_gpu_ids()],
            "visible": os.environ.get("CUDA_VISIBLE_DEVICES", ""),
            "start": started,
            "end": time.time(),
        }
        with (log / f"{os.getpid()}.jsonl").open("a") as file:
            file.write(json.dumps(line) + "\n")
        return report
