"""What a person sees of a run: where it stands, and what it found."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdsearch.cli.confirmed import show_confirmed
from kdsearch.cli.output import Column, Row, console, duration, gain, say, say_parts, score, values
from kdsearch.cli.packing import show_packing
from kdsearch.cli.table import print_table
from kdsearch.results.card import per_class
from kdsearch.results.copies import Home, home_of
from kdsearch.results.figures import name_of as name_of
from kdsearch.results.figures import names_of_students as names_of_students
from kdsearch.results.packing import read_packing
from kdsearch.results.progress import budget_in_words as budget_in_words
from kdsearch.results.progress import progress
from kdsearch.results.remote import is_url
from kdsearch.results.storage import run_name
from kdsearch.results.students import EXPLANATION, TITLES, cells, student_rows

if TYPE_CHECKING:
    from kdsearch.results.progress import Progress
    from kdsearch.results.results import Results, Trial

ROWS = 20
NARROW = 100
NARROW_ROWS = 8  # settings stand below their trials there
_REASONS = 3
_BAR = 20
_CLASSES = 10
_STATES = ("RUNNING", "COMPLETE", "PRUNED", "FAILED")
_STYLES = {"RUNNING": "cyan", "COMPLETE": "", "PRUNED": "dim", "FAILED": "red"}
_RUN_STYLES = {"RUNNING": "bold cyan", "COMPLETE": "bold green", "INTERRUPTED": "bold yellow"}


def show_status(results: Results, *, everything: bool = False) -> None:
    """The run, how far it has come, the best so far against paper and control, and the trials."""
    show_headline(results)
    show_progress(results)
    packing = read_packing(results.folder)
    if packing is not None:
        show_packing(packing, everything=everything)
        larger = results.attribute("gpus_per_trial")
        if larger:
            say(f"Since a trial ran out of GPU memory, each has {larger:g} GPUs.", "dim")
    if results.best is not None:
        say()
        show_comparison(results)
    show_confirmed(results)
    if results.trials:
        say()
        show_trials(results, limit=None if everything else NARROW_ROWS if console().width < NARROW else ROWS)
    show_failures(results)


def show_headline(results: Results) -> None:
    """Name, state, what is searched, and why it ended."""
    state = results.state
    say(f"{run_name(results.folder)}  {state}", _RUN_STYLES.get(state, "bold red"))
    method, data = (name_of(results.experiment.get(key)) for key in ("method", "data"))
    parts = [method, names_of_students(results.experiment), data]
    say_parts(part for part in (*parts, results.metric or "") if part)
    if state == "CRASHED":
        say("The search was ended from outside: no process drives it, and the trials that ran have stopped.")
    elif results.why and state != "RUNNING":
        say(f"Ended: {results.why}")


def show_progress(results: Results) -> None:
    """How much of the budget is spent and what became of the trials."""
    where = progress(results)
    planned = f"/{where.budget.trials}" if where.budget.trials else ""
    counts = results.counts
    states = [f"{counts[state]} {state_of(state, results)}" for state in _STATES if counts[state]]
    say_parts([f"{_bar(results, where)}{where.ended}{planned} trials ended", *states])
    say_parts(_times(where))


def _bar(results: Results, where: Progress) -> str:
    if results.state != "RUNNING" or not console().is_terminal:
        return ""
    filled = round(_BAR * where.fraction)
    return f"{'━' * filled}{'╌' * (_BAR - filled)} "


def _times(where: Progress) -> list[str]:
    parts = [f"{where.epochs} epochs"]
    if where.elapsed is not None:
        parts.append(f"{duration(where.elapsed)} so far" if where.left is not None else duration(where.elapsed))
    if where.left is not None:
        parts.append(f"about {duration(where.left)} left")
    return [*parts, f"budget {budget_in_words(where.budget)}"]


def show_comparison(results: Results) -> None:
    """The best trial beside the paper's setting and the undistilled control."""
    best = results.best
    columns = [
        Column(""),
        Column(results.metric or "score", right=True),
        Column("gain of best", right=True, spare=1),
        Column("trial", right=True, spare=2),
    ]
    rows = [_compared("best", results, best, None)] if best else []
    others = (("paper", results.paper), ("control", results.control))
    rows += [_compared(label, results, trial, best) for label, trial in others if trial is not None]
    print_table(columns, rows)
    if results.provisional:
        say("No trial has reached the full budget yet: the best is the best of those that got furthest.", "dim")


def _compared(label: str, results: Results, trial: Trial, best: Trial | None) -> Row:
    difference = gain(results.gain(best, trial)) if best else ""
    cells = [label, score(trial.best), difference, str(trial.number)]
    return Row(cells, "" if best else "bold green", values(trial.hyperparameters, results.searched))


def show_trials(results: Results, limit: int | None) -> None:
    """The trials, those that matter most first: running, then the best, the failed last."""
    trials = by_relevance(results, limit)
    columns = [
        Column("trial"),
        Column("state"),
        Column(results.metric or "score", right=True),
        Column("last", right=True, spare=4),
        Column("epochs", right=True, spare=2),
        Column("time", right=True, spare=3),
        Column("node", spare=5),
    ]
    best = results.best
    print_table(columns, [_trial_row(results, trial, trial is best) for trial in trials])
    hidden = len(results.trials) - len(trials)
    if hidden:
        say(f"… and {hidden} more (--all shows them)", "dim")


def _trial_row(results: Results, trial: Trial, is_best: bool) -> Row:
    cells = [
        _label(trial),
        state_of(trial.state, results),
        score(trial.best),
        score(trial.last),
        str(trial.epochs),
        duration(trial.seconds),
        trial.node or "",
    ]
    style = "bold green" if is_best else _STYLES[trial.state]
    return Row(cells, style, values(trial.hyperparameters, results.searched))


