"""How a search scales: `python benchmarks/scale.py`, or one part: `… simulated`, `… commands`, `… ray`.

simulated: the ledger with its record, its sampler and its TensorBoard files behind the very searcher and scheduler that
    Ray Tune calls, in one process without Ray; 256 slots whose trials report in an order that is drawn. For 100, 1,000
    and 5,000 trials: milliseconds a result and a new trial, memory a trial.
commands: `kdsearch status` and `kdsearch best` on the run of 5,000 trials that `simulated` left.
ray: 2,000 trials of a stub that imports no torch in 32 slots of a real local Ray with logical CPUs.

Appends a line for each part to benchmarks/results/scale.jsonl, with the load of the machine before and after.
"""

from __future__ import annotations

import argparse
import heapq
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, NamedTuple

from kdsearch import tasks
from kdsearch.experiment import Experiment
from kdsearch.objective import Report

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kdsearch.settings import Scalar
    from kdsearch.tuning.trials import LiveTrial

HERE = Path(__file__).resolve().parent
RESULT = HERE / "results" / "scale.jsonl"
SIZES = (100, 1000, 5000)
SLOTS = 256
EPOCHS = 9
METRICS = {f"loss/{name}": 0.5 for name in ("total", "cross_entropy", "kl")} | {"accuracy/validation": 0.5}


def experiment(trials: int, sampler: str = "tpe", **resources: Any) -> Experiment:
    """Two hyperparameters of soft-target distillation, successive halving from the first epoch."""
    return Experiment(
        method="kd",
        teacher="resnet8",
        name="run",
        space={"temperature": {"low": 1, "high": 20, "log": True}, "alpha": {"low": 0.1, "high": 0.9}},
        training={"epochs": EPOCHS},
        search={"trials": trials, "grace_period": 1, "sampler": sampler},
        resources={"gpus_per_trial": 0, **resources},
    )


def score(hyperparameters: Mapping[str, Scalar], epoch: int) -> float:
    """Rising curves whose end depends on the setting."""
    quality = 1 - abs(float(hyperparameters["temperature"]) - 4) / 20 - abs(float(hyperparameters["alpha"]) - 0.5) / 5
    return quality * epoch / EPOCHS


def megabytes() -> float:
    """Resident memory of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


class Fixed:
    """Room for so many trials, in a pool that nobody shares."""

    exceeded = must_pause = False

    def __init__(self, slots: int) -> None:
        self._slots = slots

    def admits(self, out: list[float], gpus: float) -> bool:
        return len(out) < self._slots

    def look(self, running: int, out: list[float], gpus: float, waiting: int) -> None:
        """Nothing changes."""


@dataclass
class FakeTrial:
    """What the scheduler sees of Tune's trial."""

    trial_id: str
    config: dict[str, Any]
    epoch: int = 0
    run_metadata: Any = field(default_factory=lambda: _Metadata())


class _Metadata:
    def __init__(self) -> None:
        self.metric_analysis: dict[str, Any] = {}
        self.metric_n_steps: dict[str, Any] = {}

    def invalidate_cache(self) -> None:
        """Nothing is cached."""


