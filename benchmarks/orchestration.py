"""Four systems on the same search, side by side: `python benchmarks/orchestration.py --repetitions 3`.

Each system is a fresh process with 32 trials of IPS, resnet8 (77,754 parameters) on digits, batch 64, at most 27
epochs, successive halving from 3 epochs by thirds, 2 trials at a time; all of them train with kdsearch's own Trainer.
Measured per run: wall time of the command; epochs trained; the epochs' own seconds; the share of the slots' time that
these fill; the time from the command to the first training step and from the last to the end. Beside them: a bare
`ray.init` with one worker that imports torch, and kdsearch with a stub of 64 trials × 20 epochs of 10 ms, which shows
the orchestration alone.

Prints a table, writes benchmarks/results/orchestration.json and benchmarks/pictures/orchestration.png. Syne Tune takes
part with `--syne-tune PYTHON`, an interpreter that has it and what kdsearch needs.
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
from statistics import median
from typing import Any, NamedTuple

from bars import draw_bars

HERE = Path(__file__).resolve().parent
RESULT = HERE / "results" / "orchestration.json"
PICTURE = HERE / "pictures" / "orchestration.png"
SLOTS = 2
SYSTEMS = {"kdsearch": "kdsearch", "ray": "stock Ray Tune", "optuna": "plain Optuna", "syne": "Syne Tune"}
OTHERS = {"bare": "bare ray.init + import", "stub": "kdsearch, 10 ms stub"}
MEASURES = {
    "wall": "wall s",
    "epochs": "epochs",
    "training": "training s",
    "use": "slot use",
    "steady_use": "use after start",
    "full_use": "until the last trial is alone",
    "pauses": "between epochs",
    "wall_per_epoch": "wall/epoch s",
    "start_up": "start-up s",
    "end": "end s",
}


def command(system: str, folder: Path, options: argparse.Namespace, seed: int) -> list[str]:
    """What a person would type."""
    scripts = HERE / "systems"
    kdsearch = str(Path(sys.executable).with_name("kdsearch"))
    flags = f"search ips --data digits --student resnet8 --name run --seed {seed} --max-concurrent {SLOTS}"
    budget = ["--trials", str(options.trials), "--max-epochs", str(options.epochs), "--storage", str(folder)]
    budget += ["--set", "search.restarts=false"]  # the others' trials do not begin anew at rungs
    return {
        "kdsearch": [kdsearch, *flags.split(), *budget],
        "ray": [sys.executable, str(scripts / "ray_tune.py"), str(folder)],
        "optuna": [sys.executable, str(scripts / "plain_optuna.py"), str(folder)],
        "syne": [str(options.syne_tune), str(scripts / "syne.py")],
        "bare": [sys.executable, str(scripts / "bare_ray.py")],
        "stub": [sys.executable, str(scripts / "stub.py"), str(folder)],
    }[system]


def measure(system: str, options: argparse.Namespace, repetition: int) -> dict[str, Any]:
    """One run of one system. What it prints goes to a file, which is shown when it fails."""
    with tempfile.TemporaryDirectory(prefix="orchestration-") as scratch:
        folder = Path(scratch)
        environment = os.environ | {
            "BENCHMARK_TRIALS": str(options.trials),
            "BENCHMARK_EPOCHS": str(options.epochs),
            "BENCHMARK_SEED": str(repetition),
            "BENCHMARK_LOG": str(folder / "epochs.jsonl"),
            "OMP_NUM_THREADS": "1",
            "SYNETUNE_FOLDER": str(folder / "syne"),
        }
        with (folder / "output").open("w") as output:
            started = time.time()
            code = subprocess.call(
                command(system, folder, options, repetition),
                stdout=output,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                env=environment,
                cwd=folder,
            )
            ended = time.time()
        if code != 0:
            raise SystemExit(f"{system} ended with {code}:\n" + (folder / "output").read_text()[-3000:])
        reports = told(folder / "run") if (folder / "run").is_dir() else logged(folder / "epochs.jsonl")
    return {"system": system, "repetition": repetition, **summary(started, ended, reports)}


class Epoch(NamedTuple):
    """When an epoch had ended (seconds since the epoch of Unix), what it took, and whose it was."""

    ended: float
    seconds: float
    trial: str


def told(run: Path) -> list[Epoch]:
    """The epochs of a kdsearch run, as its TensorBoard files say.

    There stands when the driver was told of an epoch. Short ones are told together: each but the last has ended when
    the next one began, at the latest.
    """
    from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

    found = []
    for file in (run / "trials").glob("*/events.out.tfevents.*"):
        epochs = [
            (event.wall_time, value.tensor.float_val[0])
            for event in EventFileLoader(str(file)).Load()
            for value in event.summary.value
            if value.tag == "training/seconds"
        ]
        next_began = float("inf")
        for when, seconds in reversed(epochs):
            found.append(Epoch(min(when, next_began), seconds, file.parent.name))
            next_began = found[-1].ended - seconds
    return sorted(found)


def logged(file: Path) -> list[Epoch]:
    """The same of the other systems, as their trials logged it."""
    if not file.exists():
        return []
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    return sorted(Epoch(**line) for line in lines)


def summary(started: float, ended: float, reports: list[Epoch]) -> dict[str, float]:
    """The measures of one run."""
    wall = ended - started
    training = sum(epoch.seconds for epoch in reports)
    first = min(epoch.ended - epoch.seconds for epoch in reports)
    last = max(epoch.ended for epoch in reports)
    if training == 0:  # no search
        return {"wall": wall, "start_up": first - started, "end": ended - last}
    return {
        "wall": wall,
        "epochs": len(reports),
        "training": training,
        "use": training / (SLOTS * wall),
        "steady_use": training / (SLOTS * (last - first)),
        "full_use": training / (SLOTS * (last - first) - alone(reports)),
        "pauses": pauses(reports) / (SLOTS * (last - first)),
        "wall_per_epoch": wall / len(reports),
        "start_up": first - started,
        "end": ended - last,
    }


def alone(reports: list[Epoch]) -> float:
    """Seconds at the end in which one trial runs beside an empty slot, as no setting is left to try."""
    ended = {epoch.trial: epoch.ended for epoch in reports}
    *_, before_last, last = sorted(ended.values())
    return last - before_last


def pauses(reports: list[Epoch]) -> float:
    """Seconds between the epochs of a trial, over all trials."""
    found, before = 0.0, {}
    for epoch in reports:
        if epoch.trial in before:
            found += epoch.ended - epoch.seconds - before[epoch.trial]
        before[epoch.trial] = epoch.ended
    return found


def medians(runs: list[dict[str, Any]]) -> dict[str, dict[str, dict[str, float]]]:
    """System → measure → median, least and most over the repetitions."""
    found: dict[str, dict[str, dict[str, float]]] = {}
    for system in dict.fromkeys(run["system"] for run in runs):
        own = [run for run in runs if run["system"] == system]
        found[system] = {}
        for name in MEASURES:
            values = [run[name] for run in own if name in run]
            if not values:
                continue
            found[system][name] = {"median": median(values), "least": min(values), "most": max(values)}
    return found


def ratios(runs: list[dict[str, Any]]) -> dict[str, float]:
    """Medians over the repetitions of kdsearch's cost over another's in the same repetition."""

    def ratio(measure: str, other: str) -> float | None:
        by = {(run["system"], run["repetition"]): run for run in runs}
        found = [
            run[measure] / by[other, run["repetition"]][measure]
            for run in runs
            if run["system"] == "kdsearch" and measure in by.get((other, run["repetition"]), {})
        ]
        return median(found) if found else None

    known = {
        **{f"wall per epoch / {name}": ratio("wall_per_epoch", other) for other, name in SYSTEMS.items()},
        "start-up / bare ray": ratio("start_up", "bare"),
    }
    return {name: value for name, value in known.items() if value is not None and "kdsearch" not in name}


def table(found: dict[str, dict[str, dict[str, float]]]) -> str:
    """Markdown: medians, with least–most in brackets."""
    lines = ["| system | " + " | ".join(MEASURES.values()) + " |", "|---" * (len(MEASURES) + 1) + "|"]
    for system, measures in found.items():
        cells = [_cell(measures[name]) if name in measures else "" for name in MEASURES]
        lines.append(f"| {(SYSTEMS | OTHERS)[system]} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _cell(value: dict[str, float]) -> str:
    def short(number: float) -> str:
        return f"{number:.3g}" if number < 1000 else f"{number:.0f}"

    if value["least"] == value["most"]:
        return short(value["median"])
    return f"{short(value['median'])} ({short(value['least'])}–{short(value['most'])})"


def side_by_side(runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The runs of those repetitions in which every system took part."""
    systems = {run["system"] for run in runs} & SYSTEMS.keys()
    taken: dict[int, set[str]] = {}
    for run in runs:
        taken.setdefault(run["repetition"], set()).add(run["system"])
    return [run for run in runs if systems <= taken[run["repetition"]]]


