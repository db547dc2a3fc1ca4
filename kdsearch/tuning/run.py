"""One search, from the experiment to the best student."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from kdsearch import data as data_sets
from kdsearch.errors import InvalidSetting
from kdsearch.experiment import Experiment
from kdsearch.files import write_atomic
from kdsearch.results import Results, RunLock
from kdsearch.results.copies import where_driven
from kdsearch.results.links import refuse_links
from kdsearch.results.packing import write_packing
from kdsearch.results.students import write_students
from kdsearch.students import in_setting
from kdsearch.tuning.confirm import confirm_as_asked, quietly
from kdsearch.tuning.driving import drive
from kdsearch.tuning.fit import import_tune
from kdsearch.tuning.folder import EXPERIMENT, created, naming_full_disks, new_folder, tidy
from kdsearch.tuning.journal import reopen_failed
from kdsearch.tuning.nodes import check_nodes
from kdsearch.tuning.plan import Plan
from kdsearch.tuning.pool import gpus_per_trial, pool, shares, slots
from kdsearch.tuning.record import END_NOTES, JOURNAL
from kdsearch.tuning.reserve import Epoch, cost_of_an_epoch, reserve, sharing
from kdsearch.tuning.trials import memories
from kdsearch.tuning.uploading import uploading
from kdsearch.tuning.workers import check_pool

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from kdsearch.data.base import DataSet
    from kdsearch.results.packing import PackingDocument
    from kdsearch.results.remote import Remote
    from kdsearch.results.students import StudentsDocument
    from kdsearch.settings import Scalar
    from kdsearch.tuning.confirm import View
    from kdsearch.tuning.plan import Objectives
    from kdsearch.tuning.trials import Watcher


def search(
    experiment: Experiment,
    *,
    storage: str | Path = "runs",
    tries: Sequence[Mapping[str, Scalar]] = (),
    warm_start: str | Path | None = None,
    watchers: Sequence[Watcher] = (),
    announce: Callable[[str], None] = lambda sentence: None,
    confirming: View = quietly,
    objectives: Objectives | None = None,
    verbose: bool = False,
) -> Results:
    """Search, and leave the best student in the run's `best/`.

    With `search.confirm` the search ends as early as leaves that much of its budget, and what it has found is then
    confirmed on the same pool.

    Args:
        experiment: what to search.
        storage: the folder of runs, or its URL (`s3://BUCKET/PREFIX`, see `kdsearch.results.remote`).
        tries: settings that are known to be good, tried before the sampler is asked.
        warm_start: folder of an earlier run whose trials the sampler starts from.
        watchers: told of every trial and epoch.
        announce: told in a sentence what goes on beside the trials.
        confirming: makes the display of the confirmation, where there is one.
        objectives: makes the objective of a setting; None: a Trainer on the experiment's data.
        verbose: let Ray speak.

    Raises:
        UserError: something cannot be; nothing was written.
        SearchFailed: every trial failed, or all of the first for one reason.
        DiskFull: no room was left to write; the run can be resumed.
        StorageBehind: the storage at a URL lacks what is whole on this machine.
        LeaseLost: another process took over the run at a URL.
    """
    remote, root, folder = where_driven(new_folder(experiment, storage))
    for setting in tries:
        experiment.resolve(setting)
    known = memories(Results(warm_start), experiment.anchored()) if warm_start is not None else []
    if objectives is not None and experiment.search.confirm is not None:
        why = "a confirmation trains on the experiment's data: leave it out with objectives of your own"
        raise InvalidSetting("search.confirm", str(experiment.search.confirm), why)
    with pool(experiment.resources, verbose) as wait_for_ray:
        rehearsed = _rehearsed(experiment, tries, announce) if objectives is None else _Rehearsed(experiment)
        import_tune()
        wait_for_ray()
        # Workers see a person's files from elsewhere; mistakes above were told in the paths as they were given.
        experiment = rehearsed.experiment.anchored().model_copy(update={"name": folder.name})
        tries = [in_setting(setting) for setting in tries]
        rehearsed = replace(rehearsed, experiment=experiment)
        ready = _ready(rehearsed, tries, objectives, root, remote, announce)
        before = {"tries": [dict(setting) for setting in tries], "warm_start": known, **ready.kept}
        with (
            naming_full_disks(folder),
            created(folder, ready.experiment, before),
            RunLock(folder),
            uploading(folder, remote, announce, new=True) as upload,
        ):
            if ready.packing is not None:
                write_packing(folder, ready.packing)
            if rehearsed.students is not None:
                write_students(folder, rehearsed.students)
            found = Plan(ready.experiment, folder, ready.room, ready.objectives, upload)
            results = drive(found, watchers, announce)
        # The code that the run names is what the caller gave.
        return confirm_as_asked(results, ready.experiment, confirming, allow_code=True, verbose=verbose)


@dataclass(frozen=True)
class _Rehearsed:
    """What is known of a search before the pool is there."""

    experiment: Experiment
    """Without the students that are too large or too slow."""
    data: DataSet | None = None
    """None: the objectives are the caller's."""
    students: StudentsDocument | None = None
    """What each student costs; None: one student without limits."""
    epoch: Epoch | None = None
    """What an epoch costs, where something is to be confirmed out of the budget."""


