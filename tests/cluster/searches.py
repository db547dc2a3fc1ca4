"""Searches in processes of their own, and what the records of their trials say."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

ROOT = Path(__file__).parents[2]

EXPERIMENT: dict[str, Any] = {
    "method": "kd",
    "teacher": "resnet8",
    "space": {"temperature": {"low": 1, "high": 20, "log": True}, "alpha": {"low": 0.1, "high": 0.9}},
}


@dataclass(frozen=True)
class Epoch:
    """One epoch as its process recorded it."""

    trial: str
    epoch: int
    process: int
    node: str
    gpus: list[str]
    visible: str
    start: float
    end: float


@dataclass
class Search:
    """A search that runs."""

    process: subprocess.Popen[str]
    folder: Path
    log: Path

    def epochs(self) -> list[Epoch]:
        """What has been recorded so far, in the order of the ends."""
        lines = (line for file in self.log.glob("*.jsonl") for line in file.read_text().split("\n")[:-1])
        return sorted((Epoch(**json.loads(line)) for line in lines), key=lambda epoch: epoch.end)

    def notes(self) -> dict[str, list[int]]:
        """What else was noted, and by which processes."""
        found: dict[str, list[int]] = defaultdict(list)
        for line in (self.log / "notes").read_text().splitlines():
            what, process = line.split()
            found[what].append(int(process))
        return found

    def wait(self, timeout: float = 150) -> None:
        """Until it has ended well."""
        output, _ = self.process.communicate(timeout=timeout)
        assert self.process.returncode == 0, output

    def kill(self) -> None:
        """As a machine does that loses its power."""
        self.process.kill()
        self.process.communicate()


def start(
    storage: Path,
    address: str,
    *,
    name: str = "run",
    trials: int,
    epochs: int = 3,
    resources: dict[str, Any],
    patience: float = 1e9,
    **objectives: Any,
) -> Search:
    """A search without a scheduler of trials on the cluster at `address`; `objectives`: of `RecordingObjectives`."""
    log = storage / f"{name}-log"
    log.mkdir(parents=True)
    experiment = {
        **EXPERIMENT,
        "name": name,
        "training": {"epochs": epochs, "checkpoint_seconds": 0},
        "search": {"trials": trials, "scheduler": "none", "sampler": "random"},
        "resources": {"address": address, "cpus_per_trial": 0.1, **resources},
    }
    plan = {
        "storage": str(storage),
        "experiment": experiment,
        "patience": patience,
        "objectives": {"log": str(log), "epochs": epochs, **objectives},
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.cluster.driver", json.dumps(plan)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    return Search(process, storage / name, log)


def wait_for(what: str, condition: Callable[[], bool], *running: Search, deadline: float = 150) -> None:
    """Until the condition holds, while the searches run."""
    until = time.monotonic() + deadline
    while not condition():
        for search in running:
            assert search.process.poll() is None, f"while waiting for {what}: {search.process.communicate()[0]}"
        assert time.monotonic() < until, f"{what}: not within {deadline:g} s"
        time.sleep(0.1)


def spans(epochs: Iterable[Epoch], by: str) -> dict[Any, tuple[float, float]]:
    """From the first to the last moment of each trial or process."""
    found: dict[Any, tuple[float, float]] = {}
    for epoch in epochs:
        key = getattr(epoch, by)
        start, end = found.get(key, (epoch.start, epoch.end))
        found[key] = (min(start, epoch.start), max(end, epoch.end))
    return found


def most_at_once(epochs: Iterable[Epoch], by: str = "trial") -> int:
    """The largest number of trials, or processes, at one moment."""
    found = list(spans(epochs, by).values())
    return max(at(found, moment) for moment, _ in found)


def at(found: Iterable[tuple[float, float]], moment: float) -> int:
    """How many spans hold this moment."""
    return sum(start <= moment <= end for start, end in found)


def most_of_a_gpu(epochs: Iterable[Epoch], share: float) -> float:
    """The largest part of one GPU that was given out at one moment, over all GPUs of all nodes; processes hold what
    they have from their first epoch to their last."""
    places: dict[tuple[str, str], list[Epoch]] = defaultdict(list)
    for epoch in epochs:
        for gpu in epoch.gpus:
            places[epoch.node, gpu].append(epoch)
    return max(most_at_once(there, by="process") * min(share, 1) for there in places.values())


def assert_told_once(run: Path, epochs: int) -> None:
    """The record holds each trial once, complete, with each of its epochs told once."""
    logs = [json.loads(line) for line in (run / "study.journal").read_text().splitlines()]
    begun = sum(log["op_code"] == 4 for log in logs)
    told = sorted((log["trial_id"], log["step"]) for log in logs if log["op_code"] == 7)
    assert told == [(trial, step) for trial in range(begun) for step in range(1, epochs + 1)]
    ends = sorted((log["trial_id"], log["state"]) for log in logs if log["op_code"] == 6)
    assert ends == [(trial, 1) for trial in range(begun)]
