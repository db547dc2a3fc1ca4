"""The bridge between Ray Tune's event loop and the ledger: a searcher that asks it, a scheduler that tells it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import ray
from ray.exceptions import RayTaskError
from ray.tune.experiment import Trial
from ray.tune.progress_reporter import ProgressReporter
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from kdsearch.objective import Report
from kdsearch.tuning.failures import reason_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from kdsearch.tuning.ledger import Ledger
    from kdsearch.tuning.room import Room
    from kdsearch.tuning.trials import LiveTrial


class HandedOut:
    """What the two sides of the bridge share: trials that Ray was given and that have not ended.

    Args:
        ledger: whose trials.
        room: how many of them there may be.
        behind: told a trial's number and node, and why its files are not stored, if they are not; whether to give it
            up.
    """

    def __init__(
        self,
        ledger: Ledger,
        room: Room,
        behind: Callable[[int, str, str | None], bool] = lambda number, node, why: False,
    ) -> None:
        self.ledger = ledger
        self.room = room
        self.behind = behind
        self.trials: dict[str, LiveTrial] = {}
        """By Ray's id."""
        self.raised: dict[str, str] = {}
        """What trials raised, by Ray's id; the scheduler, who is told, puts it there for the searcher."""

    def look(self, running: int) -> None:
        """Have a look at the pool; `running` trials have a process."""
        self.room.look(running, self.gpus, self.ledger.gpus_per_trial, self.ledger.to_run)

    def admits(self) -> bool:
        """Whether there is room for one more."""
        return self.room.admits(self.gpus, self.ledger.gpus_per_trial)

    @property
    def gpus(self) -> list[float]:
        """What each of them takes of a GPU."""
        return [trial.gpus for trial in self.trials.values()]


class LedgerSearcher(Searcher):
    """Hands out the ledger's next trial. A trial that the ledger runs again is a new one for Ray."""

    def __init__(self, out: HandedOut) -> None:
        super().__init__()
        self._out = out

    def set_max_concurrency(self, max_concurrent: int) -> bool:
        """The room says how many: it changes while the search runs."""
        return True

    def suggest(self, trial_id: str) -> Any:
        out, ledger = self._out, self._out.ledger
        if out.admits():
            trial = ledger.next_trial()
            if trial is not None:
                out.trials[trial_id] = trial
                return {
                    "number": trial.number,
                    "hyperparameters": trial.hyperparameters,
                    "gpus": trial.gpus,
                    "begun": bool(trial.values),
                }
        elif not out.trials:
            out.look(running=0)  # Ray asks nobody but the searcher while nothing is handed out
        return Searcher.FINISHED if ledger.exhausted else None

    def on_trial_complete(self, trial_id: str, result: Any = None, error: bool = False) -> None:
        """An end by verdict was told by the scheduler; an error here means that the trial has no process any more."""
        trial, raised = self._out.trials.pop(trial_id), self._out.raised.pop(trial_id, None)
        if error and raised is not None:
            self._out.ledger.failed(trial.number, raised)
        elif error:
            self._out.ledger.lost(trial.number)

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

    def __init__(self, out: HandedOut) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._out = out
        self._ledger = out.ledger

    def choose_trial_to_run(self, tune_controller: Any) -> Any:
        """Called in each step, before Ray starts what the searcher handed out: here slots are given back.

        The answer is a trial for which no process is being started yet: it takes one that is free, if there is one.
        FIFOScheduler's own answer is the oldest trial that waits, for whose sake Ray would end the process that is
        being started for it: where that takes longer than a trial, a search would never fill its slots.
        """
        controller = tune_controller._tune_controller  # Ray hides it behind a warning
        live = controller.get_live_trials()
        pending = {trial for trial in live if trial.status == Trial.PENDING}
        waiting = pending - controller._resetting_trials  # the others take over a process at this moment
        running = sum(trial.status == Trial.RUNNING for trial in live) + len(pending) - len(waiting)
        self._out.look(running)
        if self._out.room.exceeded and self._ledger.stopping is None:
            for trial in waiting:
                self._withdraw(controller, trial)
            waiting.clear()
        if not waiting and not self._out.admits():
            # A process that is kept for a next trial holds its slot; there will be none for now.
            controller._cleanup_cached_actors(force_all=True)
        fresh = waiting - controller._trial_to_actor.keys()
        return min(fresh, key=lambda trial: trial.config["number"], default=None)

    def _withdraw(self, controller: Any, trial: Any) -> None:
        """Take back a trial that waits for a process: of what is given back others are to have it."""
        if trial in controller._staged_trials:  # else Ray would keep as many processes for its sake
            controller._unstage_trial_with_resources(trial)
        self._ledger.paused(trial.config["number"])
        controller.stop_trial(trial)

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        ledger, number = self._ledger, result["number"]
        ledger.located(number, result["node"], result["gpu_ids"])
        for report in result["reports"]:
            if ledger.told(number, Report(**report)):
                return str(TrialScheduler.STOP)
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
        if "value" in result:
            ledger.completed(number, result["value"])
            return str(TrialScheduler.STOP)
        if self._is_given_up(result):
            return str(TrialScheduler.STOP)
        if self._out.room.must_pause and result["saved"]:
            ledger.paused(number)
            return str(TrialScheduler.STOP)
        return str(TrialScheduler.CONTINUE)

    def _is_given_up(self, result: dict[str, Any]) -> bool:
        """Of a trial whose files cannot be stored: whether it waits with nothing else to do, and should not."""
        hopeless = self._out.behind(result["number"], result["node"], result.get("behind"))
        waits = "behind" in result and not result["reports"]
        if not waits or not (hopeless or self._ledger.interrupted):
            return False
        if not self._ledger.interrupted:
            self._ledger.failed(result["number"], result["behind"])
        return True

    def on_trial_complete(self, tune_controller: Any, trial: Any, result: Any) -> None:
        """Its process takes the next trial, unless others are to have the slot.

        Of each ended trial Ray keeps statistics of all numbers in its results: 30 kB on the driver, for nobody.
        """
        tune_controller._reuse_actors = not self._out.room.exceeded
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
            self._out.raised[trial.trial_id] = reason_of(error.cause)

    def __getstate__(self) -> dict[str, Any]:
        return {}


class Silent(ProgressReporter):
    """Ray's own tables are off: the watchers show the search."""

    def should_report(self, trials: Any, done: bool = False) -> bool:
        return False

    def report(self, trials: Any, done: bool, *sys_info: Any) -> None:
        """Nothing."""