def _rehearsed(
    experiment: Experiment, tries: Sequence[Mapping[str, Scalar]], announce: Callable[[str], None]
) -> _Rehearsed:
    """Data loaded, networks built and a step trained here, while Ray starts. Raises what cannot be as a UserError."""
    from kdsearch.training.limits import within_limits
    from kdsearch.training.rehearsal import rehearse

    announce("checking data and networks")
    data = data_sets.load(experiment.data, experiment.task)
    experiment, students = within_limits(experiment, data, announce)
    for setting in tries:
        experiment.resolve(setting)
    trainer = rehearse(experiment, data)
    epoch = cost_of_an_epoch(experiment, trainer, data) if experiment.search.confirm is not None else None
    return _Rehearsed(experiment, data, students, epoch)


@dataclass(frozen=True)
class _Ready:
    """A search that can begin on the pool that is there."""

    experiment: Experiment
    """With the share of a GPU that each trial takes."""
    room: int
    """How many trials run at a time."""
    objectives: Objectives
    kept: Mapping[str, Mapping[str, float]]
    """What is noted of the part of the budget that is kept for a confirmation."""
    packing: PackingDocument | None = None
    """How many trials share a GPU; None: that was not asked for."""


def _ready(
    rehearsed: _Rehearsed,
    tries: Sequence[Mapping[str, Scalar]],
    objectives: Objectives | None,
    root: Path,
    remote: Remote | None,
    announce: Callable[[str], None],
) -> _Ready:
    """What was rehearsed, fitted to the pool: nodes asked, teacher trained, GPUs shared. Raises UserError."""
    asked, epoch = rehearsed.experiment.resources, rehearsed.epoch
    experiment, room = _sized(rehearsed.experiment, gpus_per_trial(asked))
    if experiment.search.confirm is not None:
        check_pool(remote)
    check_nodes(experiment, None if remote else root, rehearsed.data)
    kept = _kept(experiment, tries, epoch, room)
    if objectives is None:
        from kdsearch.tuning.prepare import prepare

        assert rehearsed.data is not None
        objectives = prepare(experiment, rehearsed.data, root, announce, remote)
    if not shares(asked):
        return _Ready(experiment, room, objectives, kept)
    from kdsearch.tuning.packing import find_packing

    packing = find_packing(asked, objectives, tries, root, announce)
    experiment, room = _sized(experiment, packing["gpus_per_trial"])
    kept = _kept(experiment, tries, None if epoch is None else sharing(epoch, packing), room)
    return _Ready(experiment, room, objectives, kept, packing)


