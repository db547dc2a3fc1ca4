"""The bridge between Ray Tune's event loop and the ledger: a searcher that asks it, a scheduler that tells it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ray.tune.progress_reporter import ProgressReporter
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from kdsearch.objective import Report

if TYPE_CHECKING:
    from kdsearch.tuning.ledger import Ledger


class LedgerSearcher(Searcher):
    """Hands out the ledger's next trial."""

    def __init__(self, ledger: Ledger) -> None:
        super().__init__()
        self._ledger = ledger
        self._numbers: dict[str, int] = {}

    def suggest(self, trial_id: str) -> Any:
        trial = self._ledger.next_trial()
        if trial is not None:
            self._numbers[trial_id] = trial.number
            return {"number": trial.number, "hyperparameters": trial.hyperparameters}
        return Searcher.FINISHED if self._ledger.exhausted else None

    def on_trial_complete(self, trial_id: str, result: Any = None, error: bool = False) -> None:
        """An end by verdict was told by the scheduler; an error here means that Ray gave the trial up."""
        number = self._numbers.pop(trial_id)
        if error:
            self._ledger.failed(number, "its process died more often than a trial may")

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

    def __init__(self, ledger: Ledger) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._ledger = ledger

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        ledger, number = self._ledger, result["number"]
        ledger.located(number, result["node"], result["gpu_ids"])
        if "failed" in result:
            ledger.failed(number, result["failed"])
            return str(TrialScheduler.STOP)
        if "diverged" in result:
            ledger.diverged(number, result["diverged"])
            return str(TrialScheduler.STOP)
        for report in result["reports"]:
            if ledger.told(number, Report(**report)):
                return str(TrialScheduler.STOP)
        if "value" in result:
            ledger.completed(number, result["value"])
            return str(TrialScheduler.STOP)
        return str(TrialScheduler.CONTINUE)

    def __getstate__(self) -> dict[str, Any]:
        return {}


class Silent(ProgressReporter):
    """Ray's own tables are off: the watchers show the search."""

    def should_report(self, trials: Any, done: bool = False) -> bool:
        return False

    def report(self, trials: Any, done: bool, *sys_info: Any) -> None:
        """Nothing."""
