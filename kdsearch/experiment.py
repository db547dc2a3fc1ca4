"""The experiment: one validated, frozen object. Every mistake a person can make in a file or a flag ends here."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar

import yaml
from pydantic import AfterValidator, BaseModel, ValidationError, field_serializer, field_validator, model_validator

from kdsearch import methods, tasks
from kdsearch.consent import refuse_code
from kdsearch.errors import InvalidSetting, UnknownName, UserError
from kdsearch.files import read_yaml as read_yaml
from kdsearch.settings import (
    AugmentationSettings,
    Choices,
    DataSettings,
    FrozenDict,
    NamedSettings,
    NetworkSettings,
    Range,
    ResourceSettings,
    Scalar,
    SearchSettings,
    Seed,
    Settings,
    TeacherSettings,
    TrainingSettings,
    one_value,
)
from kdsearch.space import Dimension, check_space, extreme, hyperparameters_of, points
from kdsearch.spaces import find_space as find_space
from kdsearch.spaces import override, read_space, shipped_space
from kdsearch.spaces import read_settings as read_settings
from kdsearch.user_code import absolute
from kdsearch.wording import Shown, explained, section_of, shortened

Hyperparameters = Mapping[str, Scalar]
Model = TypeVar("Model", bound=BaseModel)

_RUN_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}")
_LARGEST_GRID = 100_000


@dataclass(frozen=True)
class TrialSettings:
    """One trial's hyperparameters, put where they belong."""

    method: Any
    """An instance of the method's `Hyperparameters`."""
    training: TrainingSettings
    augmentation: AugmentationSettings