def _label(trial: Trial) -> str:
    return str(trial.number) if trial.role == "search" else f"{trial.number} {trial.role}"


def by_relevance(results: Results, limit: int | None) -> list[Trial]:
    """Running trials (half of `limit` at most), then the others from best to worst, the failed last."""
    running = [trial for trial in results.trials if trial.state == "RUNNING"]
    others = [trial for trial in results.top(len(results.trials)) if trial.state != "RUNNING"]
    listed = {trial.number for trial in running + others}
    others += [trial for trial in results.trials if trial.number not in listed]
    if limit is None:
        return running + others
    shown = running[: max(limit // 2, limit - len(others))]
    return shown + others[: limit - len(shown)]


def show_failures(results: Results) -> None:
    """Why trials failed, the first few."""
    failed = [trial for trial in results.trials if trial.state == "FAILED"]
    if not failed:
        return
    say()
    for trial in failed[:_REASONS]:
        say(f"trial {trial.number} failed: {trial.error or 'no reason was noted'}", "red")
    if len(failed) > _REASONS:
        say(f"… and {len(failed) - _REASONS} more failed", "dim")


def show_best(results: Results, top: int) -> None:
    """The best trials, the paper's setting and the control, each with its gain over both."""
    columns = [
        Column(""),
        Column("trial"),
        Column(results.metric or "score", right=True),
        Column("vs paper", right=True, spare=1),
        Column("vs control", right=True, spare=1),
        Column("epochs", right=True, spare=2),
    ]
    best = results.top(top)
    rows = [_ranked_row(results, str(place), trial) for place, trial in enumerate(best, 1)]
    others = [trial for trial in (results.paper, results.control) if trial is not None and trial not in best]
    print_table(columns, rows + [_ranked_row(results, "", trial) for trial in others])
    if results.provisional:
        say("No trial has reached the full budget yet: these are the best of those that got furthest.", "dim")
    elif results.best is not None and results.best.role == "control":
        say("No setting of the method beat the same student without it (the control).", "yellow")
    elif results.best is not None and results.best.role == "paper":
        say("No searched setting beat the paper's own.", "yellow")
    show_students(results)


def _ranked_row(results: Results, place: str, trial: Trial) -> Row:
    cells = [
        place,
        _label(trial),
        score(trial.best),
        gain(results.gain(trial, results.paper_of(trial))) if trial.role != "paper" else "",
        gain(results.gain(trial, results.control_of(trial))) if trial.role != "control" else "",
        str(trial.epochs),
    ]
    return Row(cells, "bold green" if place == "1" else "", values(trial.hyperparameters, results.searched))


def show_students(results: Results) -> None:
    """Of a search over several students, or with limits: what each reached, what it costs, which are on the front."""
    rows = student_rows(results)
    if rows is None:
        return
    titles = [title or results.metric or "score" for title in TITLES]
    columns = [Column(title, right=title not in ("student", "front")) for title in titles]
    say()
    print_table(columns, [Row(cells(row), "" if row["front"] else "dim") for row in rows])
    for row in rows:
        if row["refused"]:
            say(f"{row['name']} {row['refused']}: it was left out.", "dim")
    say(EXPLANATION, "dim")


def show_classes(facts: dict[str, Any]) -> None:
    """What an export's student reaches in each class, the hardest first."""
    metric, scores = per_class(facts)
    if scores:
        say(f"{metric} per class, the hardest first:", "dim")
        more = [f"… {len(scores) - _CLASSES} more"] if len(scores) > _CLASSES else []
        say_parts([f"{name} {score(value)}" for name, value in list(scores.items())[:_CLASSES]] + more)


def show_next(results: Results) -> None:
    """The commands that follow on a run."""
    run, folder = typed(results), shlex.quote(nearby(results.folder))
    commands = [f"tensorboard --logdir {folder}"]
    if (results.folder / "best" / "hyperparameters.yaml").is_file():
        setting = f"--hyperparameters {folder}/best/hyperparameters.yaml"
        train = f"kdsearch train {folder}/experiment.yaml {setting} --seed 1 --to DIR"
        commands = [f"kdsearch export {run} --to DIR", train, *commands]
    else:
        commands = [f"kdsearch best {run} --yaml > best.yaml", *commands]
    say("Next:", "dim")
    for command in commands:
        say(f"  {command}", wrap=False)


def typed(results: Results) -> str:
    """The run as one types it after `kdsearch status`: its name where it lies in the default storage, else its path."""
    return typed_folder(results.folder)


def typed_folder(folder: Path) -> str:
    """The folder of a run or a chain as one types it."""
    if (home := home_of(folder)) is not None:
        known = os.environ.get("KDSEARCH_STORAGE", "")
        at_hand = is_url(known) and Home(known).remote == home.remote
        return folder.name if at_hand else f"{folder.name} --storage {shlex.quote(home.url)}"
    storage = Path(os.environ.get("KDSEARCH_STORAGE", "runs")).expanduser()
    name = run_name(folder)
    in_storage = (storage / name).resolve() == folder.resolve()
    return shlex.quote(name if in_storage else str(folder))


def nearby(folder: Path) -> str:
    """The folder as seen from here, where it lies below."""
    here = Path.cwd()
    return str(folder.relative_to(here)) if folder.is_relative_to(here) else str(folder)


def state_of(state: str, results: Results) -> str:
    """A trial's state in lower case; a trial that is RUNNING in a run that is not driven is unfinished."""
    return "unfinished" if state == "RUNNING" and results.state != "RUNNING" else state.lower()
