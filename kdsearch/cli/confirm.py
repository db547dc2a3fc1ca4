"""`kdsearch confirm`: a winner one can believe."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kdsearch.cli.options import AllowCode
from kdsearch.cli.output import Column, Row, console, duration, gain, print_json, say, score, values
from kdsearch.cli.runs import AsJson, RunName, Storage
from kdsearch.cli.table import print_table

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType

    from rich.progress import Progress

    from kdsearch.results import Results
    from kdsearch.results.confirm_log import Done


def confirm(
    run: RunName,
    top: Annotated[int, typer.Option("--top", help="How many of the best settings are trained again.")] = 3,
    seeds: Annotated[int, typer.Option("--seeds", help="Fresh seeds that decide; as many others report.")] = 5,
    storage: Storage = "runs",
    allow_code: AllowCode = False,
    as_json: AsJson = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Show what Ray has to say.")] = False,
) -> None:
    """Train a run's best settings, the paper's and the control on fresh seeds, and say which is better, how surely.

    One set of seeds decides on validation; on another the test split is read, once for each student. Ended and given
    again, it goes on; with more seeds it adds to what it has.
    """
    from kdsearch.cli.views import typed_folder
    from kdsearch.results import Results, find_run
    from kdsearch.results.confirmation import FOLDER, plan

    folder = find_run(run, storage)
    plan(Results(folder), top, seeds)  # mistakes show before the libraries that train are loaded
    from kdsearch.tuning.confirm import confirm as confirm_run

    try:
        if as_json:
            print_json(confirm_run(folder, top=top, seeds=seeds, allow_code=allow_code, verbose=verbose))
            return
        with Display() as display:
            document = confirm_run(
                folder, top=top, seeds=seeds, watcher=display, allow_code=allow_code, verbose=verbose
            )
    except KeyboardInterrupt:
        if (folder / FOLDER).exists() and not as_json:
            flag = " --allow-code" if allow_code else ""
            command = f"kdsearch confirm {typed_folder(folder)} --top {top} --seeds {seeds}{flag}"
            say(f"Go on with:  {command}", "bold", wrap=False)
        raise
    show_confirmation(Results(find_run(run, storage)), document)  # of a run at a URL, the copy that was written now


class Display:
    """What goes on: a bar on a terminal, a line for each training elsewhere."""

    def __init__(self) -> None:
        self._console = console()
        self._progress: Progress | None = None
        self._stage, self._total, self._done = "", 0, 0
        self._began, self._done_before = time.time(), 0

    def __enter__(self) -> Display:
        if self._console.is_terminal:
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

            columns = (TextColumn("{task.description}"), BarColumn(24), MofNCompleteColumn(), TimeElapsedColumn())
            self._progress = Progress(
                *columns, TextColumn("{task.fields[last]}"), console=self._console, transient=True
            )
            self._progress.add_task("preparing", total=None, last="")
            self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._progress is not None:
            self._progress.stop()

    def announce(self, sentence: str) -> None:
        if self._progress is None:
            say(sentence)
        else:
            self._progress.update(self._progress.task_ids[-1], last=sentence)

    def stage(self, name: str, total: int, done: int) -> None:
        self._stage, self._total, self._done = name, total, done
        self._began, self._done_before = time.time(), done
        if self._progress is not None:
            for task in self._progress.task_ids:
                self._progress.remove_task(task)
            self._progress.add_task(name, total=total, completed=done, last="")
        elif done:
            say(f"{name}: {done} of {total} were done before")

    def ended(self, done: Done) -> None:
        self._done += 1
        what = f"trial {done.trial}, seed {done.seed}: {score(done.value) if done.error is None else 'diverged'}"
        if self._progress is not None:
            self._progress.update(self._progress.task_ids[-1], completed=self._done, last=f"{self._left()}{what}")
        else:
            say(f"{self._stage} {self._done}/{self._total} | {self._left()}{what}")

    def _left(self) -> str:
        left = self._total - self._done
        each = (time.time() - self._began) / max(1, self._done - self._done_before)
        return f"about {duration(each * left)} left | " if left else ""


def show_confirmation(results: Results, document: Mapping[str, Any]) -> None:
    """The end of a confirmation: what decided, what is reported, and what can be said."""
    from kdsearch.cli.views import nearby, show_classes, typed
    from kdsearch.results import verdict
    from kdsearch.results.confirmation import WINNER
    from kdsearch.results.export import BEST
    from kdsearch.results.storage import is_chain

    count = len(document["seeds"]["reporting"])
    say(f"{document['run']}  confirmed on {count} fresh seeds", "bold")
    if document["candidates"]:
        say()
        say(f"Deciding, on validation with {len(document['seeds']['deciding'])} seeds:", "dim")
        _show_candidates(results, document)
    say()
    say(f"Reporting, with {count} other seeds; the gain is the winner's, on test:", "dim")
    show_settings(document)
    say()
    for sentence in verdict.verdicts(document):
        say(sentence)
    say()
    per_class = document["settings"][WINNER]["per_class"]
    if per_class:
        say("The winner on test, the mean of its students:", "dim")
        show_classes(per_class)
    say(verdict.scope(document), "dim")
    say(verdict.readings(document), "dim")
    if not is_chain(results.folder.parent):
        student = document["student"]
        where = nearby(results.folder / BEST)
        say(f"{where} is now the winner's student of seed {student['seed']}, the median by validation.", "dim")
    say("Next:", "dim")
    say(f"  kdsearch export {typed(results)} --to DIR", wrap=False)


def _show_candidates(results: Results, document: Mapping[str, Any]) -> None:
    from kdsearch.results.confirmation import WINNER
    from kdsearch.results.verdict import ends

    columns = [
        Column("trial"),
        Column("search", right=True),
        Column("mean", right=True),
        Column("95 % interval", right=True, spare=1),
    ]
    rows = []
    for candidate in document["candidates"]:
        found, number = candidate["validation"], candidate["trial"]
        won = number == document["settings"][WINNER]["trial"]
        cells = [_trial(candidate), score(candidate["search"]), score(found and found["mean"]), ends(found)]
        rows.append(Row(cells, "bold green" if won else "", values(candidate["hyperparameters"], results.searched)))
    print_table(columns, rows)


def show_settings(document: Mapping[str, Any]) -> None:
    """Winner, paper's setting and control: what the search said of them, and what fresh seeds say."""
    from kdsearch.results.verdict import ends, probability

    columns = [
        Column(""),
        Column("trial"),
        Column("search", right=True, spare=4),
        Column(f"test {document['metric']}", right=True),
        Column("95 % interval", right=True),
        Column("validation", right=True, spare=3),
        Column("gain", right=True),
        Column("95 % interval", right=True),
        Column("P(better)", right=True, spare=2),
    ]
    rows = []
    for part, setting in document["settings"].items():
        test, validation = setting["test"], setting["validation"]
        cells = [_part(part, setting), str(setting["trial"]), score(setting["search"])]
        cells += [score(test and test["mean"]), ends(test)]
        cells.append(score(validation and validation["mean"]))
        gained = document["gains"].get(part, {}).get("test")
        if gained:
            cells += [gain(gained["mean"]), ends(gained, gain)]
            cells.append(probability(gained["probability_better"]))
        else:
            cells += ["", "", ""]
        rows.append(Row(cells, "" if part in document["gains"] else "bold green"))
    print_table(columns, rows)


def _trial(setting: Mapping[str, Any]) -> str:
    number, role = setting["trial"], setting["role"]
    return str(number) if role == "search" else f"{number} {role}"


def _part(part: str, setting: Mapping[str, Any]) -> str:
    """What a row stands for; the paper's setting may have won."""
    return part if setting["role"] in (part, "search") else f"{part} ({setting['role']})"
