"""What a trial costs beside its training steps, in one process without Ray: `python benchmarks/trial_costs.py`.

The trial is that of orchestration.py (IPS, resnet8, digits): building it, an epoch's training and validation, its
checkpoint, its end; and, on the driver's side, telling one report to the journal and to TensorBoard. Medians.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

import torch

from kdsearch import data, files
from kdsearch.experiment import Experiment
from kdsearch.objective import Report
from kdsearch.training.trainer import Trainer, state_bytes
from kdsearch.tuning.curves import Curves
from kdsearch.tuning.distributions import distributions
from kdsearch.tuning.ledger import Ledger
from kdsearch.tuning.objective import TrainerObjective
from kdsearch.tuning.record import Record

if TYPE_CHECKING:
    from collections.abc import Callable

REPETITIONS = 15


def milliseconds(work: Callable[[], object], repetitions: int = REPETITIONS) -> tuple[float, float]:
    """The first time, and the median of the later ones."""
    taken = []
    for _ in range(repetitions + 1):
        started = time.perf_counter()
        work()
        taken.append((time.perf_counter() - started) * 1000)
    return taken[0], median(taken[1:])


def worker(experiment: Experiment, folder: Path) -> dict[str, tuple[float, float]]:
    """Costs in a slot of the pool."""
    loaded = data.load(experiment.data, experiment.task)
    trainer = Trainer(experiment, experiment.paper(), data=loaded)
    found = {"build a trial": milliseconds(lambda: Trainer(experiment, experiment.paper(), data=loaded))}
    found["epoch, with validation"] = milliseconds(trainer.epoch, 8)
    found["  its validation (raw and averaged)"] = milliseconds(trainer.validate)
    content = state_bytes(trainer.state_dict())
    found["checkpoint"] = milliseconds(lambda: trainer.save(folder))
    found["  its bytes"] = milliseconds(lambda: state_bytes(trainer.state_dict()))
    found["  its writing, synced"] = milliseconds(lambda: files.write_checked(folder / "bytes", content))
    objective = TrainerObjective(trainer, lambda: trainer)
    found["end: a last look, pictures, weights"] = milliseconds(lambda: objective.finish(folder / "best"))
    return found


def driver(experiment: Experiment, folder: Path) -> dict[str, tuple[float, float]]:
    """Costs in the driver's event loop."""
    from kdsearch import tasks

    task = tasks.find(experiment.task)
    record = Record(folder, "run", task.mode, distributions(experiment))
    metrics = {f"loss/{number}": 0.5 for number in range(12)}

    def telling(ledger: Ledger) -> Callable[[], object]:
        number = ledger.next_trial().number  # type: ignore[union-attr]
        epochs = iter(range(1, 10**6))
        return lambda: ledger.told(number, Report(next(epochs), 0.5, metrics, 0.1))

    quiet = Ledger(experiment, task, record)
    writing = Ledger(experiment, task, record, watchers=[Curves(folder / "trials", task.metric, task.mode, 10**6)])
    found = {"report told: journal": milliseconds(telling(quiet), 200)}
    found["report told: journal and TensorBoard"] = milliseconds(telling(writing), 200)
    found["next trial (TPE)"] = milliseconds(quiet.next_trial, 29)
    record.close()
    return found


def main() -> None:
    torch.set_num_threads(1)
    experiment = Experiment.load("ips", {"training.epochs": 27})
    long = Experiment.load("ips", {"training.epochs": 1000, "search.scheduler": "none"})
    with tempfile.TemporaryDirectory() as scratch:
        costs = worker(experiment, Path(scratch)) | driver(long, Path(scratch))
    print("| | first, ms | later, ms |\n|---|---|---|")
    for name, (first, later) in costs.items():
        print(f"| {name} | {first:.1f} | {later:.2f} |")


if __name__ == "__main__":
    main()
