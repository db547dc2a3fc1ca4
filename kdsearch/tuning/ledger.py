"""The ledger of a search: which trials there are, what was told of them, and what comes next. No ray.

It writes the record (the Optuna study in `study.journal`, and a database that mirrors it), feeds the sampler, asks
the pruner, and tells whoever watches. Telling is idempotent: the first value of an epoch stays.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, TypedDict

from optuna.trial import TrialState

from kdsearch.tuning.agenda import Agenda
from kdsearch.tuning.distributions import to_params
from kdsearch.tuning.pruner import make_pruner
from kdsearch.tuning.sampler import Sampler

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from kdsearch.experiment import Experiment
    from kdsearch.objective import Report
    from kdsearch.results import Results
    from kdsearch.settings import Scalar
    from kdsearch.tasks.base import Task
    from kdsearch.tuning.record import Record


@dataclass
class LiveTrial:
    """What the driver knows of a trial."""

    number: int
    role: str
    hyperparameters: dict[str, Scalar]
    trial_ids: tuple[int, ...]
    """The trial in each storage of the record."""
    values: dict[int, float] = field(default_factory=dict)
    durations: dict[int, float] = field(default_factory=dict)
    """Seconds that each epoch took."""
    state: str = "RUNNING"
    error: str | None = None
    node: str | None = None

    @property
    def protected(self) -> bool:
        """Whether it runs to the full budget whatever the pruner says: every search reports the gain over these."""
        return self.role in ("paper", "control")

    @property
    def seconds(self) -> float:
        return sum(self.durations.values())

    @property
    def last(self) -> float | None:
        return self.values[max(self.values)] if self.values else None


class Memory(TypedDict):
    """A trial of an earlier run, as the study keeps it for a resumed search."""

    hyperparameters: dict[str, Scalar]
    state: str
    values: list[tuple[int, float]]
    final: float | None


def memories(earlier: Results) -> list[Memory]:
    """The ended trials of an earlier run that a sampler can learn from."""
    return [
        Memory(
            hyperparameters=trial.hyperparameters,
            state=trial.state,
            values=[(point.epoch, point.value) for point in trial.curve],
            final=trial.best if trial.state == "COMPLETE" else trial.last,
        )
        for trial in earlier.trials
        if trial.state in ("COMPLETE", "PRUNED") and trial.role != "control" and trial.curve
    ]


class Watcher(Protocol):
    """Someone who follows a search: the display, TensorBoard."""

    def trial_started(self, trial: LiveTrial) -> None: ...

    def epoch_told(self, trial: LiveTrial, report: Report) -> None: ...

    def trial_ended(self, trial: LiveTrial, value: float | None) -> None: ...


class Ledger:
    """One search's bookkeeping; called from the driver's event loop only."""

    def __init__(
        self,
        experiment: Experiment,
        task: Task,
        record: Record,
        *,
        tries: Sequence[Mapping[str, Scalar]] = (),
        watchers: Sequence[Watcher] = (),
    ) -> None:
        self.experiment = experiment
        self.task = task
        self.trials: list[LiveTrial] = []
        self.stopping: str | None = None
        """Why no further trial starts and running ones end at their next report; None while the search goes on."""
        self.interrupted = False
        """Whether `stopping` leaves running trials to be resumed."""
        self._unfinished: list[LiveTrial] = []
        self._record = record
        self._watchers = watchers
        self._agenda = Agenda(experiment, tries)
        self._sampler = Sampler(experiment, task.mode, experiment.seed)
        self._pruner = make_pruner(experiment.search, experiment.training.epochs, task.mode, record.study)
        self._started = time.time()
        self._seconds = 0.0

    def restore(self) -> None:
        """Take up the trials that the record holds: ended ones are told, unfinished ones will run again first."""
        for stored, ids in self._record.trials():
            attributes = stored.user_attrs
            hyperparameters, role = attributes["hyperparameters"], attributes["role"]
            trial = LiveTrial(stored.number, role, hyperparameters, ids, dict(stored.intermediate_values))
            self.trials.append(trial)
            if role != "control":
                self._sampler.add(trial.number, hyperparameters)
            for epoch, value in sorted(trial.values.items()):
                self._sampler.tell_value(trial.number, epoch, value)
                self._pruner.learn(trial.number, epoch, value)
            if stored.state == TrialState.RUNNING:
                self._unfinished.append(trial)
                continue
            trial.error = attributes.get("error")
            trial.state = _state(stored.state, trial.error)
            trial.durations[0] = attributes.get("seconds", 0.0)  # of an ended trial only the sum is kept
            self._seconds += trial.durations[0]
            self._sampler.tell_end(trial.number, stored.state, stored.value)

    def learn(self, memories: Sequence[Memory]) -> None:
        """Tell the sampler of trials of another run; those outside this space are passed over."""
        for number, memory in enumerate(memories, start=1):
            # Numbers below zero: they are the sampler's memories, not trials of this search.
            if self._sampler.add(-number, memory["hyperparameters"]):
                for epoch, value in memory["values"]:
                    self._sampler.tell_value(-number, epoch, value)
                self._sampler.tell_end(-number, TrialState[memory["state"]], memory["final"])

    def next_trial(self) -> LiveTrial | None:
        """The next trial to run, recorded; None when it must wait for others to end. See `exhausted`."""
        self._check_budget()
        if self.stopping is None and self._unfinished:
            return self._announce(self._unfinished.pop(0))
        if self.exhausted:
            return None
        number = len(self.trials)
        if number < len(self._agenda.planned):
            role, hyperparameters = self._agenda.planned[number]
            if role != "control":
                self._sampler.add(number, hyperparameters)
        else:
            if self._agenda.begins_phase(number) and any(trial.state == "RUNNING" for trial in self.trials):
                return None
            role, hyperparameters = "search", self._ask(number, self._agenda.phase(number))
        return self._begin(number, role, hyperparameters)

    @property
    def exhausted(self) -> bool:
        """Whether no further trial will start."""
        return self.stopping is not None or (len(self.trials) >= self._agenda.trials and not self._unfinished)

    @property
    def to_run(self) -> int:
        """Trials that this process may still start."""
        return max(0, self._agenda.trials - len(self.trials)) + len(self._unfinished)

    def _ask(self, number: int, phase: tuple[str, ...] | None) -> dict[str, Scalar]:
        base = self.experiment.paper() if phase is None else self._best_so_far()
        return {**base, **self._sampler.ask(number, phase)}

    def _begin(self, number: int, role: str, hyperparameters: dict[str, Scalar]) -> LiveTrial:
        params = to_params(self._record.distributions, hyperparameters)
        ids = self._record.begin(params, {"hyperparameters": hyperparameters, "role": role})
        trial = LiveTrial(number, role, hyperparameters, ids)
        self.trials.append(trial)
        return self._announce(trial)

    def _announce(self, trial: LiveTrial) -> LiveTrial:
        for watcher in self._watchers:
            watcher.trial_started(trial)
        return trial

    def located(self, number: int, node: str, gpu_ids: Sequence[str]) -> None:
        """Where a trial runs; told with its first report and when it moves."""
        trial = self.trials[number]
        if trial.node != node:
            trial.node = node
            self._record.note(trial.trial_ids, node=node, gpu_ids=list(gpu_ids))

    def told(self, number: int, report: Report) -> bool:
        """Take one epoch of a trial; True when the trial is to end now."""
        trial = self.trials[number]
        if not math.isfinite(report.value):
            return self.diverged(number, f"{self.task.metric} = {report.value} after epoch {report.epoch}")
        if report.epoch not in trial.durations:
            trial.durations[report.epoch] = report.seconds
            self._seconds += report.seconds
        if report.epoch not in trial.values:
            trial.values[report.epoch] = report.value
            self._record.value(trial.trial_ids, report.epoch, report.value)
            self._sampler.tell_value(number, report.epoch, report.value)
            for watcher in self._watchers:
                watcher.epoch_told(trial, report)
        self._check_budget()
        return self._verdict(trial, report.epoch)

    def _verdict(self, trial: LiveTrial, epoch: int) -> bool:
        value = trial.values[epoch]
        if epoch >= self.experiment.training.epochs:
            return False  # `completed` follows, with the value of the best weights
        stops = self._pruner.stops(trial.number, trial.trial_ids[0], epoch, value) and not trial.protected
        if self.interrupted:
            return True
        if stops or self.stopping is not None:
            self._end(trial, TrialState.PRUNED, value)
            return True
        return False

    def completed(self, number: int, value: float) -> None:
        """A trial reached the full budget; `value` is the validation metric of the weights it would export."""
        self._end(self.trials[number], TrialState.COMPLETE, value)

    def diverged(self, number: int, error: str) -> bool:
        """A trial's loss or metric is not finite. FAILED for the person; for the study PRUNED at its step with the
        metric's worst value: TPE ignores FAIL and would go on sampling exploding learning rates."""
        trial = self.trials[number]
        epoch = max(trial.values, default=0) + 1
        trial.values[epoch] = self.task.worst
        self._record.value(trial.trial_ids, epoch, self.task.worst)
        self._sampler.tell_value(number, epoch, self.task.worst)
        self._end(trial, TrialState.PRUNED, self.task.worst, error)
        return True

    def failed(self, number: int, error: str) -> None:
        """A trial could not go on: its code raised, or its process died too often."""
        trial = self.trials[number]
        if trial.state == "RUNNING":
            self._end(trial, TrialState.FAIL, None, error)

    def _end(self, trial: LiveTrial, state: TrialState, value: float | None, error: str | None = None) -> None:
        trial.state = _state(state, error)
        trial.error = error
        # A diverged trial's last value stands for the epoch that it did not finish.
        epochs = len(trial.values) - (1 if error and value is not None else 0)
        notes = {"seconds": round(trial.seconds, 3), "epochs": epochs}
        self._record.end(trial.trial_ids, state, value, notes | ({"error": error} if error else {}))
        self._sampler.tell_end(trial.number, state, value)
        for watcher in self._watchers:
            watcher.trial_ended(trial, value)

    def stop(self, why: str, *, interrupted: bool) -> None:
        """Start no further trial and end the running ones at their next report."""
        if self.stopping is None:
            self.stopping, self.interrupted = why, interrupted

    @property
    def gpu_hours(self) -> float:
        """GPU hours spent on training so far."""
        return self._seconds * (self.experiment.resources.gpus_per_trial or 0) / 3600

    def _check_budget(self) -> None:
        search = self.experiment.search
        if search.time is not None and time.time() - self._started >= search.time:
            self.stop(f"the budget of {search.time:g} s is spent", interrupted=False)
        if search.gpu_hours is not None and self.gpu_hours >= search.gpu_hours:
            self.stop(f"the budget of {search.gpu_hours:g} GPU hours is spent", interrupted=False)

    def _best_so_far(self) -> dict[str, Scalar]:
        sign = 1 if self.task.mode == "max" else -1
        known = [trial for trial in self.trials if trial.values and not trial.error and trial.role != "control"]
        if not known:
            return self.experiment.paper()
        best = max(known, key=lambda trial: (len(trial.values), sign * (trial.last or 0)))
        return dict(best.hyperparameters)


def _state(state: TrialState, error: str | None) -> str:
    """A trial's state as the person sees it: a diverged one is FAILED, though PRUNED in the study."""
    return "FAILED" if error or state == TrialState.FAIL else state.name