class Experiment(Settings):
    """What is to be found out: a method, a space of its hyperparameters, data, networks, budget and resources.

    Sections are given as objects, as mappings, or, where they have one, by their name; one that is left out (or empty,
    in a file) has its defaults; a task that is left out is the method's first, and data and student then are those that
    come with it. A space that is left out is the one that ships with the method. What the training
    section leaves out of the method's published training has the paper's value. Raises UserError for whatever does not
    fit.
    """

    method: str
    task: str = "classification"
    name: str | None = None
    """Name of the run; None: made from the method, the data and the time."""
    seed: Seed = 0
    data: DataSettings = DataSettings()
    student: NetworkSettings = NetworkSettings()
    teacher: TeacherSettings | None = None
    space: Annotated[Mapping[str, Range | Choices | Scalar], AfterValidator(FrozenDict)] = FrozenDict()
    training: TrainingSettings = TrainingSettings()
    augmentation: AugmentationSettings = AugmentationSettings()
    search: SearchSettings = SearchSettings()
    resources: ResourceSettings = ResourceSettings()

    def __init__(self, /, **sections: Any) -> None:
        given = {key: value for key, value in sections.items() if value is not None or key == "space"}
        try:
            super().__init__(**given)
        except ValidationError as error:
            raise explained(error, Experiment, elsewhere=_keys(given.get("method"))) from None

    @classmethod
    def load(
        cls, name_or_path: str, overrides: Mapping[str, Any] | None = None, *, allow_code: bool = False
    ) -> Experiment:
        """The shipped experiment of that name, or the YAML file at that path, with dotted keys overridden.

        `Experiment.load("ips", {"search.trials": 8, "space.temperature.high": 12})`. A method that ships no space, such
        as one's own `file.py:Class`, is an experiment of defaults. Code that the file names, and neither the first
        argument nor an override does, is refused unless `allow_code`.
        """
        content = read_space(name_or_path)
        given = overrides or {}
        for key, value in given.items():
            override(content, key, value, named=_NAMED)
        if not allow_code:
            typed = [value for value in given.values() if isinstance(value, str)]
            refuse_code(content, name_or_path, [name_or_path, *typed])
        return cls(**content)

    @field_validator("name")
    @classmethod
    def _no_path(cls, name: str | None) -> str | None:
        if name is not None and not _RUN_NAME.fullmatch(name):
            raise ValueError("must be up to 100 letters, digits, '.', '_' and '-', the first no '.' or '-'; no path")
        return name

    @field_validator("space", mode="before")
    @classmethod
    def _entries(cls, space: Any) -> Any:
        if not isinstance(space, Mapping):
            raise ValueError(
                "must map hyperparameters to ranges, choices or constants; left out, it is the method's own"
            )
        if not all(isinstance(name, str) for name in space):
            raise ValueError("each name in it must be text; put it in quotes")
        return _space(space)

    @field_serializer("space")
    def _without_defaults(self, space: Mapping[str, Dimension | Scalar]) -> dict[str, Any]:
        return {
            name: entry.model_dump(mode="json", exclude_defaults=True) if isinstance(entry, Settings) else entry
            for name, entry in space.items()
        }

    @model_validator(mode="after")
    def _fits_together(self) -> Experiment:
        self._check_budget()
        method = self.method_class
        self._fill_in_task()
        if self.task not in method.tasks:
            raise InvalidSetting("task", self.task, f"method {self.method!r} is for {', '.join(method.tasks)}")
        space = self.space if "space" in self.model_fields_set else _space(shipped_space(self.method))
        # From here on it is frozen: values in their own types, the paper's where nothing else is said.
        object.__setattr__(self, "space", FrozenDict(check_space(space, method)))
        object.__setattr__(self, "training", _with_paper(self.training, method, self.constants.get("optimizer")))
        self._check_teacher()
        self._check_phases()
        if self.search.sampler == "grid":
            self._check_grid()
        self._check_settings()
        return self

    def _fill_in_task(self) -> None:
        """The task, data and student that are left out: those of the method, those of the task."""
        if "task" not in self.model_fields_set:
            object.__setattr__(self, "task", self.method_class.tasks[0])
        task = tasks.find(self.task)
        if "data" not in self.model_fields_set:
            object.__setattr__(self, "data", DataSettings(name=task.data))
        if "student" not in self.model_fields_set:
            object.__setattr__(self, "student", NetworkSettings(name=task.student))

    def _check_teacher(self) -> None:
        needed = self.method_class.needs_teacher
        if needed and self.teacher is None:
            raise UserError(f"teacher is missing: method {self.method!r} learns from one, such as teacher: resnet20")
        if self.teacher is not None and not needed:
            raise InvalidSetting("teacher", self.teacher.name, f"method {self.method!r} has no teacher; leave it out")

    def _check_budget(self) -> None:
        search, epochs = self.search, self.training.epochs
        if search.grace_period > epochs and search.scheduler != "none":
            why = f"cannot exceed the full budget of {epochs} epochs (training.epochs); lower it, or raise the budget"
            raise InvalidSetting("search.grace_period", search.grace_period, why)

    def _check_phases(self) -> None:
        for place, phase in enumerate(self.search.phases):
            for name in sorted(set(phase.search) - self.dimensions.keys()):
                if name in self.space:
                    raise InvalidSetting(f"search.phases.{place}", name, "is a constant; give it a range in space")
                raise UnknownName(f"searched hyperparameter in search.phases.{place}", shortened(name), self.dimensions)

    def _check_grid(self) -> None:
        """The sampler lists all points of a grid."""
        known, size = hyperparameters_of(self.method_class), 1.0
        for name, dimension in self.dimensions.items():
            size *= points(dimension, known[name])
            if size == math.inf:
                raise UserError(f"space.{name}: a grid needs finite points; give the range a step, or list choices")
            if size > _LARGEST_GRID:
                why = f"the space has more than {_LARGEST_GRID} points; give wider steps, or take another sampler"
                raise InvalidSetting("search.sampler", "grid", why)

    def _check_settings(self) -> None:
        """Whatever a trial may be given can be trained."""
        self.resolve(self.paper())
        self.resolve(self.control())
        for end in ("lowest", "highest"):
            corner = {name: extreme(dimension, end == "highest") for name, dimension in self.dimensions.items()}
            try:
                self.resolve(corner)
            except UserError as error:
                raise UserError(f"the {end} values of the space do not go together: {error}") from None

    @property
    def method_class(self) -> type[methods.Method]:
        return methods.find(self.method)

    @property
    def dimensions(self) -> dict[str, Dimension]:
        """The searched part of the space."""
        return {name: entry for name, entry in self.space.items() if isinstance(entry, Settings)}

    @property
    def constants(self) -> dict[str, Scalar]:
        """The fixed part of the space."""
        return {name: entry for name, entry in self.space.items() if not isinstance(entry, Settings)}

    def fixed(self, hyperparameters: Hyperparameters) -> Experiment:
        """The same experiment with these hyperparameters as constants of the space."""
        return self.model_copy(update={"space": {**self.space, **hyperparameters}}).revalidated()

    def with_trials(self, trials: int) -> Experiment:
        """The same experiment with another number of trials."""
        return self.model_copy(update={"search": self.search.model_copy(update={"trials": trials})})

    def anchored(self) -> Experiment:
        """The same experiment with every path of a person's made absolute: it holds from any folder."""
        sections: dict[str, Any] = {"method": absolute(self.method)}
        data = self.data
        root = None if data.root is None else str(Path(data.root).expanduser().resolve())
        sections["data"] = data.model_copy(update={"name": absolute(data.name), "root": root})
        for role, network in (("student", self.student), ("teacher", self.teacher)):
            if network is not None:
                # A name with a slash is the folder of an export; without one it is never a file, whatever lies here.
                name = _anchored(network.name) if "/" in network.name else network.name
                places = {"name": absolute(name), "weights": network.weights and _anchored(network.weights)}
                sections[role] = network.model_copy(update=places)
        return self.model_copy(update=sections)

    def revalidated(self) -> Experiment:
        """A copy that went through every check again (`model_copy` does none)."""
        return Experiment(**self.model_dump(mode="json"))

    def paper(self) -> dict[str, Scalar]:
        """Trial 0: the method's published setting.

        The method's own hyperparameters have their defaults, which are the paper's. Learning rate, weight decay,
        optimiser and momentum are those of the training section: the paper's, unless the experiment says otherwise;
        where it says another optimiser than the paper's, the others are not taken from the paper either, since they
        would mean something else. Whatever else is searched has the experiment's value; an augmentation that is left
        to the data set is left out, so that trial 0 is augmented as the data set recommends. What the space holds
        constant stays.
        """
        method = self.method_class
        names = {*self.dimensions, *method.paper_training}
        sections = {**self.training.model_dump(), **self.augmentation.model_dump()}
        given = {name: value for name, value in sections.items() if name in names and value is not None}
        return {**given, **method.Hyperparameters().model_dump(), **self.constants}

    def control(self) -> dict[str, Scalar]:
        """Trial 1: the same student and training without the method: every distillation weight 0.

        The weights are 0 where the space holds them constant too; all else is as in trial 0. Of a method that its paper
        setting or the space turns off already, it is trial 0.
        """
        return self.paper() | self.method_class.control()

    def resolve(self, hyperparameters: Hyperparameters) -> TrialSettings:
        """Put a flat setting where it belongs; whatever it leaves out keeps the experiment's or the paper's value.

        Raises UnknownName or InvalidSetting for a name or a value that does not fit.
        """
        known = hyperparameters_of(self.method_class)
        parts: dict[str, dict[str, Scalar]] = {"method": {}, "training": {}, "augmentation": {}}
        for name, value in {**self.constants, **hyperparameters}.items():
            if name not in known:
                raise UnknownName(f"hyperparameter of method {self.method!r}", name, known)
            parts[known[name].section][name] = known[name].value(value, name)
        return TrialSettings(
            method=_built(self.method_class.Hyperparameters, parts["method"], self.method),
            training=_built(TrainingSettings, self.training.model_dump() | parts["training"], "training"),
            augmentation=_built(
                AugmentationSettings, self.augmentation.model_dump() | parts["augmentation"], "augmentation"
            ),
        )

    def to_yaml(self) -> str:
        """The experiment as a file that `load` reads back to an equal object."""
        # Letters beyond ASCII are escaped: PyYAML writes some as they are that it then reads as the end of a line.
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False)


