"""A chain of generations: each one's best student teaches the next. One validated, frozen object, as an experiment is.

Generation g's student teaches generation g+1. Whether the way over the generations was worth it, two controls say,
which every chain has: the last student from scratch, and taught by the first generation directly.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import ValidationError, field_validator, model_validator

from kdsearch import methods, models, tasks
from kdsearch.consent import refuse_code
from kdsearch.errors import InvalidSetting, UserError
from kdsearch.experiment import Experiment
from kdsearch.files import read_yaml
from kdsearch.search_settings import ResourceSettings, SearchSettings
from kdsearch.settings import (
    AugmentationSettings,
    DataSettings,
    NetworkSettings,
    Scalar,
    Seed,
    Settings,
    TeacherSettings,
    TrainingSettings,
    Value,
)
from kdsearch.spaces import override, read_settings, read_space
from kdsearch.students import refuse_several, setting_of
from kdsearch.wording import explained

SCRATCH, DIRECT = "scratch", "direct"

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}")
_SHARED = ("training", "augmentation", "search")
_DEFAULT_METHOD = "kd"


class Generation(Settings):
    """One generation: a student and how it is searched. What it says goes before what the chain says for all."""

    student: NetworkSettings | None = None
    """May be left out where `weights` is an export, which says what its network is."""
    weights: str | None = None
    """Of the first generation: ready weights (an export, or a file for `student`); nothing is trained then."""
    method: str | None = None
    """None: the first trains as a teacher of this task does, the others as kd does, or the task's own method."""
    space: Mapping[str, Any] | None = None
    """What is searched, as in an experiment; None: the space that ships with the method."""
    hyperparameters: Mapping[str, Value] | None = None
    """What is fixed: names and values, or a YAML file of them such as `best/hyperparameters.yaml`."""
    training: TrainingSettings = TrainingSettings()
    augmentation: AugmentationSettings = AugmentationSettings()
    search: SearchSettings = SearchSettings()

    @field_validator("hyperparameters", mode="before")
    @classmethod
    def _from_file(cls, value: Any) -> Any:
        return read_settings(value) if isinstance(value, str) else value


@dataclass(frozen=True)
class Step:
    """One row of the chain's table: a generation or a control."""

    name: str
    """Its folder in the chain's."""
    kind: Literal["generation", "control"]
    heading: str
    """What happens, in words."""
    student: NetworkSettings
    """Of a generation that is given: with its weights."""
    experiment: Experiment | None = None
    """Its search, the teacher's weights left open; None: the weights were given."""
    teacher: str | None = None
    """The step whose best student teaches it."""
    tries: tuple[Mapping[str, Scalar], ...] = ()
    """Settings that its search must try."""

    def taught_by(self, weights: str | Path) -> Experiment:
        """Its search with the teacher's weights."""
        assert self.experiment is not None, "a generation that is given is not searched"
        if self.experiment.teacher is None:
            return self.experiment
        teacher = self.experiment.teacher.model_copy(update={"weights": str(weights)})
        return self.experiment.model_copy(update={"teacher": teacher})


