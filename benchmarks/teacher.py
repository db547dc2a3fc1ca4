"""What a teacher adds to a search when its outputs are kept: `python benchmarks/teacher.py --repetitions 3`.

A resnet56 is trained on digits, whose views are fixed. Then, in turns, the same search (6 trials of resnet8, 9 epochs,
2 at a time, each a fresh process with a storage of its own):

    none    no teacher (ce)
    kept    kd; the teacher is asked once for each image, then its outputs are looked up
    asked   kd; the teacher is asked at every step (`teacher.cache=off`)

Measured per search: wall time of the command, and the epochs' own seconds. In one process, in turns: the CPU time of
an epoch of each. And what float16 and the 3 largest logits of 10 change in one training beside exact outputs.
Prints tables and writes benchmarks/results/teacher.json.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import mean, median
from typing import TYPE_CHECKING, Any

import torch
from orchestration import told

from kdsearch import data as data_sets
from kdsearch.experiment import Experiment
from kdsearch.training.teacher import load_teacher, train_teacher
from kdsearch.training.teaching import compute_outputs
from kdsearch.training.trainer import Trainer

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kdsearch.data.base import DataSet

RESULT = Path(__file__).resolve().parent / "results" / "teacher.json"
KINDS = ("none", "kept", "asked")
ALLOWED = 1.15
CPU = torch.device("cpu")
KEPT: dict[str, dict[str, Any]] = {
    "float32": {},
    "float16": {"cache_dtype": "float16"},
    "top 3": {"cache_top_k": 3},
    "top 3, float16": {"cache_top_k": 3, "cache_dtype": "float16"},
}


def trained_teacher(folder: Path, epochs: int) -> None:
    """Train the teacher and export it to the folder."""
    made = Experiment.load("kd", {"teacher.name": "resnet56", "teacher.epochs": epochs, "teacher.learning_rate": 0.05})
    for report in train_teacher(made, data_sets.load(made.data), folder, CPU):
        print(f"teacher: epoch {report.epoch}, {report.value:.4f}", file=sys.stderr, flush=True)


def one_search(kind: str, teacher: Path, options: argparse.Namespace, repetition: int) -> dict[str, Any]:
    """Wall time of the command, and the seconds of all its epochs. What it prints is shown when it fails."""
    with tempfile.TemporaryDirectory(prefix="teacher-") as scratch:
        method = "ce" if kind == "none" else "kd"
        command = [sys.executable, "-m", "kdsearch", "search", method, "--data", "digits", "--student", "resnet8"]
        command += ["--name", "run", "--seed", str(repetition), "--max-concurrent", "2", "--storage", scratch]
        command += ["--trials", str(options.trials), "--max-epochs", str(options.epochs)]
        command += ["--set", "search.scheduler=none", "--set", "resources.gpus_per_trial=0"]
        if kind != "none":
            command += ["--teacher", str(teacher), "--set", f"teacher.cache={'auto' if kind == 'kept' else 'off'}"]
        load, started = os.getloadavg()[0], time.time()
        ended = subprocess.run(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False, cwd=scratch
        )
        wall = time.time() - started
        if ended.returncode != 0:
            raise SystemExit(f"the search {kind!r} ended with {ended.returncode}:\n{ended.stdout[-3000:]}")
        epochs = told(Path(scratch) / "run")
    training = sum(epoch.seconds for epoch in epochs)
    found = {"kind": kind, "repetition": repetition, "wall": wall, "training": training, "epochs": len(epochs)}
    return found | {"load_before": load}


def trainers(teacher: Path, data: DataSet) -> dict[str, Trainer]:
    """One training of each kind, with the paper's setting of its method."""
    made = Experiment.load("kd", {"teacher.name": str(teacher), "training.epochs": 1000})
    plain = Experiment.load("ce", {"training.epochs": 1000})
    network = load_teacher(made, data, CPU)
    taught = compute_outputs(made, data, network, CPU)
    return {
        "none": Trainer(plain, plain.paper(), data=data, device=CPU),
        "kept": Trainer(made, made.paper(), data=data, teacher=network, taught=taught, device=CPU),
        "asked": Trainer(made, made.paper(), data=data, teacher=network, device=CPU),
    }


def epoch_costs(teacher: Path, data: DataSet, turns: int) -> dict[str, float]:
    """CPU seconds of an epoch with its validation, and their ratios to the one without teacher: medians over turns."""
    made, found = trainers(teacher, data), []
    for turn in range(turns + 1):
        taken = {}
        for kind in KINDS if turn % 2 else KINDS[::-1]:
            started = time.process_time()
            made[kind].epoch()
            taken[kind] = time.process_time() - started
        if turn:  # the first warms up
            found.append(taken)
    seconds = {kind: median(taken[kind] for taken in found) for kind in KINDS}
    ratios = {f"{kind} / none": median(taken[kind] / taken["none"] for taken in found) for kind in KINDS[1:]}
    return seconds | ratios


