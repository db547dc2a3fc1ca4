"""Learning curves for the search-cost study: `python benchmarks/record_curves.py --settings 400`.

For each workload of workloads.py, settings drawn from its space are trained to the full budget. A line of
benchmarks/results/curves/METHOD-SET.jsonl is one setting and seed: the setting's number (from which it can be drawn
again), the seed, and how many of the validation images the student got right after the epochs of LOOKED_AT, with its
raw and with its averaged weights; a diverged one has fewer of them. `short` has the same of the ends of trainings whose
own full budget is that of a rung, so that their schedules are complete: what a trial that begins anew at each rung
shows there.
Seeds go where they matter: the better half by the first seed gets a second one, since what lies below no search hands
over; the best of them, which look better than they are, get four more. Ended anywhere, the same command goes on; all
workloads advance together.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from functools import cache
from itertools import islice
from pathlib import Path
from statistics import mean
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

from workloads import EPOCHS, WORKLOADS, workload

from kdsearch.settings import Scalar
from kdsearch.tuning.sampler import Sampler

FOLDER = Path(__file__).resolve().parent / "results" / "curves"
WEIGHTS = {"raw": "validation", "averaged": "validation_averaged"}
SHORT = (3, 9)
"""Epochs of the rungs below the full budget."""
LOOKED_AT = (1, 2, *range(3, EPOCHS + 1, 3))
"""Epochs after which validation is looked at: after each it would take as long as the training."""
SEEDS = {1.0: 1, 0.5: 2, 0.1: 6}
"""How many seeds the settings get: all of them, the better half, the best tenth."""
Task = tuple[str, int, int]
"""Workload, number of the setting, seed."""


def file_of(name: str) -> Path:
    """Where the curves of a workload lie."""
    return FOLDER / f"{name.replace(' ', '-')}.jsonl"


@cache
def settings(name: str, count: int) -> list[dict[str, Scalar]]:
    """The first settings of a workload; more of them begin with the same."""
    experiment = workload(name)
    drawn = experiment.search.model_copy(update={"sampler": "random"})
    sampler = Sampler(experiment.model_copy(update={"search": drawn}), "max", seed=0)
    return [sampler.ask(number) for number in range(count)]


def recorded(name: str) -> list[dict[str, Any]]:
    """The trainings that are there; a line that a kill cut off is none."""
    found = []
    for line in file_of(name).read_text().splitlines() if file_of(name).is_file() else []:
        try:
            found.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return found


@cache
def loaded(name: str, storage: Path) -> tuple[Any, Any, Any]:
    """Experiment, data and teacher of a workload, once a process; a teacher is trained where it is missing."""
    import torch

    from kdsearch import data as data_sets
    from kdsearch.training.teacher import fingerprint, load_teacher, train_teacher

    torch.set_num_threads(1)
    experiment = workload(name)
    data = data_sets.load(experiment.data, experiment.task)
    if experiment.teacher is None:
        return experiment, data, None
    folder = storage / fingerprint(experiment)
    if not folder.is_dir():
        for _ in train_teacher(experiment, data, folder):
            pass
    trained = experiment.teacher.model_copy(update={"weights": str(folder)})
    experiment = experiment.model_copy(update={"teacher": trained})
    return experiment, data, load_teacher(experiment, data)


def train(task: Task, hyperparameters: dict[str, Scalar], storage: Path) -> dict[str, Any]:
    """The trainings of one setting and seed, as their line."""
    name, number, seed = task
    started = time.process_time()
    short = {}
    for epochs in SHORT:
        ends = curves(name, hyperparameters, seed, storage, epochs, (epochs,))
        short[epochs] = [ends[which][-1] if ends[which] else 0 for which in WEIGHTS]
    whole = curves(name, hyperparameters, seed, storage, EPOCHS, LOOKED_AT)
    taken = round(time.process_time() - started, 2)
    return {"setting": number, "seed": seed, "cpu": taken, **whole, "short": short}


def curves(
    name: str,
    hyperparameters: dict[str, Scalar],
    seed: int,
    storage: Path,
    epochs: int,
    looked_at: tuple[int, ...],
) -> dict[str, list[int]]:
    """Of a training of so many epochs: how many images were right after those that are looked at."""
    from sparse import Sparse

    from kdsearch.errors import Diverged

    experiment, data, teacher = loaded(name, storage)
    training = experiment.training.model_copy(update={"epochs": epochs})
    experiment = experiment.model_copy(update={"training": training})
    trainer = Sparse(experiment, hyperparameters, seed=seed, data=data, teacher=teacher)
    trainer.looked_at = looked_at
    try:
        while not trainer.finished:
            trainer.epoch()
    except Diverged:
        pass
    images = len(data.validation)
    looks = [report.metrics for report in trainer.history if report.epoch in looked_at]
    return {
        which: [round(metrics[f"{prefix}/accuracy"] * images) for metrics in looks] for which, prefix in WEIGHTS.items()
    }


def best(name: str, count: int, seeds: int) -> list[int]:
    """The settings that end best, by the mean of the first seeds, averaged weights, the best first; in the order of
    their numbers where no seed is asked."""
    if seeds == 0:
        return list(range(count))
    ends: dict[int, list[int]] = {}
    for row in recorded(name):
        if row["seed"] < seeds:
            curve = row["averaged"]
            ends.setdefault(row["setting"], []).append(curve[-1] if len(curve) == len(LOOKED_AT) else 0)
    whole = [number for number in ends if len(ends[number]) == seeds]
    return sorted(whole, key=lambda number: -mean(ends[number]))[:count]


def to_do(names: list[str], count: int, before: int, seeds: int) -> Iterator[Task]:
    """What is missing of so many seeds of the best settings, chosen by the seeds before; all workloads advance
    together."""
    there = {name: {(row["setting"], row["seed"]) for row in recorded(name)} for name in names}
    chosen = {name: best(name, count, before) for name in names}
    for seed in range(before, seeds):
        for place in range(count):
            for name in names:
                if (chosen[name][place], seed) not in there[name]:
                    yield name, chosen[name][place], seed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--settings", type=int, default=400)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--workloads", nargs="+", choices=WORKLOADS, default=list(WORKLOADS))
    parser.add_argument("--storage", type=Path, default=Path("runs") / ".recorded-teachers")
    options = parser.parse_args()
    FOLDER.mkdir(parents=True, exist_ok=True)
    options.storage.mkdir(parents=True, exist_ok=True)
    for name in options.workloads:
        loaded(name, options.storage.resolve())  # here, so that no two processes train a teacher
    before = 0
    for share, seeds in SEEDS.items():
        record(to_do(options.workloads, round(options.settings * share), before, seeds), options)
        before = seeds


def record(tasks: Iterator[Task], options: argparse.Namespace) -> None:
    """Train these, several at a time, and write down each as it ends."""
    running: dict[Future[dict[str, Any]], str] = {}
    with ProcessPoolExecutor(options.processes) as processes:
        while True:
            for task in islice(tasks, options.processes - len(running)):
                setting = settings(task[0], options.settings)[task[1]]
                running[processes.submit(train, task, setting, options.storage.resolve())] = task[0]
            if not running:
                break
            for done in wait(running, return_when=FIRST_COMPLETED).done:
                with file_of(running.pop(done)).open("a") as file:
                    print(json.dumps(done.result(), separators=(",", ":")), file=file)


if __name__ == "__main__":
    main()