class Chain(Settings):
    """Generations of students on one data set, with one seed.

    The sections `training`, `augmentation` and `search` hold for all generations; a generation's own go before them,
    key by key, and what neither says is as `kdsearch search METHOD` has it. Raises UserError for whatever does not fit.
    """

    name: str | None = None
    """Name of the chain's folder; None: that of its file."""
    task: str = "classification"
    seed: Seed = 0
    data: DataSettings | None = None
    """None: the task's own."""
    training: TrainingSettings = TrainingSettings()
    augmentation: AugmentationSettings = AugmentationSettings()
    search: SearchSettings = SearchSettings()
    resources: ResourceSettings = ResourceSettings()
    generations: tuple[Generation, ...]

    def __init__(self, /, **sections: Any) -> None:
        given = {key: value for key, value in sections.items() if value is not None}
        try:
            super().__init__(**given)
        except ValidationError as error:
            raise explained(error, Chain, whole="the chain") from None

    @classmethod
    def load(
        cls,
        path: str | Path,
        name: str | None = None,
        *,
        address: str | None = None,
        named: Collection[str] = (),
        allow_code: bool = False,
    ) -> Chain:
        """The chain of a YAML file, under this name, its own, or the file's. Raises UserError.

        With `address` it is for that cluster, whatever the file says. Code that the file names is refused unless it is
        among those `named`, or `allow_code`.
        """
        if not Path(path).is_file():
            raise UserError(f"{str(path)!r} is no file; give the path of a chain in YAML")
        content = read_yaml(Path(path))
        if address is not None:
            override(content, "resources.address", address)
        if not allow_code:
            refuse_code(content, str(path), [*named, address])
        return cls(**content | {"name": name or content.get("name") or Path(path).stem})

    @field_validator("name")
    @classmethod
    def _no_path(cls, name: str | None) -> str | None:
        if name is not None and not _NAME.fullmatch(name):
            raise ValueError("must be up to 100 letters, digits, '.', '_' and '-', the first no '.' or '-'; no path")
        return name

    @field_validator("generations")
    @classmethod
    def _more_than_one(cls, generations: tuple[Generation, ...]) -> tuple[Generation, ...]:
        if len(generations) < 2:
            raise ValueError(f"a chain has at least 2 generations, and this one has {len(generations)}")
        return generations

    @model_validator(mode="after")
    def _fits_together(self) -> Chain:
        task = tasks.find(self.task)
        if self.data is None:
            object.__setattr__(self, "data", DataSettings(name=task.data))
        self.steps()
        return self

    def steps(self) -> list[Step]:
        """The generations in their order, then the controls."""
        steps: list[Step] = []
        for place in range(len(self.generations)):
            steps.append(self._step(place, steps[-1] if steps else None))
        controls = [self._from_scratch(steps[-1])]
        if len(steps) > 2:
            controls.append(self._direct(steps[-1], steps[0]))
        return steps + controls

    def _step(self, place: int, teacher: Step | None) -> Step:
        generation, key = self.generations[place], f"generations.{place}"
        student = _student(generation, key)
        name, title = f"{place + 1}-{plain(student)}", f"generation {place + 1} of {len(self.generations)}"
        if generation.weights is not None:
            _check_given(generation, place)
            return Step(name, "generation", f"{title}: {plain(student)}, whose weights are given", student)
        method = generation.method or self._default_method(place)
        _check_method(methods.find(method), method, key, first=teacher is None)
        try:
            experiment = self._experiment(generation, method, student, name, teacher)
        except UserError as error:
            raise UserError(f"{key}: {error}") from None
        if teacher is None:
            return Step(name, "generation", f"{title}: {plain(student)} ({method})", student, experiment)
        heading = f"{title}: {plain(student)} learns from {plain(teacher.student)}"
        return Step(name, "generation", heading, student, experiment, teacher.name)

    def _default_method(self, place: int) -> str:
        if place == 0:
            return tasks.find(self.task).teacher_method
        fitting = [name for name in methods.names() if _teaches(name, self.task)]
        if _DEFAULT_METHOD in fitting:
            return _DEFAULT_METHOD
        if len(fitting) == 1:
            return fitting[0]
        choice = f"give one of {', '.join(fitting)}" if fitting else "no method learns from a teacher there"
        raise UserError(f"generations.{place}: method is missing, and task {self.task!r} has no default: {choice}")

    def _experiment(
        self, generation: Generation, method: str, student: NetworkSettings, name: str, teacher: Step | None
    ) -> Experiment:
        shipped = read_space(method)
        sections = {
            key: {**(shipped.get(key) or {}), **_given(getattr(self, key)), **_given(getattr(generation, key))}
            for key in _SHARED
        }
        experiment = Experiment(
            method=method,
            task=self.task,
            name=name,
            seed=self.seed,
            data=self.data,
            student=student,
            teacher=None if teacher is None else _as_teacher(teacher.student),
            space=shipped["space"] if generation.space is None else generation.space,
            resources=self.resources,
            **sections,
        )
        if experiment.search.confirm is not None:
            why = "is for a search by itself; confirm the runs of a chain afterwards, kdsearch confirm CHAIN/RUN"
            raise InvalidSetting("search.confirm", str(experiment.search.confirm), why)
        refuse_several(experiment.students, experiment.search, "a generation of a chain")
        return experiment.fixed(setting_of(student, generation.hyperparameters or {}))

    def _from_scratch(self, last: Step) -> Step:
        """The last student, searched as the last generation is, with every distillation weight 0."""
        taught = last.experiment
        assert taught is not None
        off = taught.method_class.control()
        if not off:
            why = "names no distillation weight, so the last student cannot be trained without it, as the control needs"
            raise InvalidSetting(f"generations.{len(self.generations) - 1}.method", taught.method, why)
        content = taught.model_dump(mode="json") | {"name": SCRATCH}
        content["space"] |= off
        phases = [
            phase | {"search": [name for name in phase["search"] if name not in off]}
            for phase in content["search"]["phases"]
        ]
        content["search"]["phases"] = [phase for phase in phases if phase["search"]]
        experiment = Experiment(**content)
        # Where all is fixed, the generation tries the paper's setting too.
        published = taught.model_copy(update={"space": {}}).control()
        tries = () if experiment.dimensions else (published,)
        heading = f"control: {plain(last.student)} from scratch"
        return Step(SCRATCH, "control", heading, last.student, experiment, last.teacher, tries)

    def _direct(self, last: Step, first: Step) -> Step:
        """The last student, searched as the last generation is, taught by the first generation."""
        assert last.experiment is not None
        content = last.experiment.model_dump(mode="json") | {"teacher": _as_teacher(first.student), "name": DIRECT}
        heading = f"control: {plain(last.student)} learns from {plain(first.student)} directly"
        return Step(DIRECT, "control", heading, last.student, Experiment(**content), first.name)

    def resolved(self) -> dict[str, Any]:
        """All that decides the outcome, written out, as a file that `load` reads back to the same steps."""
        data = None
        generations: list[dict[str, Any]] = []
        for step in self.steps()[: len(self.generations)]:
            if step.experiment is None:
                network = step.student.model_dump(mode="json")
                place = network.pop("weights")
                weights = str(Path(place).expanduser().resolve()) if Path(place).expanduser().exists() else place
                generations.append({"student": network, "weights": weights})
                continue
            content = step.experiment.anchored().model_dump(mode="json")
            data = content["data"]
            generations.append({key: content[key] for key in ("method", "student", "space", *_SHARED)})
        return {
            "name": self.name,
            "task": self.task,
            "seed": self.seed,
            "data": data,
            "resources": self.resources.model_dump(mode="json"),
            "generations": generations,
        }

    def to_yaml(self) -> str:
        """The resolved chain as a file."""
        return yaml.safe_dump(self.resolved(), sort_keys=False)


