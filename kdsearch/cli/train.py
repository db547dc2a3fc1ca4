"""`kdsearch train`: one training, no search and no Ray."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from kdsearch.cli import options
from kdsearch.cli.output import console, duration, print_json, say, score
from kdsearch.cli.runs import AsJson

if TYPE_CHECKING:
    from kdsearch.objective import Report


def train(
    space: options.Space,
    to: Annotated[str, typer.Option("--to", help="New folder for the student and its metrics.", metavar="DIR")],
    hyperparameters: options.Hyperparameters = None,
    data: options.Data = None,
    data_root: options.DataRoot = None,
    student: options.Student = None,
    teacher: options.Teacher = None,
    task: options.Task = None,
    max_epochs: options.MaxEpochs = None,
    label_fraction: options.LabelFraction = None,
    label_noise: options.LabelNoise = None,
    seed: options.Seed = None,
    assignments: options.Set = None,
    allow_code: options.AllowCode = False,
    as_json: AsJson = False,
) -> None:
    """Train one student with the paper's setting, or with the hyperparameters of a file."""
    from kdsearch.training.single import train_student

    flags: dict[str, Any] = {
        "task": task,
        "seed": seed,
        "data.name": data,
        "data.root": data_root,
        "data.label_fraction": label_fraction,
        "data.label_noise": label_noise,
        "training.epochs": max_epochs,
        # One training has no rungs; a short one must not be refused for the search's grace period.
        "search.grace_period": 1,
    }
    experiment = options.load_experiment(
        space, flags, student, teacher, assignments, hyperparameters, allow_code=allow_code
    )
    shown = console()

    def told(what: str, report: Report, epochs: int) -> None:
        if not as_json and (shown.is_terminal or report.epoch == epochs or report.epoch % max(1, epochs // 10) == 0):
            say(f"{what}: epoch {report.epoch} of {epochs}, {score(report.value)}, {duration(report.seconds)}")

    facts = train_student(experiment, to, told)
    if as_json:
        print_json(facts)
        return
    say(f"{facts['metric']} {score(facts['value'])} on validation ({facts['weights']} weights, epoch {facts['epoch']})")
    say(f"exported to {to}", wrap=False)
