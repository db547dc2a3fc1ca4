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
Teacher = Annotated[str | None, typer.Option("--teacher", help="Network, NAME:weights file, or an export's folder.")]
MaxEpochs = Annotated[int | None, typer.Option("--max-epochs", help="Full budget of a trial, in epochs.")]
LabelFraction = Annotated[float | None, typer.Option("--label-fraction", help="Share of the training labels to keep.")]
LabelNoise = Annotated[float | None, typer.Option("--label-noise", help="Share of the training labels to falsify.")]
Seed = Annotated[int | None, typer.Option("--seed", help="Seed of initialisation, data order, augmentation, sampler.")]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", help="Any key of the experiment: --set space.temperature.high=12.", metavar="KEY=VALUE"),
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
) -> Experiment:
    """The experiment of a command line; flags (dotted keys, None: not given) override the file, `--set` the flags.

    A network that is named on the command line takes the place of the file's, whose weights and arguments go with it.
    """
    from kdsearch.experiment import Experiment, read_settings
    from kdsearch.models import parse_network

    overrides: dict[str, Any] = {key: value for key, value in flags.items() if value is not None}
    for role, text in (("student", student), ("teacher", teacher)):
        if text is not None:
            network: dict[str, Any] = {"weights": None, "arguments": {}} | parse_network(text)
            overrides |= {f"{role}.{key}": value for key, value in network.items()}
    overrides |= parse_assignments(assignments or [])
    experiment = Experiment.load(space, overrides)
    if hyperparameters is not None:
        experiment = experiment.fixed(read_settings(hyperparameters))
    return experiment


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
