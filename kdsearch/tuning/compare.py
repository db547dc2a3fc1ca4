"""A comparison of methods: search after search with equal budgets, each confirmed on the same fresh seeds."""

from __future__ import annotations

import contextlib
import math
from typing import TYPE_CHECKING, Any

from kdsearch import data as data_sets
from kdsearch import tasks
from kdsearch.comparison import Comparison, Entry
from kdsearch.errors import InvalidSetting, RunError, SearchFailed
from kdsearch.files import read_yaml, write_atomic
from kdsearch.results import Results, RunLock
from kdsearch.results.compare import CONFIRMED, DOCUMENT, read_comparison, write_comparison
from kdsearch.results.confirmation import plan
from kdsearch.results.documents import read_json, to_json
from kdsearch.results.figures import name_of
from kdsearch.results.storage import COMPARISON, is_comparison, storage_folder
from kdsearch.tuning.confirm import Quiet as QuietConfirmation
from kdsearch.tuning.confirm import confirm
from kdsearch.tuning.pool import pool
from kdsearch.tuning.series import Quiet, check_own, check_same, created, is_searched, searched

if TYPE_CHECKING:
    import os
    from collections.abc import Callable
    from contextlib import AbstractContextManager
    from pathlib import Path

    from kdsearch.data.base import DataSet
    from kdsearch.results.compare import Document
    from kdsearch.tuning.confirm import Watcher
    from kdsearch.tuning.series import Display

    View = Callable[[Entry, Results | None], AbstractContextManager[Display]]
    ConfirmationView = Callable[[Entry], AbstractContextManager[Watcher]]

FULL_TRAININGS = 2
"""That a budget must pay for at least: the paper's setting and the control run to the end."""


def quietly(entry: Entry, earlier: Results | None) -> AbstractContextManager[Display]:
    """The view of a search that shows nothing."""
    return contextlib.nullcontext(Quiet())


def confirming_quietly(entry: Entry) -> AbstractContextManager[Watcher]:
    """The view of a confirmation that shows nothing."""
    return contextlib.nullcontext(QuietConfirmation())


def comparison_folder(comparison: Comparison, storage: str | os.PathLike[str]) -> Path:
    """Where the comparison lies, or will."""
    return storage_folder(str(storage)).resolve() / comparison.name


def run_comparison(
    comparison: Comparison,
    *,
    storage: str | os.PathLike[str] = "runs",
    view: View = quietly,
    confirming: ConfirmationView = confirming_quietly,
    announce: Callable[[str], None] = lambda sentence: None,
    verbose: bool = False,
) -> Document:
    """Search each entry, then train its best settings on fresh seeds; or go on where an earlier start ended.

    What has ended is left alone. An entry that fails is noted, and the others follow; given again, it is tried again.
    With more seeds those are added to what was done with fewer. Ended by Ctrl-C in a search, it returns what there is;
    its `state` is then INTERRUPTED.

    Args:
        comparison: what to compare.
        storage: the folder of runs; the comparison's own folder in it has its name.
        view: makes the display of one search.
        confirming: makes the display of one confirmation.
        announce: told in a sentence what goes on between.
        verbose: let Ray speak.

    Returns:
        the document, see `kdsearch.results.compare.read_comparison`.

    Raises:
        UserError: something cannot be; of a new comparison nothing was written.
        RunError: the folder holds a comparison that was started otherwise, or another process drives it.
        DiskFull: no room was left to write.
    """
    folder = comparison_folder(comparison, storage)
    _check_same(folder, comparison)
    begun = is_comparison(folder)
    with contextlib.ExitStack() as stack:
        if begun:
            stack.enter_context(RunLock(folder))
        to_do = [entry for entry in comparison.entries if not (begun and _is_done(folder, entry, comparison.seeds))]
        wait_for_ray = None
        if to_do:
            wait_for_ray = stack.enter_context(pool(comparison.entries[0].experiment.resources, verbose))
        costs = read_json(folder / DOCUMENT)["costs"] if begun else rehearsed(comparison, announce)
        if wait_for_ray is not None:
            wait_for_ray()
        equal = comparison.equalised(costs)
        planned = _plan(equal, costs)
        if not begun:
            files = {COMPARISON: comparison.to_yaml(), DOCUMENT: to_json(planned)}
            stack.enter_context(created(folder, files, [entry.run for entry in equal.entries]))
            stack.enter_context(RunLock(folder))
        else:
            write_atomic(folder / COMPARISON, comparison.to_yaml().encode())  # with more seeds it is another
        runs = [entry.run for entry in to_do]
        rest = [entry for entry in equal.entries if entry.run in runs]
        document = write_comparison(folder, planned)
        for entry in rest:
            try:
                if not _searched_and_confirmed(folder, entry, equal, view, confirming, verbose):
                    break
            except SearchFailed as error:
                planned["failures"][entry.run] = str(error).splitlines()[0]
                announce(planned["failures"][entry.run])
            document = write_comparison(folder, planned)
    return write_comparison(folder, document)  # the lock is off: as the comparison stands, whoever reads the files


def resume_comparison(
    folder: Path,
    *,
    view: View = quietly,
    confirming: ConfirmationView = confirming_quietly,
    announce: Callable[[str], None] = lambda sentence: None,
    allow_code: bool = False,
    verbose: bool = False,
) -> Document:
    """Go on with the comparison in `folder`, from that folder alone. Code that it names is refused unless allowed."""
    folder = folder.resolve()
    comparison = Comparison.load(folder / COMPARISON, folder.name, allow_code=allow_code)
    return run_comparison(
        comparison, storage=folder.parent, view=view, confirming=confirming, announce=announce, verbose=verbose
    )