def what_is_lost(teacher: Path, data: DataSet, epochs: int) -> list[dict[str, Any]]:
    """How loss and validation accuracy of each epoch differ from those of a training that asks its teacher.

    `same_student` is by how much the loss of one student, that of this training's end, differs over an epoch: beyond
    that two trainings differ because they went apart.
    """

    def training(kept: dict[str, Any] | None) -> tuple[Trainer, int]:
        changes = {f"teacher.{name}": value for name, value in (kept or {}).items()}
        made = Experiment.load("kd", {"teacher.name": str(teacher), "training.epochs": epochs, **changes})
        network = load_teacher(made, data, CPU)
        taught = None if kept is None else compute_outputs(made, data, network, CPU)
        trainer = Trainer(made, made.paper(), data=data, teacher=network, taught=taught, device=CPU)
        while not trainer.finished:
            trainer.epoch()
        return trainer, taught.nbytes if taught else 0

    asked, _ = training(None)
    end, exact = asked.state_dict(), history_of(asked)
    loss = epoch_loss(asked)
    rows = []
    for name, kept in KEPT.items():
        trainer, nbytes = training(kept)
        history = history_of(trainer)
        trainer.load_state_dict(end)
        row: dict[str, Any] = {"kept": name, "bytes": nbytes, "same_student": abs(epoch_loss(trainer) - loss)}
        for key in ("loss/total", "validation/accuracy"):
            differences = [abs(mine[key] - theirs[key]) for mine, theirs in zip(history, exact, strict=True)]
            row[key] = {"largest": max(differences), "mean": mean(differences), "last": exact[-1][key]}
        rows.append(row)
    return rows


def history_of(trainer: Trainer) -> list[Mapping[str, float]]:
    return [report.metrics for report in trainer.history]


@torch.no_grad()
def epoch_loss(trainer: Trainer) -> float:
    """The mean loss over an epoch, with the student as it is."""
    trainer.method.eval()
    return mean(float(sum(trainer.method.losses(batch, 0.5).values())) for batch in trainer.batches.epoch(0))


def ratios(runs: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Of each kind with a teacher: its cost over that without, in the same repetition; median, least and most."""
    by = {(run["kind"], run["repetition"]): run for run in runs}
    runs = [run for run in runs if all((kind, run["repetition"]) in by for kind in KINDS)]
    if not runs:
        return {}
    found = {}
    for measure in ("wall", "training"):
        for kind in KINDS[1:]:
            each = [run[measure] / by["none", run["repetition"]][measure] for run in runs if run["kind"] == kind]
            found[f"{measure}: {kind} / none"] = {"median": median(each), "least": min(each), "most": max(each)}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description="What a teacher adds to a search when its outputs are kept.")
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--trials", type=int, default=6)
    parser.add_argument("--epochs", type=int, default=9)
    parser.add_argument("--turns", type=int, default=9)
    parser.add_argument("--teacher-epochs", type=int, default=9)
    parser.add_argument("--dry", action="store_true", help="write no results")
    options = parser.parse_args()
    torch.set_num_threads(1)
    os.environ["OMP_NUM_THREADS"] = "1"
    with tempfile.TemporaryDirectory(prefix="teacher-") as scratch:
        teacher = Path(scratch) / "resnet56"
        trained_teacher(teacher, options.teacher_epochs)
        data = data_sets.load(Experiment.load("kd").data)
        costs = epoch_costs(teacher, data, options.turns)
        lost = what_is_lost(teacher, data, options.epochs)
        workload = {"trials": options.trials, "epochs": options.epochs, "slots": 2, "cores": os.cpu_count()}
        runs: list[dict[str, Any]] = []
        for repetition in range(options.repetitions):
            for kind in KINDS if repetition % 2 else KINDS[::-1]:  # side by side, in turns
                runs.append(one_search(kind, teacher, options, repetition))
                print(json.dumps(runs[-1]), file=sys.stderr, flush=True)
                content = {"workload": workload, "ratios": ratios(runs), "epoch_cpu": costs, "kept": lost, "runs": runs}
                if not options.dry:  # after each search: one that is interrupted keeps what was measured
                    RESULT.write_text(json.dumps(content, indent=1) + "\n")
    show(ratios(runs), costs, lost)


def show(found: dict[str, dict[str, float]], costs: dict[str, float], lost: list[dict[str, Any]]) -> None:
    """The tables."""
    print("| ratio | median (least–most) | at most |\n|---|---|---|")
    for name, value in found.items():
        wanted = ALLOWED if name == "wall: kept / none" else ""
        print(f"| {name} | {value['median']:.2f} ({value['least']:.2f}–{value['most']:.2f}) | {wanted} |")
    for kind in KINDS[1:]:
        print(f"| CPU time of an epoch: {kind} / none | {costs[f'{kind} / none']:.2f} | |")
    print("\n| kept | bytes | loss of one student | of two trainings: loss, at most (mean) | accuracy |")
    print("|---" * 5 + "|")
    for row in lost:
        cells = [f"{row[key]['largest']:.2g} ({row[key]['mean']:.2g})" for key in ("loss/total", "validation/accuracy")]
        print(f"| {row['kept']} | {row['bytes']:,} | {row['same_student']:.2g} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