def resume(
    folder: str | Path,
    *,
    more_trials: int = 0,
    retry_failed: bool = False,
    address: str | None = None,
    watchers: Sequence[Watcher] = (),
    announce: Callable[[str], None] = lambda sentence: None,
    confirming: View = quietly,
    objectives: Objectives | None = None,
    allow_code: bool = False,
    verbose: bool = False,
) -> Results:
    """Go on with the search in `folder`, from that folder alone, with the settings it was started with.

    Ended trials are told to sampler and scheduler and left alone, unfinished ones go on from their checkpoints under
    their own numbers, new ones follow; `more_trials` are added to those it was started with. With `retry_failed`
    trials that failed run again under their numbers, from their checkpoint where there is one; but for those that
    diverged, whose setting is to blame. Where the search was to be confirmed, that follows, or goes on. With `address`
    it goes on there, and is found there from now on. Code that the run names, and links that lead out of it, are
    refused unless `allow_code`. Raises RunError when another process drives the run, and what `search` raises.
    """
    folder = Path(folder).resolve()
    if not allow_code:
        refuse_links(folder)
    moved = {} if address is None else {"resources.address": address}
    experiment = Experiment.load(str(folder / EXPERIMENT), moved, allow_code=allow_code)
    if _is_to_confirm(folder, experiment) and not (more_trials or retry_failed or moved):
        return confirm_as_asked(Results(folder), experiment, confirming, allow_code=allow_code, verbose=verbose)
    remote, root, folder = where_driven(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as held:
        with RunLock(folder), naming_full_disks(folder), uploading(folder, remote, announce) as upload:
            wait_for_ray = held.enter_context(pool(experiment.resources, verbose))
            if upload is not None:  # what was read above may be older
                experiment = Experiment.load(str(folder / EXPERIMENT), moved, allow_code=allow_code)
            tidy(folder)
            data = data_sets.load(experiment.data, experiment.task) if objectives is None else None
            import_tune()
            wait_for_ray()
            _, room = _sized(experiment, experiment.resources.gpus)
            check_nodes(experiment, None if remote else root, data)
            if experiment.search.confirm is not None:
                check_pool(remote)
            if more_trials or moved:
                experiment = experiment.with_trials(experiment.search.trials + more_trials)
                write_atomic(folder / EXPERIMENT, experiment.to_yaml().encode())
            if data is not None:
                from kdsearch.tuning.prepare import prepare

                objectives = prepare(experiment, data, root, announce, remote)
            if retry_failed:
                reopen_failed(folder / JOURNAL, END_NOTES)
            assert objectives is not None
            results = drive(Plan(experiment, folder, room, objectives, upload), watchers, announce, again=True)
        return confirm_as_asked(results, experiment, confirming, allow_code=allow_code, verbose=verbose)


def _is_to_confirm(folder: Path, experiment: Experiment) -> bool:
    """Whether the search has ended as it was to, and only its confirmation follows."""
    return experiment.search.confirm is not None and Results(folder).state == "COMPLETE"


def _kept(
    experiment: Experiment, tries: Sequence[Mapping[str, Scalar]], epoch: Epoch | None, room: int
) -> dict[str, dict[str, float]]:
    """What is noted of the part of the budget that is kept for a confirmation. Raises InvalidSetting."""
    if epoch is None:
        return {}
    found = reserve(experiment, tries, epoch, slots=room, gpus=experiment.resources.gpus)
    found.check(experiment.search)
    return {"reserve": found.of(experiment.search)}


def _sized(experiment: Experiment, gpus: float) -> tuple[Experiment, int]:
    """The experiment with this share of a GPU for each trial, and how many run at a time. Raises InvalidSetting."""
    resources = experiment.resources
    room = slots(resources.cpus_per_trial, gpus, resources.max_concurrent, resources.max_gpus)
    resolved = resources.model_copy(update={"gpus_per_trial": gpus})
    return experiment.model_copy(update={"resources": resolved}), room
