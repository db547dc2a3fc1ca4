"""A trial as the driver knows it, who follows it, and what a later search remembers of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, TypedDict

from kdsearch.auto import AUTO, METHOD, gathered, spread
from kdsearch.students import STUDENT, anchored, text_in, text_of, without
from kdsearch.tuning.failures import Failures

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kdsearch.experiment import Experiment
    from kdsearch.objective import Report
    from kdsearch.results import Results
    from kdsearch.settings import Scalar


PROTECTED = ("paper", "control")
"""Roles of trials that run to the full budget whatever the pruner says: every search reports the gain over these."""


@dataclass
class LiveTrial:
    """What the driver knows of a trial."""

    number: int
    role: str
    hyperparameters: dict[str, Scalar]
    trial_id: int
    """Optuna's, in the record."""
    values: dict[int, float] = field(default_factory=dict)
    durations: dict[int, float] = field(default_factory=dict)
    """Seconds that each epoch took."""
    seen: dict[int, int] = field(default_factory=dict)
    """Images that the student saw in each epoch."""
    state: str = "RUNNING"
    error: str | None = None
    node: str | None = None
    gpus: float = 0.0
    """The share of a GPU that it has or had."""
    failures: Failures = field(default_factory=Failures)

    @property
    def protected(self) -> bool:
        """Whether it runs to the full budget whatever it is worth, which is why the sampler is not told of it: one
        that models values by how far a trial came takes it for good (benchmarks/README, Search cost)."""
        return self.role in PROTECTED

    @property
    def seconds(self) -> float:
        return sum(self.durations.values())

    @property
    def images(self) -> int:
        return sum(self.seen.values())

    @property
    def last(self) -> float | None:
        return self.values[max(self.values)] if self.values else None


class Memory(TypedDict):
    """A trial of an earlier run, as the study keeps it for a resumed search."""

    hyperparameters: dict[str, Scalar]
    state: str
    values: list[tuple[int, float]]
    final: float | None


def memories(earlier: Results, experiment: Experiment) -> list[Memory]:
    """The ended trials of an earlier run that the sampler of this search can learn from.

    A search over several methods learns from one of any of them, and that of one from its share of those of several.
    """
    return [
        Memory(
            hyperparameters=setting,
            state=trial.state,
            values=[(point.epoch, point.value) for point in trial.curve],
            final=trial.best if trial.state == "COMPLETE" else trial.last,
        )
        for trial in earlier.trials
        if trial.state in ("COMPLETE", "PRUNED") and trial.role not in PROTECTED and trial.curve
        if (setting := _translated(trial.hyperparameters, earlier.experiment.get("method"), experiment)) is not None
        if (setting := _of_its_students(setting, earlier.experiment, experiment)) is not None
    ]


def _translated(setting: dict[str, Scalar], method: Any, experiment: Experiment) -> dict[str, Scalar] | None:
    """A setting of a run of this method in the names of the experiment; None where it means nothing there."""
    if experiment.method == AUTO and method in experiment.methods:
        return spread(str(method), setting)
    if experiment.method != AUTO and method == AUTO:
        return gathered(experiment.method, setting) if setting.get(METHOD) == experiment.method else None
    return setting


def _of_its_students(
    setting: dict[str, Scalar], earlier: Mapping[str, Any], experiment: Experiment
) -> dict[str, Scalar] | None:
    """The setting of an earlier run as one of the experiment's students; None where it is of another student.

    Where both have one student, trials of another one are a hint too.
    """
    own = setting.get(STUDENT)
    if not experiment.students:
        return without(setting) if own in (None, anchored(text_of(experiment.student))) else None
    own = own or text_in(earlier.get(STUDENT))
    return {STUDENT: own, **without(setting)} if own in experiment.students else None


class Watcher(Protocol):
    """Someone who follows a search: the display, TensorBoard."""

    def trial_started(self, trial: LiveTrial) -> None: ...

    def epoch_told(self, trial: LiveTrial, report: Report) -> None: ...

    def trial_ended(self, trial: LiveTrial, value: float | None) -> None: ...