class Timed:
    """Milliseconds of one kind of call: on the clock, and of this process alone, which other programs do not change."""

    def __init__(self) -> None:
        self.wall: list[float] = []
        self.own: list[float] = []
        self._began = (0.0, 0.0)

    def begin(self) -> None:
        self._began = (time.perf_counter(), time.process_time())

    def end(self) -> None:
        self.wall.append(1000 * (time.perf_counter() - self._began[0]))
        self.own.append(1000 * (time.process_time() - self._began[1]))

    def summary(self) -> dict[str, float]:
        """Means and medians; the mean of the last tenth says what the last trials cost."""
        tenth = max(1, len(self.own) // 10)
        return {
            "wall_ms": sum(self.wall) / len(self.wall),
            "wall_ms_median": median(self.wall),
            "own_ms": sum(self.own) / len(self.own),
            "own_ms_median": median(self.own),
            "own_ms_last_tenth": sum(self.own[-tenth:]) / tenth,
        }


class Due(NamedTuple):
    """The next report of a trial, in an order that is drawn."""

    time: float
    order: int
    trial: FakeTrial


def simulated(trials: int, sampler: str, storage: Path) -> dict[str, Any]:
    """The driver's side of a search, each call timed."""
    from kdsearch.results.tensorboard import write_experiment
    from kdsearch.tuning.bridge import HandedOut, LedgerScheduler, LedgerSearcher
    from kdsearch.tuning.curves import Curves
    from kdsearch.tuning.distributions import distributions
    from kdsearch.tuning.ledger import Ledger
    from kdsearch.tuning.record import JOURNAL, Record

    made = experiment(trials, sampler)
    task = tasks.find(made.task)
    folder = storage / "run"
    folder.mkdir(parents=True)
    (folder / "experiment.yaml").write_text(made.to_yaml())
    (folder / JOURNAL).touch()
    record = Record(folder, "run", task.mode, distributions(made))
    record.describe(metric=task.metric, mode=task.mode, started=time.time(), state="RUNNING", why=None)
    write_experiment(folder, made.space, task.metric, [made.paper(), made.control()])
    curves = Curves(folder / "trials", task.metric, task.mode, EPOCHS)
    ledger = Ledger(made, task, record, watchers=[curves], slots=SLOTS)
    out: Any = HandedOut(ledger, Fixed(SLOTS))  # type: ignore[arg-type]
    searcher, scheduler = LedgerSearcher(out), LedgerScheduler(out)
    draw = random.Random(0)
    due: list[Due] = []
    asked, told = Timed(), Timed()
    before, clock, order = megabytes(), 0.0, 0
    began = time.perf_counter()
    while True:
        while True:
            asked.begin()
            config = searcher.suggest(f"{order}")
            if not isinstance(config, dict):
                break
            asked.end()
            heapq.heappush(due, Due(clock + draw.uniform(0.5, 1.5), order, FakeTrial(f"{order}", config)))
            order += 1
        if not due:
            break
        clock, number, trial = heapq.heappop(due)
        trial.epoch += 1
        result = {**trial.config, "node": "node", "gpu_ids": [], "saved": True, "epoch": trial.epoch}
        value = score(trial.config["hyperparameters"], trial.epoch)
        result["reports"] = [{"epoch": trial.epoch, "value": value, "metrics": METRICS, "seconds": 0.1}]
        if trial.epoch == EPOCHS:
            result["value"] = value
        told.begin()
        if scheduler.on_trial_result(None, trial, result) == "STOP":
            scheduler.on_trial_complete(FakeTrial("controller", {}), trial, result)
            searcher.on_trial_complete(trial.trial_id)
        else:
            heapq.heappush(due, Due(clock + draw.uniform(0.5, 1.5), number, trial))
        told.end()
    wall = time.perf_counter() - began
    record.describe(state="COMPLETE", why="all are done", ended=time.time(), gpu_hours=0)
    record.close()
    return {
        "trials": trials,
        "sampler": sampler,
        "slots": SLOTS,
        "results": len(told.wall),
        "wall_s": wall,
        "results_per_s": len(told.wall) / wall,
        "result": told.summary(),
        "new_trial": asked.summary(),
        "kB_a_trial": 1024 * (megabytes() - before) / trials,
    }


def commands(storage: Path) -> dict[str, Any]:
    """What a person waits for, each three times."""
    found: dict[str, Any] = {}
    kdsearch = str(Path(sys.executable).with_name("kdsearch"))
    for verb in ("status", "best", "ls"):
        wall, own = [], []
        target = [] if verb == "ls" else ["run"]
        for _ in range(3):
            began = time.perf_counter(), _children()
            subprocess.run([kdsearch, verb, *target, "--storage", str(storage)], check=True, stdout=subprocess.DEVNULL)
            wall.append(time.perf_counter() - began[0])
            own.append(_children() - began[1])
        found[verb] = {"wall_s": wall, "own_s": own}
    return found


def _children() -> float:
    """Seconds that the processes that this one started and awaited took of a core."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


@dataclass
class Stub:
    """An objective that sleeps; what it reports is known from the setting."""

    hyperparameters: dict[str, Scalar]
    history: list[Report] = field(default_factory=list)

    SECONDS = 0.1

    def epoch(self) -> Report:
        time.sleep(self.SECONDS)
        number = len(self.history) + 1
        self.history.append(Report(number, score(self.hyperparameters, number), METRICS, self.SECONDS))
        return self.history[-1]

    def save(self, folder: Path) -> None:
        """Nothing to save."""

    def load(self, folder: Path) -> bool:
        return False

    def finish(self, folder: Path) -> float:
        return max(report.value for report in self.history)


class Meter:
    """Watches a search: when each report came, and the driver's memory as trials end."""

    def __init__(self) -> None:
        self.reports: list[float] = []
        self.memory: list[tuple[int, float]] = []
        self._ended = 0

    def trial_started(self, trial: LiveTrial) -> None:
        """Nothing to note."""

    def epoch_told(self, trial: LiveTrial, report: Report) -> None:
        self.reports.append(time.time())

    def trial_ended(self, trial: LiveTrial, value: float | None) -> None:
        self._ended += 1
        if self._ended % 50 == 0:
            self.memory.append((self._ended, megabytes()))
            print(f"{self._ended} trials, {len(self.reports)} results, {megabytes():.0f} MB", file=sys.stderr)


def on_ray(trials: int, slots: int, sampler: str, storage: Path) -> dict[str, Any]:
    """A real search; Ray's logical CPUs are the slots."""
    from kdsearch.tuning import search
    from kdsearch.tuning.pool import ENVIRONMENT

    os.environ.update({**ENVIRONMENT, "RAY_prestart_worker_first_driver": "0"})
    import ray

    ray.init(address="local", num_cpus=slots, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    ray.cloudpickle.register_pickle_by_value(sys.modules["__main__"])
    meter = Meter()
    started = time.time()
    search(experiment(trials, sampler), storage=storage, objectives=Stub, watchers=[meter])
    ended = time.time()
    ray.shutdown()
    first, last = meter.reports[0], meter.reports[-1]
    # The start of 32 processes apart: from a tenth of the reports to the last but a tenth.
    tenth = len(meter.reports) // 10
    steady = meter.reports[tenth : -tenth or None]
    (few, least), (many, most) = meter.memory[0], meter.memory[-1]
    busy = len(meter.reports) * Stub.SECONDS
    return {
        "trials": trials,
        "slots": slots,
        "sampler": sampler,
        "results": len(meter.reports),
        "wall_s": ended - started,
        "start_up_s": first - started,
        "results_per_s": len(meter.reports) / (last - first),
        "results_per_s_steady": (len(steady) - 1) / (steady[-1] - steady[0]),
        "slot_seconds_a_trial_beside_training": (slots * (last - first) - busy) / trials,
        "driver_ms_a_trial_wall": 1000 * (last - first) / trials,
        "driver_kB_a_trial": 1024 * (most - least) / max(1, many - few),
        "driver_MB": meter.memory,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("part", nargs="?", choices=["simulated", "commands", "ray"])
    parser.add_argument("--trials", type=int, help="instead of 100, 1,000 and 5,000, or of 2,000")
    parser.add_argument("--slots", type=int, default=32, help="of Ray")
    parser.add_argument("--sampler", default="tpe")
    parser.add_argument("--dry", action="store_true", help="write no results")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="scale-") as scratch:
        storage = Path(scratch)
        if options.part in (None, "simulated", "commands"):
            sizes = (options.trials,) if options.trials else SIZES
            for size in sizes:
                report("simulated", options, lambda size=size: simulated(size, options.sampler, storage / f"{size}"))
            report("commands", options, lambda: {"trials": sizes[-1]} | commands(storage / f"{sizes[-1]}"))
        if options.part in (None, "ray"):
            trials = options.trials or 2000
            report("ray", options, lambda: on_ray(trials, options.slots, options.sampler, storage / "ray"))


def report(part: str, options: argparse.Namespace, measure: Any) -> None:
    """Measure one part and keep it."""
    before = os.getloadavg()[0]
    line = {"part": part, **measure(), "cores": os.cpu_count(), "load": [before, os.getloadavg()[0]]}
    print(json.dumps(line))
    if not options.dry:
        RESULT.parent.mkdir(exist_ok=True)
        with RESULT.open("a") as file:
            file.write(json.dumps(line) + "\n")


if __name__ == "__main__":
    main()
