"""What it costs in accuracy that images have a finite number of views: `python benchmarks/view_bank.py`.

A student is distilled from one trained teacher under random crops (and flips, of shapes), 27 epochs, published setting.
Its images show views drawn anew in each epoch (*asked*: the teacher answers at each step), or views of a bank, whose
outputs were computed once (`teacher.cache_views`). Each seed trains all kinds; a difference is to *asked* with the same
seed. Accuracy of the averaged weights at the end on 1,000 validation images, by which nothing was chosen but the
teacher's epoch, and CPU seconds of an epoch of training.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path
from statistics import mean, median
from tempfile import TemporaryDirectory

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from sparse import Sparse
from workloads import EPOCHS, workload

from kdsearch import data as data_sets
from kdsearch.data.base import DataSet
from kdsearch.data.teacher_outputs import TeacherOutputs
from kdsearch.experiment import Experiment
from kdsearch.methods.base import Teacher
from kdsearch.results.statistics import interval
from kdsearch.settings import AugmentationSettings
from kdsearch.training.teacher import load_teacher, train_teacher
from kdsearch.training.teaching import compute_outputs

RESULT = Path(__file__).resolve().parent / "results" / "view_bank.json"
AUGMENTATION = {"digits": {"crop": 1}, "shapes": {"crop": 1, "flip": True}}
VIEWS = (None, 1, 2, 4, 8, EPOCHS)
"""None: drawn anew."""
CPU = torch.device("cpu")
Row = dict[str, float]


def experiment(name: str, teacher: Path | None, views: int | None) -> Experiment:
    """Distillation on a set of the search-cost study, from a teacher that is trained."""
    made = workload(f"kd {name}")
    assert made.teacher is not None
    taught = made.teacher.model_copy(update={"weights": teacher and str(teacher), "cache_views": views})
    return made.model_copy(update={"augmentation": AugmentationSettings(**AUGMENTATION[name]), "teacher": taught})


def training(made: Experiment, data: DataSet, teacher: Teacher, taught: TeacherOutputs | None, seed: int) -> Row:
    """One training: accuracy at the end on validation, and its median epoch."""
    trainer = Sparse(made, made.paper(), seed=seed, data=data, teacher=teacher, taught=taught, device=CPU)
    trainer.looked_at = (EPOCHS,)
    seconds = []
    while not trainer.finished:
        started = time.process_time()
        report = trainer.epoch()
        seconds.append(time.process_time() - started)
    return {"accuracy": report.metrics["validation_averaged/accuracy"], "epoch_cpu": median(seconds[:-1])}


def of_set(name: str, seeds: int, scratch: Path) -> dict[str, list[Row]]:
    """The trainings on one set, by how many views an image has."""
    plain, folder = experiment(name, None, None), scratch / name
    data = data_sets.load(plain.data)
    for report in train_teacher(plain, data, folder, CPU):
        print(f"{name}: teacher, epoch {report.epoch}, {report.value:.4f}", file=sys.stderr, flush=True)
    network = load_teacher(experiment(name, folder, None), data, CPU)
    made = {views: experiment(name, folder, views) for views in VIEWS}
    kept = {views: compute_outputs(made[views], data, network, CPU) if views else None for views in VIEWS}
    found: dict[str, list[Row]] = {str(views or "asked"): [] for views in VIEWS}
    for seed in range(seeds):
        for views in VIEWS:
            row = training(made[views], data, network, kept[views], seed)
            found[str(views or "asked")].append(row)
            print(name, seed, views, row, file=sys.stderr, flush=True)
    return found


def show(name: str, found: dict[str, list[Row]]) -> None:
    """The table of one set."""
    print(
        f"\n| {name}: views of an image | accuracy | minus asked (95 %) | CPU of an epoch / asked |\n"
        + "|---" * 4
        + "|"
    )
    asked = found["asked"]
    for views, rows in found.items():
        accuracy = mean(row["accuracy"] for row in rows)
        pairs = list(zip(rows, asked, strict=True))
        apart = interval([mine["accuracy"] - theirs["accuracy"] for mine, theirs in pairs])
        within = "" if apart.low is None else f"{apart.mean:+.4f} ({apart.low:+.4f} to {apart.high:+.4f})"
        cost = median(mine["epoch_cpu"] / theirs["epoch_cpu"] for mine, theirs in pairs)
        print(f"| {views} | {accuracy:.4f} | {within} | {cost:.2f} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=15)
    parser.add_argument("--dry", action="store_true", help="write no results")
    options = parser.parse_args()
    torch.set_num_threads(1)
    found = {}
    with TemporaryDirectory(prefix="views-") as scratch:
        for name in AUGMENTATION:
            found[name] = of_set(name, options.seeds, Path(scratch))
            show(name, found[name])
    if not options.dry:
        RESULT.write_text(json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
