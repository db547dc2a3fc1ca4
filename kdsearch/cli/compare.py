"""`kdsearch compare`: several methods with an equal budget, one table."""

from __future__ import annotations

import contextlib
import shlex
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kdsearch.cli import options, series
from kdsearch.cli.budget import parse_budget
from kdsearch.cli.output import Column, Row, console, say, score
from kdsearch.cli.runs import AsJson, Storage
from kdsearch.cli.table import print_table
from kdsearch.errors import InvalidSetting

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from rich.status import Status

    from kdsearch.cli.confirm import Display as ConfirmationDisplay
    from kdsearch.comparison import Comparison, Entry, Unit
    from kdsearch.experiment import Experiment
    from kdsearch.objective import Report
    from kdsearch.results import Results
    from kdsearch.tuning.trials import LiveTrial

SECONDS_BETWEEN_LINES = 15
_STYLES = {"COMPLETE": "bold green", "RUNNING": "bold cyan", "INTERRUPTED": "bold yellow"}
_COLUMNS = 5  # of a line, counted from its end, that hold figures


def compare(
    entries: Annotated[
        list[str],
        typer.Argument(help="Methods, each with what is fixed: ips kd ips+cutmix kd+temperature=4.", metavar="METHOD…"),
    ],
    budget: Annotated[
        str, typer.Option("--budget", help="Of each search: images seen (2000000img) or time of training (600s, 1h).")
    ],
    data: options.Data = None,
    data_root: options.DataRoot = None,
    student: options.Student = None,
    teacher: options.Teacher = None,
    task: options.Task = None,
    max_epochs: Annotated[
        int | None,
        typer.Option("--max-epochs", help="Epochs of a training of the reference; the others cost the same."),
    ] = None,
    seeds: Annotated[int, typer.Option("--seeds", help="Fresh seeds that decide; as many others report.")] = 5,
    top: Annotated[int, typer.Option("--top", help="Best settings of each search that are decided among.")] = 3,
    label_fraction: Annotated[
        str | None, typer.Option("--label-fraction", help="Shares of the labels to keep: 0.25,0.5,0.75.")
    ] = None,
    label_noise: Annotated[
        str | None, typer.Option("--label-noise", help="Shares of the labels to falsify: 0,0.4,0.8.")
    ] = None,
    controls: Annotated[
        bool, typer.Option("--controls/--no-controls", help="Search CutMix and Mixup with the same budget too.")
    ] = True,
    scheduler: Annotated[str | None, typer.Option("--scheduler", help="asha, hyperband, median or none.")] = None,
    gpus_per_trial: Annotated[
        str | None, typer.Option("--gpus-per-trial", help="GPUs of a trial, or a share; auto: measured.", metavar="N")
    ] = None,
    cpus_per_trial: Annotated[float | None, typer.Option("--cpus-per-trial", help="CPUs of a trial.")] = None,
    max_concurrent: Annotated[int | None, typer.Option("--max-concurrent", help="Trials at a time.")] = None,
    address: Annotated[str | None, typer.Option("--address", help="Ray cluster to join: auto or HOST:PORT.")] = None,
    name: Annotated[str | None, typer.Option("--name", help="Name of the comparison.")] = None,
    seed: options.Seed = None,
    assignments: options.Set = None,
    storage: Storage = "runs",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check, list the searches, write nothing.")] = False,
    allow_code: options.AllowCode = False,
    as_json: AsJson = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Show what Ray has to say.")] = False,
) -> None:
    """Search several methods with an equal budget, train the best settings on fresh seeds, and test the differences.

    Budgets are images seen or seconds of training, never epochs. Plain labels (ce) are always among the methods, and
    CutMix and Mixup beside them. Given again, it goes on where it was ended.
    """
    unit, amount = budget_of(budget)
    flags: dict[str, Any] = {
        "task": task,
        "seed": seed,
        "data.name": data,
        "data.root": data_root,
        "training.epochs": max_epochs,
        "search.scheduler": scheduler,
        "resources.gpus_per_trial": gpus_per_trial,
        "resources.cpus_per_trial": cpus_per_trial,
        "resources.max_concurrent": max_concurrent,
        "resources.address": address,
    }
    from kdsearch import comparison

    found = comparison.compare(
        entries,
        lambda method, given: _load(method, flags | dict(given), student, teacher, assignments, allow_code),
        unit=unit,
        amount=amount,
        name=name,
        seeds=seeds,
        top=top,
        label_fractions=shares("--label-fraction", label_fraction),
        label_noises=shares("--label-noise", label_noise),
        controls=controls,
    )
    if dry_run:
        _dry_run(found)
        return
    from kdsearch.tuning.compare import comparison_folder, run_comparison

    def run() -> dict[str, Any]:
        if as_json:
            return run_comparison(found, storage=storage, verbose=verbose)
        return run_comparison(
            found, storage=storage, view=searching, confirming=confirming, announce=say, verbose=verbose
        )

    drive(run, comparison_folder(found, storage), as_json=as_json)


def budget_of(text: str) -> tuple[Unit, float]:
    """Unit and amount of the budget of each search. Raises InvalidSetting."""
    found = parse_budget(text)
    if set(found) == {"images"}:
        return "images", float(found["images"])
    if set(found) == {"time"}:
        return "seconds", float(found["time"])
    raise InvalidSetting("--budget", text, "give either images seen or seconds, such as 2000000img, 600s or 1h")


