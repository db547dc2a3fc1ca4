"""Everything that a report says of a run, as data: read once, shown as a page or as text."""

from __future__ import annotations

import re
import shlex
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import yaml

from kdsearch import __version__
from kdsearch.errors import KDSearchError
from kdsearch.results.card import hyperparameters_yaml
from kdsearch.results.confirmation import WINNER, read_confirmation
from kdsearch.results.documents import plain, read_json
from kdsearch.results.export import BEST, METRICS, portable
from kdsearch.results.figures import score
from kdsearch.results.progress import Progress, progress
from kdsearch.results.report.history import Event, find_history
from kdsearch.results.report.landscape import Landscape, find_landscape
from kdsearch.results.report.rungs import Rung, find_rungs
from kdsearch.results.report.spending import Spending, find_spending
from kdsearch.results.storage import run_name
from kdsearch.results.students import student_rows
from kdsearch.results.verdict import readings, scope, verdicts

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from kdsearch.results.results import Results, Trial

TOP = 10
_NUMBER = re.compile(r"0x[0-9a-f]+|[-+]?\d+(\.\d+)?(e[-+]?\d+)?", re.IGNORECASE)


@dataclass(frozen=True)
class Confirmed:
    """What `kdsearch confirm` found, or why it cannot be told."""

    figures: Mapping[str, Any]
    """confirm.json; empty where it cannot be read."""
    said: tuple[str, ...]
    """Its sentences."""


@dataclass(frozen=True)
class Failure:
    """Trials that failed alike: reasons that differ in their numbers alone are one."""

    reason: str
    trials: tuple[int, ...]


@dataclass(frozen=True)
class Document:
    """A run as its report tells it."""

    run: str
    state: str
    why: str | None
    metric: str
    mode: str
    experiment: Mapping[str, Any]
    """experiment.yaml, absolute paths cut to their last part."""
    progress: Progress
    provisional: bool
    winner: Trial | None
    """The confirmed winner, else the best of the search."""
    paper: Trial | None
    control: Trial | None
    over_paper: float | None
    """Gains of the winner in the search, positive where it is better; None unless both reached the full budget."""
    over_control: float | None
    confirmed: Confirmed | None
    students: tuple[Mapping[str, Any], ...]
    """A row for each student of a search that chooses among several, as `student_rows` gives it; else empty."""
    top: tuple[Trial, ...]
    counts: Mapping[str, int]
    searched: tuple[str, ...]
    history: tuple[Event, ...]
    rungs: tuple[Rung, ...]
    landscape: Landscape
    spending: Spending | None
    failures: tuple[Failure, ...]
    setting: str | None
    """The winner's hyperparameters as a YAML file."""
    commands: tuple[tuple[str, str], ...]
    """What follows or leads here again: a sentence and a command."""
    versions: Mapping[str, Any]
    """Of the process that trained the winner; empty where the run does not say."""
    written_by: str

    def to_dict(self) -> dict[str, Any]:
        """All of it as JSON can hold it."""
        found: dict[str, Any] = portable(plain(asdict(self)))  # a page is given to others
        return found


def gather(results: Results) -> Document:
    """Read the run whole. Raises RunError when its files are damaged."""
    confirmed = _confirmed(results)
    winner = _winner(results, confirmed)
    facts = _best_facts(results)
    return Document(
        run=run_name(results.folder),
        state=results.state,
        why=results.why,
        metric=results.metric or "score",
        mode=results.mode,
        experiment=portable(plain(results.experiment)),
        progress=progress(results),
        provisional=results.provisional,
        winner=winner,
        paper=results.paper_of(winner),
        control=results.control_of(winner),
        over_paper=results.gain(winner, results.paper_of(winner)),
        over_control=results.gain(winner, results.control_of(winner)),
        confirmed=confirmed,
        students=tuple(_students(results)),
        top=tuple(results.top(TOP)),
        counts=dict(results.counts),
        searched=results.searched,
        history=tuple(find_history(results)),
        rungs=tuple(find_rungs(results)),
        landscape=find_landscape(results),
        spending=find_spending(results),
        failures=tuple(_failures(results.trials)),
        setting=None if winner is None else _setting(results, winner),
        commands=tuple(_commands(results, winner, confirmed)),
        versions=facts.get("versions") or {},
        written_by=f"kdsearch {__version__}",
    )


