"""`kdsearch chain`: generation after generation, and what came of it."""

from __future__ import annotations

import contextlib
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kdsearch.cli import series
from kdsearch.cli.options import AllowCode
from kdsearch.cli.output import Column, Row, say
from kdsearch.cli.runs import AsJson, Storage
from kdsearch.cli.table import print_table

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from kdsearch.chain import Step
    from kdsearch.cli.display import Display
    from kdsearch.experiment import Experiment
    from kdsearch.results import Results

_STYLES = {"RUNNING": "cyan", "CRASHED": "red", "FAILED": "red", "PENDING": "dim"}
_CHAIN_STYLES = {"RUNNING": "bold cyan", "COMPLETE": "bold green", "INTERRUPTED": "bold yellow"}


def chain(
    file: Annotated[str, typer.Argument(help="YAML file of the chain: its generations and what holds for all.")],
    name: Annotated[str | None, typer.Option("--name", help="Name of the chain; else its own, or its file's.")] = None,
    storage: Storage = "runs",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check everything, show the steps, write nothing.")
    ] = False,
    allow_code: AllowCode = False,
    as_json: AsJson = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Show what Ray has to say.")] = False,
) -> None:
    """Search generation after generation, each best student teaching the next, and two controls.

    Started again, it goes on where it was ended.
    """
    from kdsearch.chain import Chain

    found = Chain.load(file, name, allow_code=allow_code)
    if dry_run:
        _dry_run(found)
        return
    from kdsearch.tuning.chain import chain_folder, quietly, run_chain

    def run() -> dict[str, Any]:
        if as_json:
            return run_chain(found, storage=storage, view=quietly, verbose=verbose)
        return run_chain(found, storage=storage, view=displayed, announce=say, verbose=verbose)

    drive(run, chain_folder(found, storage), as_json=as_json)


def drive(run: Callable[[], dict[str, Any]], folder: Path, *, as_json: bool = False) -> None:
    """Run a chain and show its end."""
    series.drive(run, folder, show_chain, _show_next, _go_on, as_json=as_json)


@contextlib.contextmanager
def displayed(step: Step, experiment: Experiment, earlier: Results | None) -> Iterator[Display]:
    """The display of a search under a line that says which step of the chain it is."""
    from kdsearch.cli.display import Display

    say(step.heading, "bold")
    with Display(experiment, earlier) as display:
        yield display


def show_chain(document: dict[str, Any]) -> None:
    """The table of a chain, and what can be said of it."""
    from kdsearch.results.chain import cells, progress_of, remarks, titles

    state = document["state"]
    say(f"chain {document['chain']}  {state}", _CHAIN_STYLES.get(state, "bold red"))
    spare = {"compression": 3, "multiply-adds": 2, "learns from": 4}
    columns = [
        Column(title, right=place > 2, spare=spare.get(title, 0)) for place, title in enumerate(titles(document))
    ]
    rows = [
        Row(cells(row), _STYLES.get(row["state"], ""), text=progress_of(row, document["metric"]))
        for row in document["rows"]
    ]
    print_table(columns, rows)
    for remark in remarks(document):
        say(remark, "dim")


def _show_next(folder: Path, document: dict[str, Any]) -> None:
    from kdsearch.cli.views import nearby, typed_folder

    last = [row["name"] for row in document["rows"] if row["kind"] == "generation"][-1]
    say("Next:", "dim")
    say(f"  kdsearch export {typed_folder(folder)}/{last} --to DIR", wrap=False)
    say(f"  table and plot: {shlex.quote(nearby(folder))}/README.md and chain.png", wrap=False)


def _go_on(folder: Path) -> str:
    from kdsearch.cli.views import typed_folder
    from kdsearch.consent import names_code
    from kdsearch.files import read_yaml
    from kdsearch.results.storage import CHAIN

    flag = " --allow-code" if names_code(read_yaml(folder / CHAIN)) else ""
    return f"Go on with:  kdsearch resume {typed_folder(folder)}{flag}"


def _dry_run(found: Any) -> None:
    from kdsearch.tuning.agenda import Agenda
    from kdsearch.tuning.chain import check

    check(found, announce=say)
    for step in found.steps():
        experiment = step.experiment
        trials = Agenda(experiment, step.tries).trials if experiment else 0
        budget = f": {trials} trials of {experiment.training.epochs} epochs" if experiment else ""
        say(f"{step.heading}{budget}")
    say("Nothing was written.", "dim")
