"""A thousand trials in one reused process: neither it nor the driver keeps anything of them."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import ray

from kdsearch.experiment import Experiment
from kdsearch.objective import Report
from kdsearch.tuning import search
from kdsearch.tuning.pool import ENVIRONMENT

if TYPE_CHECKING:
    from kdsearch.settings import Scalar

TRIALS, SETTLED = 1000, 200
"""The first two hundred fill caches and pools."""


def allocated() -> int:
    """Bytes that this process has allocated and not freed (mallinfo2(3) of glibc, over all its arenas).

    Resident memory would not do: it goes up and down by 30 MB with arenas that fill and are trimmed.
    """

    class Information(ctypes.Structure):
        _fields_ = tuple(
            (name, ctypes.c_size_t)
            for name in (
                *("arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks"),
                *("uordblks", "fordblks", "keepcost"),
            )
        )

    library = ctypes.CDLL(None)
    library.mallinfo2.restype = Information
    information = library.mallinfo2()
    return int(information.uordblks + information.hblkhd)


def measure() -> dict[str, float]:
    """This process: bytes allocated and resident, Python's small objects (it keeps their memory itself), the rest."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return {
        "process": os.getpid(),
        "bytes": allocated(),
        "resident": int(status["VmRSS"].split()[0]) * 1024,
        "blocks": sys.getallocatedblocks(),
        "threads": int(status["Threads"]),
        "files": len(os.listdir("/proc/self/fd")),
    }


def measure_gpus() -> dict[str, float]:
    """The GPUs that this process sees, and the bytes that PyTorch holds of them; without any, none of none."""
    import torch

    devices = range(torch.cuda.device_count())
    return {
        "devices": len(devices),
        "allocated": sum(torch.cuda.memory_allocated(device) for device in devices),
        "reserved": sum(torch.cuda.memory_reserved(device) for device in devices),
    }


def megabyte() -> Any:
    """A megabyte, on the GPU where there is one."""
    import torch

    return torch.ones(2**18, device="cuda" if torch.cuda.device_count() else "cpu")


@dataclass
class Measuring:
    """An objective of one epoch that reports what its process holds, and itself holds a megabyte."""

    history: list[Report] = field(default_factory=list)
    ballast: Any = None

    def __call__(self, hyperparameters: Mapping[str, Scalar]) -> Measuring:
        return Measuring(ballast=megabyte())

    def epoch(self) -> Report:
        self.history.append(Report(1, 0.5, measure() | measure_gpus()))
        return self.history[-1]

    def load(self, folder: Path) -> bool:
        return False

    def save(self, folder: Path) -> None: ...

    def finish(self, folder: Path) -> float:
        return 0.5


class Recorder:
    """A watcher that notes what the worker holds at each report, and what the driver holds then."""

    def __init__(self) -> None:
        self.worker: list[Mapping[str, float]] = []
        self.driver: list[dict[str, float]] = []

    def trial_started(self, trial: Any) -> None: ...

    def epoch_told(self, trial: Any, report: Report) -> None:
        self.worker.append(report.metrics)
        self.driver.append(measure())

    def trial_ended(self, trial: Any, value: float | None) -> None: ...


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_thousand_reused_trials_leave_nothing_behind(tmp_path: Path) -> None:
    import torch

    gpus = min(1, torch.cuda.device_count())
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    made = Experiment(
        method="kd",
        teacher="resnet8",
        space={"temperature": {"low": 1, "high": 20}},
        training={"epochs": 1},
        search={"trials": TRIALS, "grace_period": 1, "scheduler": "none", "sampler": "random"},
        resources={"gpus_per_trial": gpus, "max_concurrent": 1},
    )
    found = Recorder()
    ray.init(address="local", num_cpus=1, include_dashboard=False, log_to_driver=False)
    try:
        search(made, storage=tmp_path, objectives=Measuring(), watchers=[found])
    finally:
        ray.shutdown()
    assert len(found.worker) == TRIALS
    assert len({int(seen["process"]) for seen in found.worker}) == 1

    def growth(seen: list[Any], what: str) -> float:
        return float(seen[-1][what] - seen[SETTLED][what])

    trials = TRIALS - SETTLED
    print({what: (growth(found.worker, what), growth(found.driver, what)) for what in measure()})
    assert {seen["devices"] for seen in found.worker} == {gpus}
    assert {what: growth(found.worker, what) for what in ("allocated", "reserved")} == {"allocated": 0, "reserved": 0}
    assert growth(found.worker, "bytes") < 4 * 2**20  # of 800 that held one MiB each
    assert growth(found.worker, "blocks") / trials < 50
    assert growth(found.worker, "threads") <= 2
    assert growth(found.worker, "files") <= 2
    assert growth(found.driver, "resident") / trials < 50_000
    assert growth(found.driver, "files") <= 4
    assert growth(found.driver, "threads") <= 16  # of a pool of gRPC that fills up; not one a trial
