"""A search that is killed at random moments, resumed each time, and compared: `python benchmarks/soak.py --kills 30`.

Its driver dies by SIGKILL, while it works or while it starts, or the process of its running trial does: what and when
is drawn from `--seed`. A search that ends before the kills are used up is followed by another with the next seed. In
the end the run must be, exactly, the one of a search that nobody killed: same trials, values, winner and weights; no
trial begun twice, no result told twice, nothing half done left over. One trial at a time, as the promise has it; each
driver starts a Ray of its own. Counted: epochs that were begun again, and the seconds from a kill's successor's start
(of a killed trial process: from the kill) to the next epoch that begins.

`--mode stub` (the default) has epochs that sleep 0.15 s and checkpoints as the Trainer's; `--mode real` trains IPS,
resnet8 on digits, with the Trainer. Prints a table and writes benchmarks/results/soak.json, each mode beside the other.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from statistics import mean, median
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
sys.path.insert(0, str(ROOT))  # the comparison is that of the tests

from kdsearch.results import Results  # noqa: E402
from tests.faults.harness import assert_tidy, assert_told_once  # noqa: E402

RESULT = HERE / "results" / "soak.json"
LONGEST_START = 300.0
KINDS = {"work": 0.5, "start": 0.25, "worker": 0.25}
"""What is killed, and how often: the driver at work, the driver while it starts, the process of the running trial."""
COMMON: dict[str, Any] = {
    "name": "run",
    # A trial may lose its process as often as it is killed here: the default of 3 is about faults that have a cause.
    "resources": {"gpus_per_trial": 0, "max_concurrent": 1, "max_failures": 1000},
}
MODES: dict[str, dict[str, Any]] = {
    "stub": {
        "seconds": 0.15,
        "window": 4.0,
        "experiment": {
            **COMMON,
            "method": "kd",
            "teacher": "resnet8",
            "space": {"temperature": {"low": 1, "high": 20, "log": True}, "alpha": {"low": 0.1, "high": 0.9}},
            "training": {"epochs": 9, "checkpoint_seconds": 0},
            "search": {"trials": 60, "grace_period": 1},
        },
    },
    "real": {
        "seconds": 0.0,
        "window": 6.0,
        "experiment": {
            **COMMON,
            "method": "ips",
            "data": {"name": "digits", "label_fraction": 0.5},
            "training": {"epochs": 9, "batch_size": 32, "checkpoint_seconds": 0},
            "search": {"trials": 16, "grace_period": 3},
        },
    },
}


class Search:
    """One search in a folder of its own, and the drivers that came and went."""

    def __init__(self, mode: str, seed: int, folder: Path) -> None:
        folder.mkdir()
        self.mode, self.folder, self.drivers = mode, folder, 0
        self.experiment = {**MODES[mode]["experiment"], "seed": seed}
        self.log = folder / "epochs.jsonl"
        self.kills: list[dict[str, Any]] = []
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def run(self) -> Path:
        return self.folder / "run"

    def start(self) -> None:
        """The next driver."""
        begun = (self.run / "experiment.yaml").is_file()
        if not begun and self.run.exists():  # killed while the folder was made: nothing to resume, as README says
            self.run.rename(self.folder / f"no-run-{self.drivers}")
        self.drivers += 1
        plan = {
            "mode": self.mode,
            "verb": "resume" if begun else "search",
            "storage": str(self.folder),
            "experiment": self.experiment,
            "log": str(self.log),
            "driver": self.drivers,
            "seconds": MODES[self.mode]["seconds"],
        }
        environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        with (self.folder / f"driver-{self.drivers}.log").open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, str(HERE / "systems" / "soak_driver.py"), json.dumps(plan)],
                cwd=self.folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def driver(self) -> int:
        """The process of the driver."""
        assert self.process is not None, "started before"
        return self.process.pid

    def epochs(self) -> list[dict[str, Any]]:
        """Every epoch that was begun, in order."""
        if not self.log.exists():
            return []
        return [json.loads(line) for line in self.log.read_text().splitlines()]

    def ended(self) -> bool:
        """Whether the driver ended by itself, which it must do well."""
        assert self.process is not None, "started before"
        code = self.process.poll()
        if code not in (None, 0):
            output = (self.folder / f"driver-{self.drivers}.log").read_text(errors="replace")
            raise SystemExit(f"driver {self.drivers} of {self.folder} ended with {code}:\n{output[-4000:]}")
        return code == 0

    def wait_for_work(self, known: int, began: float) -> float | None:
        """Seconds from `began` to the first epoch beyond the `known` ones; None when the driver ended before."""
        while True:
            epochs = self.epochs()
            if len(epochs) > known:
                return float(epochs[known]["time"]) - began
            if self.ended():
                return None
            if time.time() - began > LONGEST_START:
                raise SystemExit(f"no epoch began within {LONGEST_START:g} s: {self.folder}")
            time.sleep(0.02)

    def wait(self, seconds: float) -> bool:
        """Wait; whether the driver still lives."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and not self.ended():
            time.sleep(0.01)
        return not self.ended()

    def end(self) -> None:
        """Leave no driver behind."""
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    def kill(self, what: str, number: int) -> None:
        os.kill(number, signal.SIGKILL)
        if self.process is not None and number == self.process.pid:
            self.process.wait()
        self.kills.append({"what": what, "epochs": len(self.epochs())})
        print(f"  kill {len(self.kills)}: {what}, {len(self.epochs())} epochs begun", file=sys.stderr, flush=True)


