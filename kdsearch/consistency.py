"""What of an experiment has to go together, once each part is valid by itself. Raises UserError."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Protocol

from kdsearch import auto
from kdsearch.errors import InvalidSetting, UnknownName, UserError, shortened
from kdsearch.space import extreme, points
from kdsearch.students import STUDENT
from kdsearch.wording import Shown

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kdsearch.methods.base import Method
    from kdsearch.search_settings import SearchSettings
    from kdsearch.settings import Scalar, TeacherSettings, TrainingSettings
    from kdsearch.space import Dimension, Hyperparameter

_LARGEST_GRID = 100_000


class Checked(Protocol):
    """What is looked at of an experiment, which imports this module."""

    @property
    def method(self) -> str: ...
    @property
    def teacher(self) -> TeacherSettings | None: ...
    @property
    def training(self) -> TrainingSettings: ...
    @property
    def search(self) -> SearchSettings: ...
    @property
    def space(self) -> Mapping[str, Dimension | Scalar]: ...
    @property
    def method_class(self) -> type[Method]: ...
    @property
    def dimensions(self) -> Mapping[str, Dimension]: ...
    @property
    def hyperparameters(self) -> Mapping[str, Hyperparameter]: ...
    def of_method(self, name: str) -> Checked: ...
    def paper(self) -> Mapping[str, Scalar]: ...
    def control(self) -> Mapping[str, Scalar]: ...
    def resolve(self, hyperparameters: Mapping[str, Scalar]) -> object: ...


def check(experiment: Checked) -> None:
    """Teacher, phases, grid and settings of an experiment of one method."""
    _check_teacher(experiment)
    _check_phases(experiment)
    if experiment.search.sampler == "grid":
        _check_grid(experiment)
    _check_settings(experiment)


def check_budget(experiment: Checked) -> None:
    """The first rung lies within the full budget."""
    search, epochs = experiment.search, experiment.training.epochs
    if search.grace_period > epochs and search.scheduler != "none":
        why = f"cannot exceed the full budget of {epochs} epochs (training.epochs); lower it, or raise the budget"
        raise InvalidSetting("search.grace_period", search.grace_period, why)


def space_of_all_methods(experiment: Checked) -> dict[str, Any]:
    """The space of an experiment whose settings name their method: what holds of one holds of each."""
    search, given = experiment.search, experiment.space
    if STUDENT in given:
        why = "several students are searched with one method; name the method, or one student"
        raise InvalidSetting("student", Shown(getattr(given[STUDENT], "choices", given[STUDENT])), why)
    if search.sampler not in auto.SAMPLERS:
        why = f"needs every hyperparameter in every trial, which method auto has not; take {auto.SAMPLERS_IN_WORDS}"
        raise InvalidSetting("search.sampler", search.sampler, why)
    if search.phases:
        raise InvalidSetting("search.phases", len(search.phases), "are of one method; leave them out with auto")
    space: dict[str, Any] = {auto.METHOD: given.get(auto.METHOD)}
    choices = auto.methods_of(given)
    auto.check_names(given, choices)
    for method in choices:
        try:
            own = experiment.of_method(method)
        except UserError as error:
            raise UserError(f"method {method!r}: {error}") from None
        space |= {auto.own_name(method, name): entry for name, entry in own.space.items()}
    return space


def _check_teacher(experiment: Checked) -> None:
    method, teacher = experiment.method, experiment.teacher
    needed = experiment.method_class.needs_teacher
    if needed and teacher is None:
        raise UserError(f"teacher is missing: method {method!r} learns from one, such as teacher: resnet20")
    if teacher is not None and not needed:
        raise InvalidSetting("teacher", teacher.name, f"method {method!r} has no teacher; leave it out")


def _check_phases(experiment: Checked) -> None:
    for place, phase in enumerate(experiment.search.phases):
        for name in sorted(set(phase.search) - experiment.dimensions.keys()):
            if name in experiment.space:
                raise InvalidSetting(f"search.phases.{place}", name, "is a constant; give it a range in space")
            known = experiment.dimensions
            raise UnknownName(f"searched hyperparameter in search.phases.{place}", shortened(name), known)


def _check_grid(experiment: Checked) -> None:
    """The sampler lists all points of a grid."""
    known, size = experiment.hyperparameters, 1.0
    for name, dimension in experiment.dimensions.items():
        size *= points(dimension, known[name])
        if size == math.inf:
            raise UserError(f"space.{name}: a grid needs finite points; give the range a step, or list choices")
        if size > _LARGEST_GRID:
            why = f"the space has more than {_LARGEST_GRID} points; give wider steps, or take another sampler"
            raise InvalidSetting("search.sampler", "grid", why)


def _check_settings(experiment: Checked) -> None:
    """Whatever a trial may be given can be trained."""
    experiment.resolve(experiment.paper())
    experiment.resolve(experiment.control())
    for end in ("lowest", "highest"):
        corner = {name: extreme(dimension, end == "highest") for name, dimension in experiment.dimensions.items()}
        try:
            experiment.resolve(corner)
        except UserError as error:
            raise UserError(f"the {end} values of the space do not go together: {error}") from None