def _confirmed(results: Results) -> Confirmed | None:
    """The confirmation in the run's folder, whatever state it is in; None without one."""
    try:
        figures = read_confirmation(results.folder)
        if figures is None:
            return None
        number = figures["settings"][WINNER]["trial"]
        if all(trial.number != number for trial in results.trials):
            raise KeyError(WINNER)
        return Confirmed(figures, (*verdicts(figures), scope(figures), readings(figures)))
    except (KDSearchError, KeyError, TypeError, ValueError, AttributeError, IndexError):
        return Confirmed({}, ("There is a confirmation, and it cannot be read: run kdsearch confirm again.",))


def _winner(results: Results, confirmed: Confirmed | None) -> Trial | None:
    if confirmed is None or not confirmed.figures:
        return results.best
    number = confirmed.figures["settings"][WINNER]["trial"]
    return next(trial for trial in results.trials if trial.number == number)


def _best_facts(results: Results) -> dict[str, Any]:
    path = results.folder / BEST / METRICS
    try:
        return read_json(path) if path.is_file() else {}
    except KDSearchError:
        return {}


def _students(results: Results) -> list[dict[str, Any]]:
    """The students that were searched; empty of one alone, and where the file cannot be read."""
    try:
        rows = student_rows(results) or []
    except (KDSearchError, KeyError, TypeError, AttributeError):
        return []
    return rows if len(rows) > 1 else []


def _failures(trials: Iterable[Trial]) -> list[Failure]:
    """The reasons, the most frequent first; each as the first trial told it."""
    alike: dict[str, list[Trial]] = {}
    for trial in trials:
        if trial.state == "FAILED":
            alike.setdefault(_NUMBER.sub("#", trial.error or ""), []).append(trial)
    found = [
        Failure(same[0].error or "no reason was noted", tuple(trial.number for trial in same))
        for same in alike.values()
    ]
    return sorted(found, key=lambda failure: -len(failure.trials))


def _setting(results: Results, winner: Trial) -> str:
    value = f"{results.metric or 'score'} {score(winner.best)} on validation in the search"
    return hyperparameters_yaml(
        winner.hyperparameters,
        [f"Hyperparameters of trial {winner.number} of run {run_name(results.folder)}: {value}."],
    )


def _commands(results: Results, winner: Trial | None, confirmed: Confirmed | None) -> list[tuple[str, str]]:
    run = shlex.quote(run_name(results.folder))
    train = "kdsearch train experiment.yaml --hyperparameters best.yaml --seed 1 --to DIR"
    found = [
        (
            "The same search anew, from the run's experiment.yaml (it stands below):",
            "kdsearch search experiment.yaml --name again",
        )
    ]
    if winner is not None:
        found.append(("Train the setting above, saved as best.yaml, with another seed:", train))
    if any(trial.state == "COMPLETE" for trial in results.trials):
        found.append(("Take the student home:", f"kdsearch export {run} --to DIR"))
    if winner is not None and confirmed is None and not results.provisional:
        found.append(("Confirm the winner on fresh seeds:", f"kdsearch confirm {run}"))
    if results.state in ("INTERRUPTED", "CRASHED", "FAILED"):
        found.append(("Go on with this search:", f"kdsearch resume {run}"))
    return found


def experiment_yaml(document: Document) -> str:
    """The experiment as a file."""
    return yaml.safe_dump(plain(document.experiment), sort_keys=False, allow_unicode=True)
