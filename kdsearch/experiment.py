"""The experiment: one validated, frozen object. Every mistake a person can make in a file or a flag ends here."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Annotated, Any

import yaml
from pydantic import AfterValidator, ValidationError, field_serializer, field_validator, model_validator

from kdsearch import auto, consistency, methods, students, tasks
from kdsearch.anchoring import anchored
from kdsearch.auto import AUTO, METHOD
from kdsearch.consent import refuse_code
from kdsearch.errors import InvalidSetting, UnknownName, UserError
from kdsearch.files import read_yaml as read_yaml
from kdsearch.search_settings import ResourceSettings, SearchSettings
from kdsearch.settings import (
    AugmentationSettings,
    Choices,
    DataSettings,
    FrozenDict,
    NamedSettings,
    NetworkSettings,
    Range,
    Scalar,
    Seed,
    Settings,
    TeacherSettings,
    TrainingSettings,
)
from kdsearch.space import Dimension, Hyperparameter, check_space, hyperparameters_of, read_entries
from kdsearch.spaces import find_space as find_space
from kdsearch.spaces import override, read_space, shipped_space
from kdsearch.spaces import read_settings as read_settings
from kdsearch.students import STUDENT
from kdsearch.trial_settings import TrialSettings, trial_settings, with_paper
from kdsearch.wording import explained, section_of

Hyperparameters = Mapping[str, Scalar]

_RUN_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}")


class Experiment(Settings):
    """What is to be found out: a method, a space of its hyperparameters, data, networks, budget and resources.

    Sections are given as objects, as mappings, or, where they have one, by their name; one that is left out (or empty,
    in a file) has its defaults; a task that is left out is the method's first, and data and student then are those that
    come with it. A space that is left out is the one that ships with the method. What the training section leaves out
    of the method's published training has the paper's value. Method `auto` is all methods of the task, one of which
    each setting names (`kdsearch.auto`); so it is with a list of students (`kdsearch.students`). Raises UserError.
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
            super().__init__(**students.unfolded(given))
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
        if content.get("method") == AUTO and "space" not in content:
            content["space"] = auto.shipped(str(given.get("task") or content.get("task") or "classification"))
        if "student.name" in given and isinstance(content.get("space"), dict):  # it takes the place of the file's
            content["space"] = students.without(content["space"])
        for key, value in given.items():
            override(content, key, value, named=_NAMED)
        if not allow_code:
            refuse_code(content, name_or_path, [name_or_path, *students.typed(given.values())])
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
        if not all(name.isprintable() for name in space):
            raise ValueError("each name in it must be text that can be printed")
        return read_entries(space)

    @field_serializer("space")
    def _without_defaults(self, space: Mapping[str, Dimension | Scalar]) -> dict[str, Any]:
        return {
            name: entry.model_dump(mode="json", exclude_defaults=True) if isinstance(entry, Settings) else entry
            for name, entry in space.items()
        }

    @field_serializer("training")
    def _as_given(self, training: TrainingSettings) -> dict[str, Any]:
        """Of several methods each fills in what is left out with its own paper's values: it stays left out."""
        return training.model_dump(mode="json", exclude_unset=self.method == AUTO)

    @model_validator(mode="after")
    def _fits_together(self) -> Experiment:
        consistency.check_budget(self)
        if self.method == AUTO:
            return self._fits_each_method()
        method = self.method_class
        self._fill_in_task()
        if self.task not in method.tasks:
            raise InvalidSetting("task", self.task, f"method {self.method!r} is for {', '.join(method.tasks)}")
        space = self.space if "space" in self.model_fields_set else read_entries(shipped_space(self.method))
        # From here on it is frozen: values in their own types, the paper's where nothing else is said.
        checked = check_space(students.without(space), method)
        if STUDENT in space:
            given = self.student if "student" in self.model_fields_set else None
            object.__setattr__(self, "student", students.first_of(space[STUDENT], given))
            checked = {STUDENT: space[STUDENT], **checked}
        object.__setattr__(self, "space", FrozenDict(checked))
        object.__setattr__(self, "training", with_paper(self.training, method, self.constants.get("optimizer")))
        consistency.check(self)
        return self

    def _fits_each_method(self) -> Experiment:
        """Whatever has to hold of an experiment holds of those of all methods to choose among."""
        self._fill_in_task()
        given = self.space if "space" in self.model_fields_set else read_entries(auto.shipped(self.task))
        object.__setattr__(self, "space", FrozenDict(given))
        object.__setattr__(self, "space", FrozenDict(consistency.space_of_all_methods(self)))
        if not self.needs_teacher:  # it is there for those methods that learn from one
            object.__setattr__(self, "teacher", None)
        return self

    def _fill_in_task(self) -> None:
        """The task, data and student that are left out: those of the method, those of the task."""
        if "task" not in self.model_fields_set and self.method != AUTO:
            object.__setattr__(self, "task", self.method_class.tasks[0])
        task = tasks.find(self.task)
        if "data" not in self.model_fields_set:
            object.__setattr__(self, "data", DataSettings(name=task.data))
        if "student" not in self.model_fields_set:
            object.__setattr__(self, "student", NetworkSettings(name=task.student))

    @property
    def method_class(self) -> type[methods.Method]:
        return methods.find(self.method)

    @property
    def methods(self) -> tuple[str, ...]:
        """The method, or those that a setting chooses among."""
        return auto.methods_of(self.space) if self.method == AUTO else (self.method,)

    @property
    def needs_teacher(self) -> bool:
        """Whether any of its methods learns from a teacher."""
        return any(methods.find(name).needs_teacher for name in self.methods)

    @property
    def students(self) -> tuple[str, ...]:
        """The students that a setting chooses among, by the names that it uses; none where there is one student."""
        entry = self.space.get(STUDENT)
        return tuple(str(choice) for choice in entry.choices) if isinstance(entry, Choices) else ()

    @property
    def networks(self) -> list[NetworkSettings]:
        """Every network that is built: the students and the teacher."""
        own = [students.network(self.student, name) for name in self.students] or [self.student]
        return own if self.teacher is None else [*own, self.teacher]

    @property
    def hyperparameters(self) -> dict[str, Hyperparameter]:
        """Every name that its space may contain."""
        if self.method == AUTO:
            return auto.known_of(self.methods)
        known = hyperparameters_of(self.method_class)
        return known | {STUDENT: students.HYPERPARAMETER} if self.students else known

    def with_students(self, *names: str) -> Experiment:
        """The same experiment with these students to choose among; with a single one it is not chosen."""
        choice = {STUDENT: Choices(choices=names)} if len(names) > 1 else {}
        space = FrozenDict({**choice, **students.without(self.space)})
        return self.model_copy(update={"student": students.network(self.student, names[0]), "space": space})

    def of_method(self, name: str) -> Experiment:
        """Of several methods: the experiment of one of them, its hyperparameters under their own names."""
        content = self.model_dump(mode="json")
        content |= {"method": name, "space": auto.gathered(name, content["space"])}
        if not methods.find(name).needs_teacher:
            content["teacher"] = None
        return Experiment(**content)

    def of(self, setting: Hyperparameters) -> tuple[Experiment, dict[str, Scalar]]:
        """The experiment of the method or student that a setting names, and the setting in that one's own names.

        Of one method and student: itself, and the setting. Raises UserError for none of these, or what is another's.
        """
        if self.students:
            return self.with_students(students.chosen(self.students, setting.get(STUDENT))), students.without(setting)
        if self.method != AUTO:
            return self, dict(setting)
        method = setting.get(METHOD)
        if method not in (*self.methods, tasks.find(self.task).teacher_method):
            raise InvalidSetting(METHOD, method, f"a setting of method auto names one of {', '.join(self.methods)}")
        for name in setting:
            if not auto.applies(name, method):
                known = [each for each in self.hyperparameters if auto.applies(each, method)]
                raise UnknownName(f"hyperparameter of method {method!r}", name, known)
        return self.of_method(str(method)), auto.gathered(str(method), setting)

    @property
    def dimensions(self) -> dict[str, Dimension]:
        """The searched part of the space."""
        return {name: entry for name, entry in self.space.items() if isinstance(entry, Settings)}

    @property
    def constants(self) -> dict[str, Scalar]:
        """The fixed part of the space."""
        return {name: entry for name, entry in self.space.items() if not isinstance(entry, Settings)}

    def fixed(self, hyperparameters: Hyperparameters) -> Experiment:
        """The same experiment with these hyperparameters as constants of the space.

        Those that a search over several methods or students found name theirs: the experiment is then of that one.
        """
        if STUDENT in hyperparameters:
            name = str(hyperparameters[STUDENT])
            own = self.with_students(students.chosen(self.students or [name], name))
            return own.fixed(students.without(hyperparameters))
        if METHOD in hyperparameters:
            method = str(hyperparameters[METHOD])
            if self.method not in (AUTO, method):
                raise InvalidSetting(METHOD, method, f"these hyperparameters are of it, not of {self.method!r}")
            own = self.of_method(method) if self.method == AUTO else self
            return own.fixed({name: value for name, value in hyperparameters.items() if name != METHOD})
        return self.model_copy(update={"space": {**self.space, **hyperparameters}}).revalidated()

    def with_trials(self, trials: int) -> Experiment:
        """The same experiment with another number of trials."""
        return self.model_copy(update={"search": self.search.model_copy(update={"trials": trials})})

    def anchored(self) -> Experiment:
        """The same experiment with every path of a person's made absolute: it holds from any folder."""
        own = self.with_students(*map(students.anchored, self.students)) if self.students else self
        return own.model_copy(update=anchored(self.method, self.data, own.student, self.teacher))

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
        if self.method == AUTO or self.students:
            return self.papers()[0]
        method = self.method_class
        names = {*self.dimensions, *method.paper_training}
        sections = {**self.training.model_dump(), **self.augmentation.model_dump()}
        given = {name: value for name, value in sections.items() if name in names and value is not None}
        return {**given, **method.Hyperparameters().model_dump(), **self.constants}

    def control(self) -> dict[str, Scalar]:
        """Trial 1: the same student and training without the method: every distillation weight 0.

        They are 0 where the space holds them constant too; all else is as in trial 0, which may be off already.
        """
        if self.method == AUTO:
            untaught = tasks.find(self.task).teacher_method
            return auto.spread(untaught, self.of_method(untaught).control())
        return self.paper() | self.method_class.control()

    def papers(self) -> list[dict[str, Scalar]]:
        """The published setting of each method, or with each student."""
        if self.students:
            return [{STUDENT: name, **self.with_students(name).paper()} for name in self.students]
        if self.method != AUTO:
            return [self.paper()]
        return [auto.spread(name, self.of_method(name).paper()) for name in self.methods]

    def completed(self, setting: Hyperparameters) -> dict[str, Scalar]:
        """The setting with the paper's values, those of the method that it names, for what it leaves out."""
        if self.method != AUTO:
            return {**self.paper(), **setting}
        concrete, _ = self.of(setting)
        return {**auto.spread(concrete.method, concrete.paper()), **setting}

    def resolve(self, hyperparameters: Hyperparameters) -> TrialSettings:
        """Put a flat setting where it belongs; whatever it leaves out keeps the experiment's or the paper's value.

        Raises UnknownName or InvalidSetting for a name or a value that does not fit.
        """
        if self.method == AUTO or self.students:
            concrete, own = self.of(hyperparameters)
            return concrete.resolve(own)
        given = {**self.constants, **hyperparameters}
        return trial_settings(self.method_class, self.training, self.augmentation, given)

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