def rehearsed(comparison: Comparison, announce: Callable[[str], None] = lambda sentence: None) -> dict[str, float]:
    """What an epoch of each entry costs, where one of the reference costs 1; in seconds it is measured.

    Builds every entry's networks and losses on its data. Raises UserError for what does not fit, and for a budget that
    does not pay for the paper's setting and the control.
    """
    from kdsearch.training.rehearsal import rehearse

    announce("checking data and networks of all methods")
    first = comparison.entries[0].labels
    entries = [entry for entry in comparison.entries if entry.labels == first]
    data = data_sets.load(entries[0].experiment.data, entries[0].experiment.task)
    trainers = {entry.name: rehearse(entry.experiment, data) for entry in entries}
    reference = next(entry for entry in entries if entry.name == comparison.reference)
    if comparison.unit == "images":
        costs = comparison.image_costs()
        batches = trainers[reference.name].batches
        epoch = batches.steps * batches.batch_size * reference.experiment.method_class.forwards
    else:
        announce("measuring what an epoch costs")
        _seconds(entries[0], data)  # the first to be measured pays for what a process does once
        seconds = {entry.name: _seconds(entry, data) for entry in entries}
        epoch = seconds[reference.name]
        costs = {name: each / epoch for name, each in seconds.items()}
    _check_budget(comparison, epoch * reference.experiment.search.trial_epochs(reference.experiment.training.epochs))
    return costs


def _seconds(entry: Entry, data: DataSet) -> float:
    """What an epoch takes on this machine."""
    from kdsearch.training.rehearsal import measure
    from kdsearch.training.teacher import load_teacher

    experiment = entry.experiment
    teacher = load_teacher(experiment, data) if experiment.method_class.needs_teacher else None
    return measure(experiment, data, teacher).seconds_per_epoch


def _check_budget(comparison: Comparison, training: float) -> None:
    """`training`: what one full training costs."""
    least = FULL_TRAININGS * training
    if comparison.amount < least:
        unit = "img" if comparison.unit == "images" else "s"
        why = (
            f"pays for fewer than {FULL_TRAININGS} trainings, which the paper's setting and the control of each search "
            f"take: give at least {math.ceil(least)}{unit}, or fewer epochs"
        )
        raise InvalidSetting("--budget", f"{comparison.amount:.0f}{unit}", why)


def _check_same(folder: Path, comparison: Comparison) -> None:
    if not is_comparison(folder):
        if folder.exists():
            raise RunError(f"{folder.name!r} exists in {folder.parent} and is no comparison: choose another --name")
        return
    stored = read_yaml(folder / COMPARISON)  # as text: code that it names and the command line does not is never run
    seeds = stored.pop("seeds", 0)
    check_same("comparison", folder.name, stored, comparison.document())
    if comparison.seeds < seeds:
        raise RunError(f"--seeds = {comparison.seeds}: comparison {folder.name!r} has {seeds} by now; give no fewer")


def _is_done(folder: Path, entry: Entry, seeds: int) -> bool:
    document = read_comparison(folder)
    return document["seeds"] >= seeds and any(
        row["run"] == entry.run and row["state"] == CONFIRMED for row in document["rows"]
    )


def _searched_and_confirmed(
    folder: Path, entry: Entry, comparison: Comparison, view: View, confirming: ConfirmationView, verbose: bool
) -> bool:
    """Search an entry and confirm it; False where a person ended the search. Raises SearchFailed."""
    run = folder / entry.run
    if not is_searched(run):
        results = searched(
            run, entry.experiment, lambda earlier: view(entry, earlier), retry_failed=True, verbose=verbose
        )
        if results.state == "INTERRUPTED":
            return False
    try:
        plan(Results(run), comparison.top, comparison.seeds)
    except RunError as error:
        raise SearchFailed(f"{error}: give a larger budget") from None
    check_own(run, entry.experiment)
    with confirming(entry) as watcher:
        confirm(run, top=comparison.top, seeds=comparison.seeds, watcher=watcher, allow_code=True, verbose=verbose)
    return True


def _plan(comparison: Comparison, costs: dict[str, float]) -> dict[str, Any]:
    """The comparison's document before anything was done."""
    experiment = comparison.entries[0].experiment
    task = tasks.find(experiment.task)
    return {
        "comparison": comparison.name,
        "task": task.name,
        "metric": task.metric,
        "mode": task.mode,
        "seed": experiment.seed,
        "data": name_of(experiment.data.name),
        "student": name_of(experiment.student.name),
        "reference": comparison.reference,
        "budget": {"unit": comparison.unit, "amount": comparison.amount},
        "seeds": comparison.seeds,
        "top": comparison.top,
        "costs": costs,
        "failures": {},
        "rows": [_planned(entry) for entry in comparison.entries],
    }


def _planned(entry: Entry) -> dict[str, Any]:
    fraction, noise = entry.labels
    return {
        "run": entry.run,
        "name": entry.name,
        "method": entry.experiment.method,
        "label_fraction": fraction,
        "label_noise": noise,
        "epochs": entry.experiment.training.epochs,
    }
