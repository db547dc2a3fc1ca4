"""What distillation brings on the built-in sets beside classification: `python benchmarks/gains.py`.

For each shipped experiment: a search as `kdsearch search` runs it, and then four students on fresh seeds to the full
budget, by equal epochs on one data split:

- `paper`, the paper's weights; `without`, the same training with every weight 0;
- `searched`, the winner's setting; `searched_without`, the winner's learning rate and all else of its training, with
  every weight 0. What the weights themselves bring is the difference of these two.

The teacher is the one that the search trained. Figures are those of the best weights on validation, as a search
reports them. Runs lie in `--storage`, a run that is there is not searched again; each training becomes a line of
benchmarks/results/gains.jsonl, and what is there is not trained again. Prints a table after each seed.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch

from kdsearch import data as data_sets
from kdsearch.cli.options import load_experiment
from kdsearch.experiment import Experiment
from kdsearch.results import Results
from kdsearch.results.statistics import interval
from kdsearch.training.teacher import fingerprint, load_teacher
from kdsearch.training.trainer import Trainer
from kdsearch.tuning import search
from kdsearch.tuning.prepare import TEACHERS

RESULT = Path(__file__).resolve().parent / "results" / "gains.jsonl"
CASES = {
    "sr_kd": ("sr_kd", None),
    "edge_kd": ("edge_kd", None),
    "ips segmentation": ("ips", "segmentation"),
    "kd segmentation": ("kd", "segmentation"),
    "ips detection": ("ips", "detection"),
}
FIRST_SEED = 101
"""Far from the search's own."""


def run_of(case: str, storage: Path) -> Path:
    """The folder of the case's search, which is run where it is missing."""
    folder = storage / f"gains-{case.replace(' ', '-')}"
    if not (folder / "best").is_dir():
        space, task = CASES[case]
        experiment = load_experiment(space, {"task": task}, None, None, None, None)
        search(experiment.model_copy(update={"name": folder.name}), storage=storage)
    return folder


def with_teacher(experiment: Experiment, storage: Path) -> Experiment:
    """The experiment with the weights of the teacher that its search trained."""
    if experiment.teacher is None:
        return experiment
    weights = str(storage / TEACHERS / fingerprint(experiment))
    return experiment.model_copy(update={"teacher": experiment.teacher.model_copy(update={"weights": weights})})


def settings_of(experiment: Experiment, folder: Path) -> dict[str, dict[str, Any]]:
    """The hyperparameters of the four students."""
    best = Results(folder).best
    assert best is not None
    off = experiment.method_class.control()
    return {
        "without": dict(experiment.control()),
        "paper": dict(experiment.paper()),
        "searched_without": {**best.hyperparameters, **off},
        "searched": dict(best.hyperparameters),
    }


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
    lines = [
        "| | seeds | without | paper's weights: difference (95 %) | searched, without | searched: difference (95 %) |",
        "|---|---|---|---|---|---|",
    ]
    for case in CASES:
        own = [row for row in rows if row["case"] == case]
        if len(own) < 2:
            continue
        cells = [f"`{case}`", str(len(own))]
        for control, student in (("without", "paper"), ("searched_without", "searched")):
            difference = interval([row[student] - row[control] for row in own])
            ends = f"({difference.low:+.3f} to {difference.high:+.3f})" if difference.low is not None else ""
            cells += [f"{interval([row[control] for row in own]).mean:.3f}", f"{difference.mean:+.3f} {ends}"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--storage", type=Path, default=Path("runs"))
    torch.set_num_threads(1)
    options = parser.parse_args()
    for seed in range(FIRST_SEED, FIRST_SEED + options.seeds):
        for case in CASES:
            if any((row["case"], row["seed"]) == (case, seed) for row in known()):
                continue
            folder = run_of(case, options.storage)
            experiment = with_teacher(Experiment.load(str(folder / "experiment.yaml")), options.storage)
            settings = settings_of(experiment, folder)
            values = {name: train(experiment, setting, seed) for name, setting in settings.items()}
            with RESULT.open("a") as file:
                print(json.dumps({"case": case, "seed": seed, **values}), file=file)
        print(f"{table(known())}\n", flush=True)


if __name__ == "__main__":
    main()
