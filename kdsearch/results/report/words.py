"""Words that several sections use."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kdsearch.results.figures import number

if TYPE_CHECKING:
    from kdsearch.results.report.document import Document
    from kdsearch.results.results import Trial

SHORT = {"COMPLETE": "full budget", "PRUNED": "stopped", "FAILED": "failed", "RUNNING": "running"}
STATES = {"COMPLETE": "reached the full budget", "PRUNED": "stopped early", "FAILED": "failed", "RUNNING": "running"}


def said_of(state: str, document: Document) -> str:
    """What a trial's state means in this run."""
    return "unfinished" if is_left(state, document) else STATES[state]


def is_left(state: str, document: Document) -> bool:
    """Whether nobody drives a trial of that state: it says RUNNING in a run that does not."""
    return state == "RUNNING" and document.state != "RUNNING"


def value_of(trial: Trial | None, name: str) -> str:
    """The trial's value of a hyperparameter; a dash where it has none."""
    return number(trial.hyperparameters[name]) if trial is not None and name in trial.hyperparameters else "–"