_SECTIONS = {key: section_of(field.annotation) for key, field in Experiment.model_fields.items()}
_NAMED = {key for key, section in _SECTIONS.items() if section and issubclass(section, NamedSettings)}


def _keys(method: Any) -> Iterator[str]:
    """The dotted keys of all sections, and of the method's space where there is such a method."""
    for key, section in _SECTIONS.items():
        yield from (f"{key}.{name}" for name in (section.model_fields if section else ()))
    with suppress(UserError):
        yield from (f"space.{name}" for name in hyperparameters_of(methods.find(str(method))))


def _space(space: Mapping[str, Any]) -> dict[str, Dimension | Scalar]:
    return {name: _entry(name, value) for name, value in space.items()}


def _entry(name: str, value: Any) -> Any:
    """One entry of a space: a range, choices or a constant."""
    if isinstance(value, Range | Choices):
        return value
    if not isinstance(value, Mapping):
        try:
            return one_value(value)
        except ValueError as error:
            why = str(error) if isinstance(value, Scalar) else "must be a range (low, high), choices or one value"
            raise InvalidSetting(f"space.{name}", Shown(value), why) from None
    kind = Choices if "choices" in value else Range
    if kind is Choices and len(value) > 1:
        raise InvalidSetting(f"space.{name}", Shown(value), "choices stand alone; what else is here belongs to a range")
    try:
        return kind.model_validate(value)
    except ValidationError as error:
        raise explained(error, kind, ("space", name)) from None


def _with_paper(training: TrainingSettings, method: type[methods.Method], optimizer: Scalar | None) -> TrainingSettings:
    """The training section, with the paper's values for what it leaves out, where the optimiser is the paper's."""
    given = training.model_dump(include=training.model_fields_set)
    paper = dict(method.paper_training)
    chosen = optimizer or given.get("optimizer") or paper.get("optimizer")
    return _built(TrainingSettings, given if chosen != paper.get("optimizer") else paper | given, "training")


def _built(model: type[Model], values: Mapping[str, Any], where: str) -> Model:
    """An instance of the model. Raises UserError with `where` in front of the names."""
    try:
        return model(**values)
    except ValidationError as error:
        raise explained(error, model, (where,)) from None


def _anchored(place: str) -> str:
    """A file or folder of a person's, absolute; what is none (`pretrained`) as it is."""
    path = Path(place).expanduser()
    return str(path.resolve()) if path.exists() else place
