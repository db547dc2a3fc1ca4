"""How students of two searches stand what they were not trained on: `python benchmarks/robustness.py RUN CONTROL`.

The winner's setting of each run is trained on fresh seeds to the full budget of its own experiment, and each student is
asked what `kdsearch evaluate --corruptions --fgsm … --calibration` asks, on validation. Each pair of students becomes a
line of benchmarks/results/robustness.jsonl; what is there is not trained again. Prints the differences, paired by seed,
with 95 % intervals.
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

from kdsearch.experiment import Experiment
from kdsearch.results import Results
from kdsearch.results.statistics import interval
from kdsearch.training.evaluation import Questions, evaluate_export
from kdsearch.training.single import train_student

RESULT = Path(__file__).resolve().parent / "results" / "robustness.jsonl"
FIRST_SEED = 201
"""Far from those of a search and of its confirmation."""
EPSILONS = (0.01, 0.03, 0.1)
QUESTIONS = Questions(corruptions=True, fgsm=EPSILONS, calibration=True)
NAMES = ["accuracy", "corruptions", *(f"fgsm {size:g}" for size in EPSILONS), "ece"]


def asked(run: Path, seed: int, *, allow_code: bool) -> dict[str, float]:
    """A student of the run's winner on this seed, trained and asked."""
    best = Results(run).best
    assert best is not None, f"{run} has no winner"
    experiment = Experiment.load(str(run / "experiment.yaml"), allow_code=allow_code)
    fixed = {"space": dict(best.hyperparameters), "seed": seed}
    with tempfile.TemporaryDirectory() as folder:
        student = Path(folder) / "student"
        train_student(Experiment(**{**experiment.model_dump(mode="json"), **fixed}), student)
        answer = evaluate_export(student, questions=QUESTIONS, allow_code=True)
    return {
        "accuracy": answer["metrics"]["accuracy"],
        "corruptions": answer["corruptions"]["mean"],
        **{f"fgsm {size}": value for size, value in answer["fgsm"].items()},
        "ece": answer["calibration"]["ece"],
    }


def known() -> list[dict[str, Any]]:
    return [json.loads(line) for line in RESULT.read_text().splitlines()] if RESULT.is_file() else []


def table(pair: list[str]) -> str:
    """The differences of one pair of runs."""
    rows = [row for row in known() if row["runs"] == pair]
    lines = [f"| {len(rows)} seeds | {pair[1]} | {pair[0]} | difference (95 %) |", "|---|---|---|---|"]
    for name in NAMES:
        first, second = ([row[which][name] for row in rows] for which in ("run", "control"))
        found = interval([mine - other for mine, other in zip(first, second, strict=True)])
        ends = f" ({found.low:+.3f} to {found.high:+.3f})" if found.low is not None else ""
        means = [interval(values).mean for values in (second, first)]
        lines.append(f"| {name} | {means[0]:.3f} | {means[1]:.3f} | {found.mean:+.3f}{ends} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="folder of a run")
    parser.add_argument("control", type=Path, help="folder of the run that it is compared with")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--allow-code", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    pair = ["/".join(run.resolve().parts[-2:]) for run in (options.run, options.control)]
    for seed in range(FIRST_SEED, FIRST_SEED + options.seeds):
        if not any((row["runs"], row["seed"]) == (pair, seed) for row in known()):
            found = {
                which: asked(run, seed, allow_code=options.allow_code)
                for which, run in (("run", options.run), ("control", options.control))
            }
            with RESULT.open("a") as file:
                print(json.dumps({"runs": pair, "seed": seed, **found}), file=file)
    print(table(pair))


if __name__ == "__main__":
    main()
