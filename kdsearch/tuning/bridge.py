"""The bridge between Ray Tune's event loop and the ledger: a searcher that asks it, a scheduler that tells it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import ray
from ray.exceptions import RayTaskError
from ray.tune.progress_reporter import ProgressReporter
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from kdsearch.objective import Report
from kdsearch.tuning.failures import reason_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from kdsearch.tuning.ledger import Ledger


class LedgerSearcher(Searcher):
    """Hands out the ledger's next trial. A trial that the ledger runs again is a new one for Ray.

    Args:
        ledger: whose trials.
        room: how many trials run at a time, by the share of a GPU that each takes.
        raised: what trials raised, by Ray's id of the trial; the scheduler, who is told, puts it there.
    """

    def __init__(self, ledger: Ledger, room: Callable[[float], int], raised: dict[str, str]) -> None:
        super().__init__()
        self._ledger = ledger
        self._room = room
        self._raised = raised
        self._numbers: dict[str, int] = {}

    def suggest(self, trial_id: str) -> Any:
        if len(self._numbers) < self._room(self._ledger.gpus_per_trial):
            trial = self._ledger.next_trial()
            if trial is not None:
                self._numbers[trial_id] = trial.number
                return {"number": trial.number, "hyperparameters": trial.hyperparameters, "gpus": trial.gpus}
        return Searcher.FINISHED if self._ledger.exhausted else None

    def on_trial_complete(self, trial_id: str, result: Any = None, error: bool = False) -> None:
        """An end by verdict was told by the scheduler; an error here means that the trial has no process any more."""
        number, raised = self._numbers.pop(trial_id), self._raised.pop(trial_id, None)
        if error and raised is not None:
            self._ledger.failed(number, raised)
        elif error:
            self._ledger.lost(number)

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the study is the truth, Tune's snapshot is not used."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing: see `save`."""

    def __getstate__(self) -> dict[str, Any]:
        return {}


class LedgerScheduler(FIFOScheduler):
    """Tells the ledger each result before Ray acts on it, and passes its verdict on.

    Ray calls the scheduler before anything else sees a result, so the order of writes is: checkpoint, then study,
    then the next step.
    """

    def __init__(self, ledger: Ledger, raised: dict[str, str]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._ledger = ledger
        self._raised = raised

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        ledger, number = self._ledger, result["number"]
        ledger.located(number, result["node"], result["gpu_ids"])
        if "failed" in result:
            ledger.failed(number, result["failed"])
            return str(TrialScheduler.STOP)
        if "diverged" in result:
            ledger.diverged(number, result["diverged"], result["epoch"])
            return str(TrialScheduler.STOP)
        if "out_of_memory" in result:
            ledger.out_of_memory(number, result["out_of_memory"])
            return str(TrialScheduler.STOP)
        if "full_disk" in result:
            ledger.disk_is_full(result["full_disk"])
            return str(TrialScheduler.STOP)
        for report in result["reports"]:
            if ledger.told(number, Report(**report)):
                return str(TrialScheduler.STOP)
        if "value" in result:
            ledger.completed(number, result["value"])
            return str(TrialScheduler.STOP)
        return str(TrialScheduler.CONTINUE)

    def on_trial_complete(self, tune_controller: Any, trial: Any, result: Any) -> None:
        """Of each ended trial Ray keeps statistics of all numbers in its results: 30 kB on the driver, for nobody."""
        trial.run_metadata.metric_analysis.clear()
        trial.run_metadata.metric_n_steps.clear()
        trial.run_metadata.invalidate_cache()

    def on_trial_error(self, tune_controller: Any, trial: Any) -> None:
        """A trial's process raised, or is gone; Ray's searchers are told no more than that something was wrong."""
        if trial.pickled_error_file is None:
            return
        # Written by this process a moment ago, into its own scratch folder.
        error = ray.cloudpickle.loads(Path(trial.pickled_error_file).read_bytes())
        if isinstance(error, RayTaskError):
            self._raised[trial.trial_id] = reason_of(error.cause)

    def __getstate__(self) -> dict[str, Any]:
        return {}


class Silent(ProgressReporter):
    """Ray's own tables are off: the watchers show the search."""

    def should_report(self, trials: Any, done: bool = False) -> bool:
        return False

    def report(self, trials: Any, done: bool, *sys_info: Any) -> None:
        """Nothing."""
