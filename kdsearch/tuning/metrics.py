"""A search as Prometheus sees it, through the exporter that every node of a Ray cluster has.

Only searches on a cluster at an address tell metrics; of a Ray that a search started for itself nobody knows the port.
"""

from __future__ import annotations

import contextlib
import sys
import threading
from collections import Counter as Counted
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from kdsearch.experiment import Experiment
    from kdsearch.objective import Report
    from kdsearch.tuning.trials import LiveTrial, Watcher

TRIALS = "kdsearch_trials"
BEST = "kdsearch_best_value"
EPOCHS = "kdsearch_epochs"
GPU_MEMORY = "kdsearch_gpu_memory_bytes"
EXPORTED = (f"ray_{TRIALS}", f"ray_{BEST}", f"ray_{EPOCHS}_total", f"ray_{GPU_MEMORY}")
"""What a scrape finds: Ray puts its name in front, and the unit of counters behind."""

STATES = ("RUNNING", "COMPLETE", "PRUNED", "FAILED")
PULSE_SECONDS = 5.0
"""Ray exports a gauge once each time that it is set, every 10 s, and forgets it 20 s later."""


class Pulse:
    """Calls a function every few seconds in the background, and once more when it ends."""

    def __init__(self, beat: Callable[[], None]) -> None:
        self._beat = beat
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="kdsearch-metrics", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._over.wait(PULSE_SECONDS):
            self._beat()

    def close(self) -> None:
        self._over.set()
        self._thread.join()
        self._beat()


class Metrics:
    """A watcher that tells trials by state, the best value and the epochs, all under the name of the run.

    Args:
        run: the name.
        metric: what is told as the best value.
        mode: `max` or `min`.
        trials: of the search, the ledger's own list: those of a resumed run are told too.
    """

    def __init__(self, run: str, metric: str, mode: str, trials: Sequence[LiveTrial]) -> None:
        from ray.util.metrics import Counter, Gauge

        self._better = max if mode == "max" else min
        self._trials = trials
        self._counts = Gauge(TRIALS, "Trials of a search by state.", tag_keys=("run", "state"))
        self._best = Gauge(BEST, "Best validation metric of a search so far.", tag_keys=("run", "metric"))
        self._epochs = Counter(EPOCHS, "Epochs that the trials of a search have trained.", tag_keys=("run",))
        self._counts.set_default_tags({"run": run})
        self._best.set_default_tags({"run": run, "metric": metric})
        self._epochs.set_default_tags({"run": run})
        self._finals: dict[int, float] = {}
        self._pulse = Pulse(self._tell)

    def _tell(self) -> None:
        trials = list(self._trials)
        counts = Counted(trial.state for trial in trials)
        for state in STATES:
            self._counts.set(counts[state], {"state": state})
        values = [value for trial in trials if trial.error is None for value in list(trial.values.values())]
        values += list(self._finals.values())  # of averaged weights, which may be better than any epoch's
        if values:
            self._best.set(self._better(values))

    def trial_started(self, trial: LiveTrial) -> None:
        self._tell()

    def epoch_told(self, trial: LiveTrial, report: Report) -> None:
        self._epochs.inc()

    def trial_ended(self, trial: LiveTrial, value: float | None) -> None:
        if trial.state == "COMPLETE" and value is not None:
            self._finals[trial.number] = value
        self._tell()

    def close(self) -> None:
        self._pulse.close()


@contextlib.contextmanager
def watching(experiment: Experiment, metric: str, mode: str, trials: Sequence[LiveTrial]) -> Iterator[list[Watcher]]:
    """Inside, the search is told to Prometheus where it runs on a cluster at an address: the watcher that does so."""
    if experiment.resources.address is None:
        yield []
        return
    metrics = Metrics(str(experiment.name), metric, mode, trials)
    try:
        yield [metrics]
    finally:
        metrics.close()


class GPUMemory:
    """Tells how much of its GPU a trial's process holds; to be made in that process.

    Args:
        run: name of the search.
        read: bytes that the process holds now; None where there is no GPU.
    """

    def __init__(self, run: str, read: Callable[[], int | None]) -> None:
        from ray.util.metrics import Gauge

        self._gauge = Gauge(GPU_MEMORY, "Bytes of its GPU that a trial's process holds.", tag_keys=("run", "trial"))
        self._gauge.set_default_tags({"run": run})
        self._read = read
        self._trial: int | None = None
        self._pulse = Pulse(self._tell)

    def begin(self, trial: int) -> None:
        """From now on it is this trial's memory."""
        self._trial = trial

    def _tell(self) -> None:
        if self._trial is not None and (held := self._read()) is not None:
            self._gauge.set(held, {"trial": str(self._trial)})


def held_bytes() -> int | None:
    """Bytes that torch holds of this process's GPU; None while nothing here has used one."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_initialized():
        return None
    return int(torch.cuda.memory_reserved())