def draw(found: dict[str, dict[str, dict[str, float]]]) -> None:
    shown = {name: SYSTEMS[name] for name in SYSTEMS if name in found}
    panels = [
        (title, [(label, found[name][measure]["median"]) for name, label in shown.items()], form)
        for title, measure, form in (
            ("wall time per epoch trained, seconds", "wall_per_epoch", "{:.3f}"),
            ("share of the slots' time that is training", "use", "{:.0%}"),
        )
    ]
    draw_bars(PICTURE, panels)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--trials", type=int, default=32)
    parser.add_argument("--epochs", type=int, default=27)
    parser.add_argument("--systems", nargs="+", choices=[*SYSTEMS, *OTHERS], default=None)
    parser.add_argument("--syne-tune", metavar="PYTHON", help="interpreter that has Syne Tune")
    parser.add_argument("--dry", action="store_true", help="write neither results nor picture")
    parser.add_argument("--add", action="store_true", help="add to the repetitions that the results hold")
    options = parser.parse_args()
    systems = options.systems or ["bare", "kdsearch", "optuna", "ray", *(["syne"] if options.syne_tune else []), "stub"]
    runs = json.loads(RESULT.read_text())["runs"] if options.add and RESULT.exists() else []
    first = 1 + max((run["repetition"] for run in runs), default=-1)
    for repetition in range(first, first + options.repetitions):
        for system in systems:  # side by side: whatever slows the machine down meets all of them
            load = os.getloadavg()[0]
            runs.append(measure(system, options, repetition) | {"load_before": load})
            print(json.dumps(runs[-1]), file=sys.stderr, flush=True)
            if not options.dry:
                report(runs, options)
    found = medians(runs)
    print(table(found))
    for name, value in ratios(runs).items():
        print(f"{name}: {value:.3f}")
    if not options.dry and found.keys() & SYSTEMS.keys():
        draw(medians(side_by_side(runs)))


def report(runs: list[dict[str, Any]], options: argparse.Namespace) -> None:
    """Written after each run, so that one that is interrupted keeps what was measured."""
    workload = {"trials": options.trials, "epochs": options.epochs, "slots": SLOTS, "cores": os.cpu_count()}
    content = {"workload": workload, "medians": medians(runs), "ratios": ratios(runs), "runs": runs}
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
