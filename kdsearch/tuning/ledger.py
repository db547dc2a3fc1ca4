"""The ledger of a search: which trials there are, what was told of them, and what comes next. No ray.

It writes the record (the Optuna study in `study.journal`, and a database that mirrors it), feeds the sampler, asks
the pruner, and tells whoever watches. Telling is idempotent: the first value of an epoch stays.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from optuna.trial import TrialState

from kdsearch.tuning.agenda import Agenda
from kdsearch.tuning.distributions import to_params
from kdsearch.tuning.failures import Failures, common, larger_share
from kdsearch.tuning.pruner import make_pruner
from kdsearch.tuning.sampler import Sampler
from kdsearch.tuning.spending import Spending
from kdsearch.tuning.trials import PROTECTED, LiveTrial

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from kdsearch.experiment import Experiment
    from kdsearch.objective import Report
    from kdsearch.settings import Scalar
    from kdsearch.tasks.base import Task
    from kdsearch.tuning.record import Record
    from kdsearch.tuning.trials import Memory, Watcher


FEWEST_TO_JUDGE = 4
"""Trials (the paper's setting and the control among them) that must fail alike before a search is given up."""


class Ledger:
    """One search's bookkeeping; called from the driver's event loop only."""

    def __init__(
        self,
        experiment: Experiment,
        task: Task,
        record: Record,
        *,
        tries: Sequence[Mapping[str, Scalar]] = (),
        reserve: Mapping[str, float] | None = None,
        watchers: Sequence[Watcher] = (),
        announce: Callable[[str], None] = lambda sentence: None,
        slots: int = 1,
    ) -> None:
        self.experiment = experiment
        self.task = task
        self.trials: list[LiveTrial] = []
        self.stopping: str | None = None
        """Why no further trial starts and running ones end at their next report; None while the search goes on."""
        self.interrupted = False
        """Whether `stopping` leaves running trials to be resumed."""
        self.hopeless = False
        """Whether it stopped because trial after trial failed for one reason."""
        self.full_disk: str | None = None
        """Where no room was left to write, when that is why it stopped."""
        self.gpus_per_trial = experiment.resources.gpus
        """The share of a GPU that the next trial takes: more than asked for, once one ran out of GPU memory."""
        self._enough_to_judge = max(FEWEST_TO_JUDGE, slots)
        self._unfinished: list[LiveTrial] = []
        self._open: set[int] = set()
        """Trials that have not ended."""
        self._record = record
        self._watchers = watchers
        self._announce = announce
        self._agenda = Agenda(experiment, tries)
        self._spending = Spending(experiment.search, reserve or {}, record.seconds_before)
        self._sampler = Sampler(experiment, task.mode, experiment.seed)
        self._pruner = make_pruner(experiment, task.mode, record.study, lambda number: self.trials[number])

    def restore(self) -> None:
        """Take up the trials that the record holds: ended ones are told, unfinished ones will run again first."""
        self.gpus_per_trial = max(self.gpus_per_trial, self._record.study.user_attrs.get("gpus_per_trial", 0.0))
        for stored in self._record.trials():
            attributes = stored.user_attrs
            hyperparameters, role = attributes["hyperparameters"], attributes["role"]
            trial = LiveTrial(stored.number, role, hyperparameters, stored._trial_id, dict(stored.intermediate_values))
            trial.gpus = attributes.get("gpus", self.gpus_per_trial)
            self.trials.append(trial)
            if not trial.protected:
                self._sampler.add(trial.number, hyperparameters)
            for epoch, value in sorted(trial.values.items()):
                self._sampler.tell_value(trial.number, epoch, value)
                self._pruner.learn(trial.number, epoch, value)
            if stored.state == TrialState.RUNNING:
                trial.failures = Failures(list(attributes.get("failures", [])), attributes.get("losses", 0))
                self._unfinished.append(trial)
                self._open.add(trial.number)
                continue
            trial.error = attributes.get("error")
            trial.state = _state(stored.state, trial.error)
            trial.durations[0] = attributes.get("seconds", 0.0)  # of an ended trial only the sum is kept
            trial.seen[0] = attributes.get("images", 0)
            self._spending.add(trial.durations[0], trial.seen[0], trial.gpus)
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
        if self.stopping is not None:
            return None
        if self._unfinished:
            return self._start(self._unfinished.pop(0))
        if len(self.trials) >= self._agenda.trials:
            return None
        number = len(self.trials)
        if number < len(self._agenda.planned):
            role, hyperparameters = self._agenda.planned[number]
            if role not in PROTECTED:
                self._sampler.add(number, hyperparameters)
        else:
            if self._agenda.begins_phase(number) and self._open:
                return None
            role, hyperparameters = "search", self._ask(number)
        return self._begin(number, role, hyperparameters)

    @property
    def exhausted(self) -> bool:
        """Whether no further trial will start; one that runs may yet fail and be run again."""
        if self.stopping is not None:
            return True
        return len(self.trials) >= self._agenda.trials and not self._open

    @property
    def to_run(self) -> int:
        """Trials that this process may still start."""
        return max(0, self._agenda.trials - len(self.trials)) + len(self._unfinished)

    def _ask(self, number: int) -> dict[str, Scalar]:
        phase = self._agenda.phase(number)
        if phase is None:
            return self.experiment.completed(self._sampler.ask(number))
        return {**self._best_so_far(), **self._sampler.ask(number, phase)}

    def _begin(self, number: int, role: str, hyperparameters: dict[str, Scalar]) -> LiveTrial:
        params = to_params(self._record.distributions, hyperparameters)
        trial_id = self._record.begin(params, {"hyperparameters": hyperparameters, "role": role})
        trial = LiveTrial(number, role, hyperparameters, trial_id)
        self.trials.append(trial)
        self._open.add(number)
        return self._start(trial)

    def _start(self, trial: LiveTrial) -> LiveTrial:
        trial.gpus = self.gpus_per_trial
        for watcher in self._watchers:
            watcher.trial_started(trial)
        return trial

    def located(self, number: int, node: str, gpu_ids: Sequence[str]) -> None:
        """Where a trial runs; told with its first report and when it moves."""
        trial = self.trials[number]
        if trial.node != node:
            trial.node = node
            self._record.note(trial.trial_id, node=node, gpu_ids=list(gpu_ids))

    def told(self, number: int, report: Report) -> bool:
        """Take one epoch of a trial; True when the trial is to end now."""
        trial = self.trials[number]
        if not math.isfinite(report.value):
            why = f"{self.task.metric} = {report.value} after epoch {report.epoch}"
            return self.diverged(number, why, report.epoch)
        if report.epoch not in trial.durations:
            trial.durations[report.epoch], trial.seen[report.epoch] = report.seconds, report.images
            self._spending.add(report.seconds, report.images, trial.gpus)
        if report.epoch not in trial.values:
            trial.values[report.epoch] = report.value
            # Watchers first: they can be told again after a crash in between, the study remembers that it was told.
            for watcher in self._watchers:
                watcher.epoch_told(trial, report)
            self._record.value(trial.trial_id, report.epoch, report.value)
            self._sampler.tell_value(number, report.epoch, report.value)
        self._check_budget()
        return self._verdict(trial, report.epoch)

    def _verdict(self, trial: LiveTrial, epoch: int) -> bool:
        if epoch >= self.experiment.search.trial_epochs(self.experiment.training.epochs):
            return False  # `completed` follows, with the value of the best weights
        stops = False
        if epoch == max(trial.values):  # told again, earlier epochs keep the verdict that they had
            value = trial.values[epoch]
            stops = self._pruner.stops(trial.number, trial.trial_id, epoch, value) and not trial.protected
        if self.interrupted:
            return True
        if stops or self.stopping is not None:
            self._end(trial, TrialState.PRUNED, trial.last)
            return True
        return False

    def completed(self, number: int, value: float) -> None:
        """A trial reached the full budget; `value` is the validation metric of the weights it would export."""
        self._end(self.trials[number], TrialState.COMPLETE, value)

    def diverged(self, number: int, error: str, epoch: int) -> bool:
        """A trial's loss or metric is not finite in this epoch. FAILED for the person; for the study PRUNED at its step
        with the metric's worst value: TPE ignores FAIL and would go on sampling exploding learning rates. It is not
        run again, since its setting is to blame."""
        trial = self.trials[number]
        if trial.values.get(epoch) != self.task.worst:  # else a driver that died here had told it
            epoch = max(epoch, max(trial.values, default=0) + 1)
            trial.values[epoch] = self.task.worst
            self._record.value(trial.trial_id, epoch, self.task.worst)
            self._sampler.tell_value(number, epoch, self.task.worst)
        self._end(trial, TrialState.PRUNED, self.task.worst, error)
        return True

    def failed(self, number: int, reason: str) -> None:
        """A trial failed by itself: once more from its checkpoint, unless it failed for that reason before."""
        trial = self.trials[number]
        again = trial.failures.failed(reason, self.experiment.resources.max_failures)
        self._again_or_end(trial, again, reason)

    def lost(self, number: int) -> None:
        """A trial lost its process or its node."""
        trial, allowed = self.trials[number], self.experiment.resources.max_failures
        again = trial.failures.lost(allowed)
        times = "time" if trial.failures.losses == 1 else "times"
        reason = f"its process died {trial.failures.losses} {times} (resources.max_failures = {allowed})"
        self._again_or_end(trial, again, reason)

    def paused(self, number: int) -> None:
        """A trial makes room for another search: it goes on from its checkpoint when there is room again."""
        self._unfinished.append(self.trials[number])

    def out_of_memory(self, number: int, reason: str) -> None:
        """A trial ran out of GPU memory: it and all that follow take a larger share, where there is one."""
        trial = self.trials[number]
        share = larger_share(trial.gpus)
        if share is None:
            self.failed(number, f"out of GPU memory, with a GPU for itself; a smaller batch_size may help: {reason}")
            return
        if share > self.gpus_per_trial:
            self.gpus_per_trial = share
            self._record.describe(gpus_per_trial=share)
        sentence = (
            f"trial {number} ran out of GPU memory with {trial.gpus:g} GPUs: it runs again with "
            f"{self.gpus_per_trial:g}, and so do all that follow"
        )
        self._again_or_end(trial, True, reason, sentence)

    def _again_or_end(self, trial: LiveTrial, again: bool, reason: str, sentence: str | None = None) -> None:
        self._record.note(trial.trial_id, failures=trial.failures.reasons, losses=trial.failures.losses)
        if self.interrupted:
            return  # it stays RUNNING: whoever resumes runs it again
        if again and self.stopping is None:
            self._announce(sentence or f"trial {trial.number} runs again: {reason}")
            self._unfinished.insert(0, trial)
        elif again and trial.values:
            self._end(trial, TrialState.PRUNED, trial.last)  # the budget is spent
        else:
            self._end(trial, TrialState.FAIL, None, reason)

    def _end(self, trial: LiveTrial, state: TrialState, value: float | None, error: str | None = None) -> None:
        trial.state = _state(state, error)
        self._open.discard(trial.number)
        trial.error = error
        # A diverged trial's last value stands for the epoch that it did not finish.
        epochs = len(trial.values) - (1 if error and value is not None else 0)
        spent = {"seconds": round(trial.seconds, 3), "images": trial.images}
        notes = {**spent, "epochs": epochs, "gpus": trial.gpus, "error": error}
        for watcher in self._watchers:
            watcher.trial_ended(trial, value)
        self._record.end(trial.trial_id, state, value, notes)
        self._sampler.tell_end(trial.number, state, value)
        if error:
            self._check_hope()

    def _check_hope(self) -> None:
        """Stop when all trials that came to anything failed for one reason: the rest of the budget would go there."""
        judged = [trial for trial in self.trials if trial.state != "RUNNING" or trial.values]
        reason = common([trial.error for trial in judged])
        if reason is not None and len(judged) >= self._enough_to_judge and self.stopping is None:
            self.hopeless = True
            self.stop(f"the first {len(judged)} trials all failed for one reason: {reason}", interrupted=False)

    def stop(self, why: str, *, interrupted: bool) -> None:
        """Start no further trial and end the running ones at their next report."""
        if self.stopping is None:
            self.stopping, self.interrupted = why, interrupted
            if not interrupted:
                self._end_unfinished()

    def _end_unfinished(self) -> None:
        """Trials that wait for a process to go on end as running ones do."""
        for trial in self._unfinished:
            if trial.values:
                self._end(trial, TrialState.PRUNED, trial.last)
            else:
                self._end(trial, TrialState.FAIL, None, "the search ended before its first epoch")
        self._unfinished.clear()

    def disk_is_full(self, place: str) -> None:
        """A trial could not write its files: whatever the search was about, it stops and is to be resumed."""
        self.full_disk = place
        self.stopping, self.interrupted = f"no room is left on the disk of {place}", True

    @property
    def gpu_hours(self) -> float:
        """GPU hours spent on training so far."""
        return self._spending.gpu_hours

    def _check_budget(self) -> None:
        if (why := self._spending.exceeded()) is not None:
            self.stop(why, interrupted=False)

    def _best_so_far(self) -> dict[str, Scalar]:
        sign = 1 if self.task.mode == "max" else -1
        known = [trial for trial in self.trials if trial.values and not trial.error and trial.role != "control"]
        if not known:
            return self.experiment.paper()
        best = max(known, key=lambda trial: (len(trial.values), sign * (trial.last or 0)))
        return dict(best.hyperparameters)


def _state(state: TrialState, error: str | None) -> str:
    """A trial's state as the person sees it: a diverged one is FAILED, though PRUNED in the study."""
    return "FAILED" if state == TrialState.FAIL or (state == TrialState.PRUNED and error) else state.name