def soak(search: Search, draw: random.Random, kills: int) -> None:
    """Kill and resume until so many kills are done or the search has ended, and let it end."""
    window, start_up = MODES[search.mode]["window"], 10.0
    while True:
        began, known = time.time(), len(search.epochs())
        search.start()
        kind = draw.choices(list(KINDS), list(KINDS.values()))[0] if len(search.kills) < kills else None
        if kind == "start" and search.wait(draw.uniform(0, start_up)):
            search.kill("driver, starting" if len(search.epochs()) == known else "driver, at work", search.driver)
            continue
        back = search.wait_for_work(known, began)
        if back is None:
            return
        start_up = back
        if search.kills and "back" not in search.kills[-1]:
            search.kills[-1]["back"] = back
        while kind == "worker":
            if not search.wait(draw.uniform(0, window)):
                return
            began = time.time()
            try:
                search.kill("trial's process", int(search.epochs()[-1]["worker"]))
            except ProcessLookupError:  # it ended by itself
                continue
            back = search.wait_for_work(search.kills[-1]["epochs"], began)
            if back is None:
                return
            search.kills[-1]["back"] = back
            kind = "work" if len(search.kills) < kills else None
        if kind is None:
            while search.wait(60):
                pass
            return
        if not search.wait(draw.uniform(0, window)):
            return
        search.kill("driver, at work", search.driver)


def found(run: Path) -> list[Any]:
    """Everything that must not depend on what befell a search."""
    results = Results(run)
    trials = [
        (
            trial.number,
            trial.role,
            trial.hyperparameters,
            trial.state,
            trial.best,
            trial.error,
            [(point.epoch, point.value) for point in trial.curve],
        )
        for trial in results.trials
    ]
    best = results.best
    return [results.state, results.why, best and best.number, *trials, (run / "best/student.safetensors").read_bytes()]


def repeated(search: Search) -> list[int]:
    """For each process that trained after another: how many epochs it began that had been begun before."""
    seen: set[tuple[str, int]] = set()
    counts: Counter[tuple[int, int]] = Counter()
    for line in search.epochs():
        life, what = (line["driver"], line["worker"]), (line["setting"], line["epoch"])
        counts[life] += what in seen
        seen.add(what)
    return list(counts.values())


def measure(mode: str, kills: int, seed: int, folder: Path) -> dict[str, Any]:
    draw = random.Random(seed)
    done: list[dict[str, Any]] = []
    again: list[int] = []
    trials = epochs = searches = 0
    while len(done) < kills:
        whole = Search(mode, seed + searches, folder / f"whole-{searches}")
        parts = Search(mode, seed + searches, folder / f"parts-{searches}")
        try:
            whole.start()
            while whole.wait(60):
                pass
            soak(parts, draw, kills - len(done))
        finally:
            whole.end()
            parts.end()
        differences = [pair for pair in zip(found(whole.run), found(parts.run), strict=True) if pair[0] != pair[1]]
        if differences:
            raise SystemExit(f"{parts.folder} differs from {whole.folder}: {str(differences)[:4000]}")
        assert_told_once(parts.run)
        assert_tidy(parts.run)
        searches += 1
        done += parts.kills
        again += repeated(parts)
        if max(again) > 1:  # a checkpoint is written after each epoch
            raise SystemExit(f"{parts.folder}: a kill cost {max(again)} epochs")
        trials += len(Results(parts.run).trials)
        epochs += len(whole.epochs())
        print(f"search {searches}: {len(done)} of {kills} kills, the same", file=sys.stderr, flush=True)
    back = [kill["back"] for kill in done if "back" in kill]
    return {
        "kills": len(done),
        "by_kind": dict(Counter(kill["what"] for kill in done)),
        "searches": searches,
        "trials": trials,
        "epochs": epochs,
        "repeated": sum(again),
        "repeated_most": max(again),
        "repeated_per_kill": sum(again) / len(done),
        "back_median": median(back),
        "back_mean": mean(back),
        "back_most": max(back),
        "back_after_driver": median(kill["back"] for kill in done if "back" in kill and "driver" in kill["what"]),
        "seed": seed,
        "cores": os.cpu_count(),
        "load": os.getloadavg()[1],
        "each": done,
    }


def table(modes: dict[str, Any]) -> str:
    head = "| trials are | kills (driver at work, starting; trial's process) | searches | trials | epochs "
    lines = [f"{head}| begun again | most by one kill | back at work, median s (most) |", "|---" * 8 + "|"]
    for mode, row in modes.items():
        kinds = [row["by_kind"].get(kind, 0) for kind in ("driver, at work", "driver, starting", "trial's process")]
        lines.append(
            f"| {mode} | {row['kills']} ({kinds[0]}, {kinds[1]}; {kinds[2]}) | {row['searches']} | {row['trials']} | "
            f"{row['epochs']} | {row['repeated']} ({row['repeated_per_kill']:.2f} a kill) | {row['repeated_most']} | "
            f"{row['back_median']:.1f} ({row['back_most']:.1f}) |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--mode", choices=MODES, default="stub")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--dry", action="store_true", help="write no results")
    options = parser.parse_args()
    # A path of Ray's sockets may have 107 bytes, so not in a folder that may lie deep.
    scratch = tempfile.mkdtemp(prefix="soak", dir="/tmp")
    os.environ["RAY_TMPDIR"] = scratch
    modes = json.loads(RESULT.read_text())["modes"] if RESULT.exists() else {}
    modes[options.mode] = measure(options.mode, options.kills, options.seed, Path(scratch))
    shutil.rmtree(scratch, ignore_errors=True)  # what differs stays to be looked at
    if not options.dry:
        RESULT.parent.mkdir(exist_ok=True)
        RESULT.write_text(json.dumps({"modes": modes}, indent=1) + "\n")
    print(table(modes))


if __name__ == "__main__":
    main()
