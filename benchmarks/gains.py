"""What distillation brings on the built-in sets beside classification: `python benchmarks/gains.py`.

Each shipped experiment's trial 0 (the paper's weights) and trial 1 (the same student and training without
distillation), trained to the full budget on several seeds without a search. The teacher is trained once. Validation
figures of the best weights, as a search reports them: equal epochs, one data split. Prints a table a seed later each
time and writes benchmarks/results/gains.jsonl; what is there already is not trained again.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch

from kdsearch import data as data_sets
from kdsearch.cli.options import load_experiment
from kdsearch.experiment import Experiment
from kdsearch.results.statistics import interval
from kdsearch.training.teacher import load_teacher, train_teacher
from kdsearch.training.trainer import Trainer

RESULT = Path(__file__).resolve().parent / "results" / "gains.jsonl"
CASES = {
    "sr_kd": ("sr_kd", None),
    "edge_kd": ("edge_kd", None),
    "ips segmentation": ("ips", "segmentation"),
    "kd segmentation": ("kd", "segmentation"),
    "ips detection": ("ips", "detection"),
}


def experiment_of(case: str) -> Experiment:
    space, task = CASES[case]
    return load_experiment(space, {"task": task}, None, None, None, None)


def with_teacher(experiment: Experiment, folder: Path) -> Experiment:
    """The experiment with its teacher trained, where it has one."""
    if experiment.teacher is None:
        return experiment
    data = data_sets.load(experiment.data, experiment.task)
    for _ in train_teacher(experiment, data, folder):
        pass
    trained = experiment.teacher.model_copy(update={"weights": str(folder)})
    return experiment.model_copy(update={"teacher": trained})


def train(experiment: Experiment, hyperparameters: Any, seed: int) -> float:
    data = data_sets.load(experiment.data, experiment.task)
    teacher = load_teacher(experiment, data) if experiment.teacher is not None else None
    trainer = Trainer(experiment, hyperparameters, seed=seed, data=data, teacher=teacher)
    while not trainer.finished:
        trainer.epoch()
    assert trainer.best is not None
    return trainer.best.value


def known() -> list[dict[str, Any]]:
    return [json.loads(line) for line in RESULT.read_text().splitlines()] if RESULT.is_file() else []


def table(rows: list[dict[str, Any]]) -> str:
    lines = ["| | seeds | without | with the paper's weights | difference, 95 % interval |", "|---|---|---|---|---|"]
    for case in CASES:
        own = sorted((row for row in rows if row["case"] == case), key=lambda row: row["seed"])
        if len(own) > 1:
            control, paper = (interval([row[name] for row in own]) for name in ("control", "paper"))
            difference = interval([row["paper"] - row["control"] for row in own])
            lines.append(
                f"| `{case}` | {len(own)} | {control.mean:.3f} | {paper.mean:.3f} | {difference.mean:+.3f} "
                f"({difference.low:+.3f} to {difference.high:+.3f}) |"
            )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    torch.set_num_threads(1)
    seeds = parser.parse_args().seeds
    with tempfile.TemporaryDirectory() as folder:
        ready: dict[str, Experiment] = {}
        for seed in range(1, seeds + 1):
            for case in CASES:
                if any((row["case"], row["seed"]) == (case, seed) for row in known()):
                    continue
                if case not in ready:
                    ready[case] = with_teacher(experiment_of(case), Path(folder) / case.replace(" ", "-"))
                made = ready[case]
                values = {name: train(made, getattr(made, name)(), seed) for name in ("control", "paper")}
                with RESULT.open("a") as file:
                    print(json.dumps({"case": case, "seed": seed, **values}), file=file)
            print(f"{table(known())}\n", flush=True)


if __name__ == "__main__":
    main()