def shares(option: str, text: str | None) -> tuple[float, ...]:
    """The numbers of a list with commas. Raises InvalidSetting."""
    try:
        return () if text is None else tuple(dict.fromkeys(float(part) for part in text.split(",")))
    except ValueError:
        raise InvalidSetting(option, text, "give numbers with commas between them, such as 0.25,0.5,0.75") from None


def _load(
    method: str,
    flags: Mapping[str, Any],
    student: str | None,
    teacher: str | None,
    assignments: list[str] | None,
    allow_code: bool,
) -> Experiment:
    """The experiment of one method: a teacher is for those that learn from one."""
    from kdsearch import methods
    from kdsearch.consent import refuse_code
    from kdsearch.spaces import read_space

    content = read_space(method)
    if not allow_code:
        refuse_code({"method": content.get("method")}, method, [method])
    taught = methods.find(str(content.get("method"))).needs_teacher
    return options.load_experiment(
        method, flags, student, teacher if taught else None, assignments, None, allow_code=allow_code
    )


def drive(run: Callable[[], dict[str, Any]], folder: Path, *, as_json: bool = False) -> None:
    """Run a comparison and show its end."""
    series.drive(run, folder, show_comparison, _show_next, _go_on, as_json=as_json)


def _show_next(folder: Path, document: Mapping[str, Any]) -> None:
    from kdsearch.cli.views import nearby

    say(f"table and plot: {shlex.quote(nearby(folder))}/README.md and compare.png", wrap=False)


def show_comparison(document: Mapping[str, Any]) -> None:
    """The table of a comparison, and what may be said of it."""
    from kdsearch.results.compare import claim
    from kdsearch.results.compare_words import findings, lines, remarks, titles
    from kdsearch.results.confirmation import WINNER

    say(f"comparison {document['comparison']}  {document['state']}", _STYLES.get(document["state"], "bold red"))
    head = titles(document)
    figures = len(head) - _COLUMNS
    columns = [
        Column(title, right=place >= figures, spare=2 if place == len(head) - 2 else 0)
        for place, title in enumerate(head)
    ]
    rows = []
    for row, part, cells in lines(document):
        better = part == WINNER and claim(row["gains"].get(part)) > 0
        style = "bold green" if better else "red" if row["error"] else "" if part in (WINNER, None) else "dim"
        rows.append(Row(cells, style))
    print_table(columns, rows)
    for sentence in findings(document):
        say(sentence)
    for remark in remarks(document):
        say(remark, "dim")


def _go_on(folder: Path) -> str:
    from kdsearch.cli.views import typed_folder
    from kdsearch.consent import names_code
    from kdsearch.files import read_yaml
    from kdsearch.results.storage import COMPARISON

    entries = read_yaml(folder / COMPARISON).get("entries") or ()
    flag = " --allow-code" if any(names_code(entry["experiment"]) for entry in entries) else ""
    return f"Go on with:  kdsearch resume {typed_folder(folder)}{flag}"


def _dry_run(found: Comparison) -> None:
    from kdsearch.tuning.compare import rehearsed

    for entry in found.equalised(rehearsed(found, announce=say)).entries:
        say(f"{entry.run}: {found.amount:,.0f} {found.unit}, trainings of {entry.experiment.training.epochs} epochs")
    say("Nothing was written.", "dim")


@contextlib.contextmanager
def searching(entry: Entry, earlier: Results | None) -> Iterator[SearchDisplay]:
    """The display of one search of a comparison."""
    with SearchDisplay(entry) as display:
        yield display


@contextlib.contextmanager
def confirming(entry: Entry) -> Iterator[ConfirmationDisplay]:
    """The display of one confirmation, under a line that says which."""
    from kdsearch.cli.confirm import Display

    say(f"{entry.run}: fresh seeds", "bold")
    with Display() as display:
        yield display


class SearchDisplay:
    """A watcher that shows how much of its budget a search has spent: one line that changes, or a line now and then."""

    def __init__(self, entry: Entry) -> None:
        from kdsearch import tasks

        self._entry = entry
        self._sign = 1 if tasks.find(entry.experiment.task).mode == "max" else -1
        self._console = console()
        self._status: Status | None = None
        self._ended, self._best = 0, float("-inf")
        self._spent = dict.fromkeys(("images", "training_time"), 0.0)
        self._spoke = time.time()

    def __enter__(self) -> SearchDisplay:
        say(f"{self._entry.run}: search", "bold")
        if self._console.is_terminal:
            self._status = self._console.status("preparing")
            self._status.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self._status is not None:
            self._status.stop()

    def announce(self, sentence: str) -> None:
        if self._status is None:
            say(sentence)
        else:
            self._status.update(sentence)

    def trial_started(self, trial: LiveTrial) -> None: ...

    def epoch_told(self, trial: LiveTrial, report: Report) -> None:
        self._spent["images"] += report.images
        self._spent["training_time"] += report.seconds
        if trial.role != "control":
            self._best = max(self._best, self._sign * report.value)
        if self._status is not None:
            self._status.update(self._line())
        elif time.time() - self._spoke > SECONDS_BETWEEN_LINES:
            self._spoke = time.time()
            say(self._line())

    def trial_ended(self, trial: LiveTrial, value: float | None) -> None:
        self._ended += 1

    def _line(self) -> str:
        search = self._entry.experiment.search
        limits = ((name, getattr(search, name)) for name in self._spent)
        shares = [f"{self._spent[name] / limit:.0%} of {limit:,.0f} {name}" for name, limit in limits if limit]
        best = score(self._sign * self._best if self._best > float("-inf") else None)
        return " | ".join([self._entry.run, f"{self._ended} trials ended", f"best {best}", *shares]).replace("_", " ")