def plain(network: NetworkSettings) -> str:
    """A network's name as a folder may have it: `my_net.py:build` → `my_net`, `smp:unet:vgg11` → `smp_unet_vgg11`."""
    name = network.name
    text = Path(name.rpartition(":")[0]).stem if ".py:" in name else Path(name).name if ":" not in name else name
    return re.sub(r"[^A-Za-z0-9.-]+", "_", text).strip("_.-")[:60] or "student"


def _given(section: Settings) -> dict[str, Any]:
    return section.model_dump(mode="json", include=section.model_fields_set)


def _as_teacher(student: NetworkSettings) -> TeacherSettings:
    """The network of a student as a teacher; its weights are those it was given, or will have."""
    return TeacherSettings(**student.model_dump(mode="json"))


def _student(generation: Generation, key: str) -> NetworkSettings:
    """The network of a generation, with its weights where they are given."""
    student, weights = generation.student, generation.weights
    if weights is None:
        if student is None:
            raise UserError(f"{key}: student is missing: name its network, such as student: resnet8")
        return student
    if student is None:
        return models.from_export(weights)
    if student.weights is not None:
        raise InvalidSetting(f"{key}.student.weights", student.weights, "the generation's own weights are given too")
    return student.model_copy(update={"weights": weights})


def _check_given(generation: Generation, place: int) -> None:
    """Ready weights are the first generation's, and leave nothing to search."""
    key = f"generations.{place}"
    if place > 0:
        raise InvalidSetting(f"{key}.weights", generation.weights, "only the first generation may be given ready")
    for name in sorted(generation.model_fields_set - {"student", "weights"}):
        raise UserError(f"{key}.{name}: a generation whose weights are given is not trained; leave out one of the two")


def _check_method(method: type[methods.Method], name: str, key: str, *, first: bool) -> None:
    if first and method.needs_teacher:
        why = "learns from a teacher, and the first generation has none; take ce or another that needs none, or weights"
        raise InvalidSetting(f"{key}.method", name, why)
    if not first and not method.needs_teacher:
        why = "learns from no teacher, so the chain would break here; only the first generation may"
        raise InvalidSetting(f"{key}.method", name, why)


def _teaches(name: str, task: str) -> bool:
    method = methods.find(name)
    return method.needs_teacher and task in method.tasks
