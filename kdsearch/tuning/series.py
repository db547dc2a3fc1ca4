"""Searches that belong together, one after the other in one folder: a chain, a comparison.

What has ended is left alone, an interrupted search is resumed, the others follow.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

import yaml

from kdsearch.consent import code_of, refuse_code
from kdsearch.errors import RunError, SearchFailed
from kdsearch.files import read_yaml, write_atomic
from kdsearch.results import Results, RunLock
from kdsearch.results.export import METRICS
from kdsearch.results.links import refuse_links
from kdsearch.results.storage import run_name
from kdsearch.tuning.folder import BEST, EXPERIMENT, TRIALS
from kdsearch.tuning.run import resume, search
from kdsearch.tuning.trials import Watcher

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path

    from kdsearch.experiment import Experiment
    from kdsearch.objective import Report
    from kdsearch.settings import Scalar
    from kdsearch.tuning.trials import LiveTrial


class Display(Watcher, Protocol):
    """Someone who follows one search of the series."""

    def announce(self, sentence: str) -> None: ...


class Quiet:
    """A display that shows nothing."""

    def announce(self, sentence: str) -> None: ...

    def trial_started(self, trial: LiveTrial) -> None: ...

    def epoch_told(self, trial: LiveTrial, report: Report) -> None: ...

    def trial_ended(self, trial: LiveTrial, value: float | None) -> None: ...


@contextlib.contextmanager
def created(folder: Path, files: Mapping[str, str], runs: Sequence[str]) -> Iterator[None]:
    """A new series' folder with what says what it will do; gone again when it fails before its first trial."""
    beside = folder.with_name(f".{folder.name}.new")
    shutil.rmtree(beside, ignore_errors=True)
    try:
        beside.mkdir(parents=True)
        for name, content in files.items():
            write_atomic(beside / name, content.encode())
        beside.rename(folder)
    except OSError as error:
        raise RunError(f"{folder} cannot be made: {error.strerror}") from None
    try:
        yield
    except BaseException:
        if not any((folder / run / TRIALS).exists() for run in runs):
            shutil.rmtree(folder, ignore_errors=True)
        raise


def difference(old: Any, new: Any, key: str = "") -> tuple[str, Any, Any] | None:
    """The first dotted key in which two documents differ, with its two values; None where they are the same."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        parts = [(str(name), old.get(name), new.get(name)) for name in dict.fromkeys([*old, *new])]
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        parts = [(str(place), *pair) for place, pair in enumerate(zip(old, new, strict=True))]
    else:
        return None if old == new else (key, old, new)
    found = (difference(before, after, f"{key}.{name}" if key else name) for name, before, after in parts)
    return next((change for change in found if change is not None), None)


def check_same(what: str, name: str, stored: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    """A series goes on as it was begun, or not at all. Raises RunError with the key that differs."""
    change = difference(stored, wanted)
    if change is not None:
        key, old, new = change
        raise RunError(
            f"{key} = {new!r}: {what} {name!r} was begun with {old!r}; put that back to go on, or give the "
            f"changed {what} another --name"
        )


def is_searched(run: Path) -> bool:
    """Whether the search has ended and left a student."""
    return (run / BEST / METRICS).is_file() and Results(run).state == "COMPLETE"


def check_own(run: Path, experiment: Experiment) -> None:
    """Raise UserError where the begun search names code that the series itself does not, or holds a link that leads
    out of it: its folder is somebody else's."""
    path = run / EXPERIMENT
    refuse_links(run)
    content = read_yaml(path) | {"resources": {}}  # the cluster is the series'
    refuse_code(content, str(path), code_of(experiment.anchored().model_dump(mode="json")))


def _bring_here(run: Path, experiment: Experiment) -> None:
    """What a begun search notes of places is as the series has it now: its folder may have been moved, or the cluster
    may be another."""
    content, teacher = read_yaml(run / EXPERIMENT), experiment.anchored().teacher
    here = {"resources": {**(content.get("resources") or {}), "address": experiment.resources.address}}
    if teacher is not None and teacher.weights is not None:
        here["teacher"] = {**(content.get("teacher") or {}), "weights": teacher.weights}
    if content != content | here:
        with RunLock(run):
            write_atomic(run / EXPERIMENT, yaml.safe_dump(content | here, sort_keys=False).encode())


def searched(
    run: Path,
    experiment: Experiment,
    view: Callable[[Results | None], AbstractContextManager[Display]],
    *,
    tries: Sequence[Mapping[str, Scalar]] = (),
    retry_failed: bool = False,
    verbose: bool = False,
) -> Results:
    """The search in the folder `run`, begun or gone on with; `view` is given what an earlier start had found.

    With `retry_failed`, failed trials of one that goes on run again.

    Raises SearchFailed, with the run's name in front, also when the search ended without a student.
    """
    if run.exists() and not (run / TRIALS).exists():  # ended from outside before its first trial
        with RunLock(run):
            shutil.rmtree(run)
    try:
        if run.exists():
            check_own(run, experiment)
            _bring_here(run, experiment)
            with view(Results(run)) as display:
                results = resume(
                    run,
                    retry_failed=retry_failed,
                    watchers=[display],
                    announce=display.announce,
                    allow_code=True,
                    verbose=verbose,
                )
        else:
            with view(None) as display:
                results = search(
                    experiment,
                    storage=run.parent,
                    tries=tries,
                    watchers=[display],
                    announce=display.announce,
                    verbose=verbose,
                )
    except SearchFailed as error:
        raise SearchFailed(f"{run_name(run)}: {error}") from None
    if results.state == "COMPLETE" and not is_searched(run):
        raise SearchFailed(
            f"{run_name(run)} ended ({results.why}) before any trial had trained to the full budget, so it "
            "has no student to go on with: give it a larger budget"
        )
    return results
