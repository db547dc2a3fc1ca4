"""What is tried in which order: the settings known beforehand, then phases of the sampler's choice."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kdsearch.auto import AUTO
from kdsearch.students import STUDENT
from kdsearch.tuning.distributions import distributions, grid_size

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from kdsearch.experiment import Experiment
    from kdsearch.settings import Scalar


class Agenda:
    """The plan of a search, as a function of the trial's number."""

    def __init__(self, experiment: Experiment, tries: Sequence[Mapping[str, Scalar]] = ()) -> None:
        self._phases = experiment.search.phases
        self.planned = _planned(experiment, tries)
        """Role and setting of the trials that are not asked of the sampler."""
        self.trials = _trials(experiment, len(self.planned))
        """How many trials there are at most."""

    def phase(self, number: int) -> tuple[str, ...] | None:
        """The hyperparameters that vary at this trial; None: all of them."""
        index = self._phase(number)
        return None if index is None else self._phases[index].search

    def begins_phase(self, number: int) -> bool:
        """Whether this trial is the first of a phase, which builds on the best of all before."""
        first = number == len(self.planned) or self._phase(number) != self._phase(number - 1)
        return self._phase(number) is not None and first

    def _phase(self, number: int) -> int | None:
        end = len(self.planned)
        for index, phase in enumerate(self._phases):
            end += phase.trials
            if number < end:
                return index
        return None


def _planned(experiment: Experiment, tries: Sequence[Mapping[str, Scalar]]) -> list[tuple[str, dict[str, Scalar]]]:
    """The paper's setting, the control, and what the person knows to be good.

    Where a person has fixed every hyperparameter that was to be searched, the question is how that one setting
    compares: it is tried beside the paper's own, which keeps nothing of it. Not where the setting turns a teacher off:
    a control from scratch has no trial that is taught.
    """
    if experiment.method == AUTO:
        return _of_each_method(experiment, tries)
    if experiment.students:
        return _of_each_student(experiment, tries)
    untaught = experiment.needs_teacher and _is_off(experiment)
    if experiment.constants and not experiment.dimensions and not untaught:
        tries = [experiment.constants, *tries]
        experiment = experiment.model_copy(update={"space": {}})
    paper, control = experiment.paper(), experiment.control()
    planned = [("paper", paper)]
    if not _is_off(experiment):
        planned.append(("control", control))
    return planned + [("try", {**paper, **known}) for known in tries]


def _of_each_method(
    experiment: Experiment, tries: Sequence[Mapping[str, Scalar]]
) -> list[tuple[str, dict[str, Scalar]]]:
    """The published setting of each method, but for one that is the control itself, which follows."""
    control = experiment.control()
    without = experiment.resolve(control)
    papers = [setting for setting in experiment.papers() if experiment.resolve(setting) != without]
    planned = [("paper", setting) for setting in papers] + [("control", control)]
    return planned + [("try", experiment.completed(known)) for known in tries]


def _of_each_student(
    experiment: Experiment, tries: Sequence[Mapping[str, Scalar]]
) -> list[tuple[str, dict[str, Scalar]]]:
    """The published setting and the control with each student, those of the first before the others'.

    A gain is one over the same student; and each student has a value at the end of the budget.
    """
    planned = [
        (role, {STUDENT: name, **setting})
        for name in experiment.students
        for role, setting in _planned(experiment.with_students(name), ())
    ]
    return planned + [("try", experiment.completed(known)) for known in tries]


def _is_off(experiment: Experiment) -> bool:
    """Whether paper and space turn the method off already."""
    return experiment.resolve(experiment.control()) == experiment.resolve(experiment.paper())


def _trials(experiment: Experiment, planned: int) -> int:
    """A space without freedom, or a grid, ends by itself."""
    found = distributions(experiment)
    if not found.keys() - {STUDENT}:  # each student has had the one setting that there is
        return planned
    if experiment.search.sampler == "grid":
        return min(experiment.search.trials, planned + grid_size(found))
    return experiment.search.trials
