"""The options that describe an experiment, shared by the commands that train."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from kdsearch.errors import InvalidSetting

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from kdsearch.experiment import Experiment

Space = Annotated[str, typer.Argument(help="A method (see `kdsearch methods`), or the path of a space in YAML.")]
Task = Annotated[str | None, typer.Option("--task", help="What the student is for.")]
Data = Annotated[str | None, typer.Option("--data", help="Data set, or my_data.py:function.")]
DataRoot = Annotated[str | None, typer.Option("--data-root", help="Folder of the data set's files.")]
Student = Annotated[str | None, typer.Option("--student", help="Network, torchvision:NAME, or my_net.py:function.")]
Students = Annotated[
    str | None,
    typer.Option(
        "--student", help="Network, torchvision:NAME, or my_net.py:function; several, with commas, are searched too."
    ),
]
Teacher = Annotated[str | None, typer.Option("--teacher", help="Network, NAME:weights file, or an export's folder.")]
MaxEpochs = Annotated[int | None, typer.Option("--max-epochs", help="Full budget of a trial, in epochs.")]
LabelFraction = Annotated[float | None, typer.Option("--label-fraction", help="Share of the training labels to keep.")]
LabelNoise = Annotated[float | None, typer.Option("--label-noise", help="Share of the training labels to falsify.")]
Seed = Annotated[int | None, typer.Option("--seed", help="Seed of initialisation, data order, augmentation, sampler.")]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", help="Any key of the experiment: --set space.temperature.high=12.", metavar="KEY=VALUE"),
]
AllowCode = Annotated[
    bool, typer.Option("--allow-code", help="Run code that the file names and the command line does not.")
]
Hyperparameters = Annotated[
    str | None, typer.Option("--hyperparameters", help="YAML file of hyperparameters that are fixed.", metavar="FILE")
]


def load_experiment(
    space: str,
    flags: Mapping[str, Any],
    student: str | None,
    teacher: str | None,
    assignments: Sequence[str] | None,
    hyperparameters: str | None,
    *,
    allow_code: bool = False,
) -> Experiment:
    """The experiment of a command line; flags (dotted keys, None: not given) override the file, `--set` the flags.

    A network that is named on the command line takes the place of the file's, whose weights and arguments go with it.
    """
    from kdsearch.experiment import Experiment, read_settings
    from kdsearch.students import STUDENT

    overrides: dict[str, Any] = {key: value for key, value in flags.items() if value is not None}
    overrides = _of_task(space, overrides, allow_code) | overrides
    for role, text in (("student", student), ("teacher", teacher)):
        if text is not None:
            network: dict[str, Any] = {"weights": None, "arguments": {}} | _named(role, text)
            overrides |= {f"{role}.{key}": value for key, value in network.items()}
    assigned = parse_assignments(assignments or [])
    overrides |= assigned
    if "search.grace_period" not in {**flags, **assigned}:
        overrides |= _first_rung(space, overrides)
    experiment = Experiment.load(space, overrides, allow_code=allow_code)
    if hyperparameters is not None:
        setting = read_settings(hyperparameters)
        if STUDENT in setting:
            _check_student(setting[STUDENT], hyperparameters, student, allow_code)
        experiment = experiment.fixed(setting)
    return experiment


def _named(role: str, text: str) -> dict[str, Any]:
    """The fields of a network's section that the command line gives; the name of several students is a list."""
    from kdsearch.models import parse_network
    from kdsearch.students import STUDENT, listed_names

    return {"name": listed_names(text)} if role == STUDENT and "," in text else dict(parse_network(text))


def _check_student(name: Any, path: str, typed: str | None, allow_code: bool) -> None:
    """Hyperparameters of a search over several students name theirs: not another than the command line, and no code."""
    from kdsearch.consent import refuse_code
    from kdsearch.models import parse_network
    from kdsearch.students import STUDENT, chosen, listed_names

    named = [] if typed is None else listed_names(typed)
    try:
        chosen(named or [str(name)], name)
    except InvalidSetting:
        raise InvalidSetting("--student", typed, f"{path} is for student {name!r}; leave out one of the two") from None
    if not allow_code:
        refuse_code({STUDENT: parse_network(str(name))}, path, [parse_network(text)["name"] for text in named])


def _of_task(space: str, flags: Mapping[str, Any], allow_code: bool) -> dict[str, Any]:
    """Data and networks that a task brings, where the command line asks for another than the file is made for."""
    from kdsearch import methods, tasks
    from kdsearch.auto import AUTO
    from kdsearch.consent import refuse_code
    from kdsearch.spaces import read_space

    content = read_space(space)
    name = flags.get("task")
    if name is None or name == content.get("task", "classification"):
        return {}
    if not allow_code:
        refuse_code({"method": content.get("method")}, space, [space])
    task = tasks.find(name)
    networks: dict[str, Mapping[str, Any]] = {"student": {"name": task.student, "arguments": task.student_arguments}}
    if content["method"] == AUTO or methods.find(content["method"]).needs_teacher:
        networks["teacher"] = task.teacher
    brought: dict[str, Any] = {"data.name": task.data}
    for title, section in (("training", task.training), ("search", task.search)):
        brought |= {f"{title}.{key}": value for key, value in section.items()}
    for role, network in networks.items():
        whole = {"weights": None, "arguments": {}} | dict(network)
        brought |= {f"{role}.{key}": value for key, value in whole.items()}
    return brought


def _first_rung(space: str, overrides: Mapping[str, Any]) -> dict[str, Any]:
    """The first rung that a task or a shipped space brings, within the epochs of a person who asks for fewer.

    One that a person's own file names stays: of the two wishes neither is for us to change.
    """
    from pathlib import Path

    from kdsearch.search_settings import SearchSettings
    from kdsearch.spaces import read_space

    epochs = overrides.get("training.epochs")
    section = read_space(space).get("search")
    inside = section.get("grace_period") if isinstance(section, dict) else None
    if inside is not None and Path(space).suffix in {".yaml", ".yml"} and "search.grace_period" not in overrides:
        return {}
    brought = overrides.get("search.grace_period", inside or SearchSettings().grace_period)
    too_late = type(epochs) is int and type(brought) is int and brought > epochs >= 1
    return {"search.grace_period": epochs} if too_late else {}


def parse_assignments(assignments: Sequence[str]) -> dict[str, Any]:
    """`KEY=VALUE` pairs, the values read as YAML. Raises InvalidSetting."""
    from kdsearch.files import parse_yaml

    found: dict[str, Any] = {}
    for text in assignments:
        key, equals, value = text.partition("=")
        if not equals or not key.strip():
            raise InvalidSetting("--set", text, "write KEY=VALUE, such as space.temperature.high=12")
        try:
            found[key.strip()] = parse_yaml(value)
        except ValueError as error:
            raise InvalidSetting("--set", text, f"the value is not YAML: {error}") from None
    return found
