"""One search, from the experiment to the best student."""

from __future__ import annotations

import tempfile
import time
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from kdsearch import data as data_sets
from kdsearch import tasks
from kdsearch.errors import SearchFailed
from kdsearch.experiment import Experiment
from kdsearch.files import write_atomic
from kdsearch.results import Results, RunLock
from kdsearch.results.copies import home_of
from kdsearch.results.links import refuse_links
from kdsearch.results.packing import write_packing
from kdsearch.results.storage import run_name
from kdsearch.results.tensorboard import write_experiment
from kdsearch.tuning.curves import Curves
from kdsearch.tuning.distributions import distributions
from kdsearch.tuning.folder import (
    EXPERIMENT,
    TRIALS,
    created,
    known_before,
    naming_full_disks,
    new_folder,
    no_room,
    tidy,
)
from kdsearch.tuning.journal import reopen_failed
from kdsearch.tuning.ledger import Ledger
from kdsearch.tuning.metrics import watching
from kdsearch.tuning.nodes import check_nodes
from kdsearch.tuning.place import Shared
from kdsearch.tuning.pool import NO_CAP, gpus_per_trial, pool, shares, slots
from kdsearch.tuning.record import END_NOTES, JOURNAL, Record
from kdsearch.tuning.room import Room
from kdsearch.tuning.shares import Membership
from kdsearch.tuning.signals import clean_end
from kdsearch.tuning.trials import memories
from kdsearch.tuning.uploading import uploading
from kdsearch.tuning.winner import is_spent, keep_best, take_home

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from kdsearch.objective import Objective
    from kdsearch.settings import Scalar
    from kdsearch.tuning.trials import Watcher
    from kdsearch.tuning.upload import Upload

    Objectives = Callable[[Mapping[str, Scalar]], Objective]


@dataclass(frozen=True)
class Plan:
    """What is known before the first trial."""

    experiment: Experiment
    folder: Path
    slots: int
    objectives: Objectives
    upload: Upload | None = None
    """Sends the run to its storage at a URL."""


def search(
    experiment: Experiment,
    *,
    storage: str | Path = "runs",
    tries: Sequence[Mapping[str, Scalar]] = (),
    warm_start: str | Path | None = None,
    watchers: Sequence[Watcher] = (),
    announce: Callable[[str], None] = lambda sentence: None,
    objectives: Objectives | None = None,
    verbose: bool = False,
) -> Results:
    """Search, and leave the best student in the run's `best/`.

    Args:
        experiment: what to search.
        storage: the folder of runs, or its URL (`s3://BUCKET/PREFIX`, see `kdsearch.results.remote`).
        tries: settings that are known to be good, tried before the sampler is asked.
        warm_start: folder of an earlier run whose trials the sampler starts from.
        watchers: told of every trial and epoch.
        announce: told in a sentence what goes on beside the trials.
        objectives: makes the objective of a setting; None: a Trainer on the experiment's data.
        verbose: let Ray speak.

    Raises:
        UserError: something cannot be; nothing was written.
        SearchFailed: every trial failed, or all of the first for one reason.
        DiskFull: no room was left to write; the run can be resumed.
        StorageBehind: the storage at a URL lacks what is whole on this machine.
        LeaseLost: another process took over the run at a URL.
    """
    folder = new_folder(experiment, storage)
    home = home_of(folder)
    remote, root = (home.remote, home.folder) if home is not None else (None, folder.parent)
    for setting in tries:
        experiment.resolve(setting)
    known = memories(Results(warm_start), experiment) if warm_start is not None else []
    with pool(experiment.resources, verbose) as wait_for_ray:
        data = None
        if objectives is None:
            from kdsearch.training.rehearsal import rehearse

            announce("checking data and networks")
            data = data_sets.load(experiment.data, experiment.task)
            rehearse(experiment, data)
        wait_for_ray()
        resources = experiment.resources
        gpus = gpus_per_trial(resources)
        room = slots(resources.cpus_per_trial, gpus, resources.max_concurrent, resources.max_gpus)
        resolved = resources.model_copy(update={"gpus_per_trial": gpus})
        # Workers see a person's files from elsewhere; mistakes above were told in the paths as they were given.
        experiment = experiment.anchored().model_copy(update={"resources": resolved, "name": folder.name})
        check_nodes(experiment, None if remote else root, data)
        if objectives is None:
            from kdsearch.tuning.prepare import prepare

            assert data is not None
            objectives = prepare(experiment, data, root, announce, remote)
        packing = None
        if shares(resources):
            from kdsearch.tuning.packing import find_packing

            packing = find_packing(resources, objectives, tries, root, announce)
            gpus = packing["gpus_per_trial"]
            room = slots(resources.cpus_per_trial, gpus, resources.max_concurrent, resources.max_gpus)
            resolved = resources.model_copy(update={"gpus_per_trial": gpus})
            experiment = experiment.model_copy(update={"resources": resolved})
        before = {"tries": [dict(setting) for setting in tries], "warm_start": known}
        with (
            naming_full_disks(folder),
            created(folder, experiment, before),
            RunLock(folder),
            uploading(folder, remote, announce, new=True) as upload,
        ):
            if packing is not None:
                write_packing(folder, packing)
            return _run(Plan(experiment, folder, room, objectives, upload), watchers, announce)


def resume(
    folder: str | Path,
    *,
    more_trials: int = 0,
    retry_failed: bool = False,
    address: str | None = None,
    watchers: Sequence[Watcher] = (),
    announce: Callable[[str], None] = lambda sentence: None,
    objectives: Objectives | None = None,
    allow_code: bool = False,
    verbose: bool = False,
) -> Results:
    """Go on with the search in `folder`, from that folder alone, with the settings it was started with.

    Ended trials are told to sampler and scheduler and left alone, unfinished ones go on from their checkpoints under
    their own numbers, new ones follow; `more_trials` are added to those it was started with. With `retry_failed`
    trials that failed run again under their numbers, from their checkpoint where there is one; but for those that
    diverged, whose setting is to blame. With `address` it goes on there, and is found there from now on. Code that the
    run names, and links that lead out of it, are refused unless `allow_code`. Raises RunError when another process
    drives the run, and what `search` raises.
    """
    folder = Path(folder).resolve()
    if not allow_code:
        refuse_links(folder)
    moved = {} if address is None else {"resources.address": address}
    experiment = Experiment.load(str(folder / EXPERIMENT), moved, allow_code=allow_code)
    home = home_of(folder)
    remote, root = (home.remote, home.folder) if home is not None else (None, folder.parent)
    if home is not None:
        folder = home.driven(folder.name)
        folder.mkdir(parents=True, exist_ok=True)
    with (
        RunLock(folder),
        naming_full_disks(folder),
        uploading(folder, remote, announce) as upload,
        pool(experiment.resources, verbose) as wait_for_ray,
    ):
        if upload is not None:  # what was read above may be older
            experiment = Experiment.load(str(folder / EXPERIMENT), moved, allow_code=allow_code)
        tidy(folder)
        data = data_sets.load(experiment.data, experiment.task) if objectives is None else None
        wait_for_ray()
        resources = experiment.resources
        gpus = resources.gpus
        room = slots(resources.cpus_per_trial, gpus, resources.max_concurrent, resources.max_gpus)
        check_nodes(experiment, None if remote else root, data)
        if more_trials or moved:
            experiment = experiment.with_trials(experiment.search.trials + more_trials)
            write_atomic(folder / EXPERIMENT, experiment.to_yaml().encode())
        if data is not None:
            from kdsearch.tuning.prepare import prepare

            objectives = prepare(experiment, data, root, announce, remote)
        if retry_failed:
            reopen_failed(folder / JOURNAL, END_NOTES)
        assert objectives is not None
        return _run(Plan(experiment, folder, room, objectives, upload), watchers, announce, again=True)


def _run(plan: Plan, watchers: Sequence[Watcher], announce: Callable[[str], None], *, again: bool = False) -> Results:
    """Run what is left of a search: of a new one all, of one that goes on what the study does not hold."""
    experiment, folder, upload = plan.experiment, plan.folder, plan.upload
    task = tasks.find(experiment.task)
    name, before = experiment.name or folder.name, known_before(folder)
    study = experiment.search.study
    record = Record(folder, name, task.mode, distributions(experiment), study, resume=again, announce=announce)
    try:
        started = record.study.user_attrs.get("started", time.time())
        record.describe(metric=task.metric, mode=task.mode, started=started, state="RUNNING", why=None)
        record.describe(resumed=time.time(), seconds_before=round(record.seconds_before, 3))
        write_experiment(folder, experiment.space, task.metric, [experiment.paper(), experiment.control()])
        curves = Curves(folder / TRIALS, task.metric, task.mode, experiment.training.epochs)
        followers: list[Watcher] = [curves, *([upload] if upload is not None else []), *watchers]
        ledger = Ledger(
            experiment,
            task,
            record,
            tries=before.get("tries", []),
            watchers=followers,
            announce=announce,
            slots=plan.slots,
        )
        ledger.learn(before.get("warm_start", []))
        ledger.restore()
        if upload is not None:
            upload.when_lost(lambda why: ledger.stop(why, interrupted=True))
        with clean_end(ledger, announce), watching(experiment, task.metric, task.mode, ledger.trials) as metrics:
            followers += metrics
            if ledger.to_run:
                _fit(plan, ledger)
        _describe_end(record, ledger)
    finally:
        record.close()
    if ledger.full_disk is not None:
        raise no_room(folder, ledger.full_disk)
    results = Results(folder)
    keep = experiment.search.keep
    if upload is not None:
        upload.bring_home(results)
    keep_best(results, keep, interrupted=ledger.interrupted)
    take_home(results, task.metric)
    if upload is not None:
        upload.flush()
        upload.discard(is_spent(results, keep, interrupted=ledger.interrupted))
    if ledger.hopeless:
        mendable = any(trial.failures.reasons or trial.failures.losses for trial in ledger.trials)
        hint = f"\nmend it, then  kdsearch resume {run_name(folder)} --retry-failed" if mendable else ""
        raise SearchFailed(f"{ledger.stopping}{hint}")
    if not ledger.interrupted and all(trial.state == "FAILED" for trial in ledger.trials):
        raise SearchFailed(_reasons(ledger))
    return results


def _fit(plan: Plan, ledger: Ledger) -> None:
    """Let Ray Tune run the ledger's trials."""
    # Imported here, not above: it takes seconds, in which Ray is starting.
    from ray import tune

    from kdsearch.tuning.bridge import HandedOut, LedgerScheduler, LedgerSearcher, Silent
    from kdsearch.tuning.trainable import TrialActor, TrialContext

    experiment, resources = plan.experiment, plan.experiment.resources
    context = TrialContext(
        objective=plan.objectives,
        place=plan.upload.place() if plan.upload is not None else Shared(str((plan.folder / TRIALS).resolve())),
        epochs=experiment.training.epochs,
        checkpoint_every=experiment.training.checkpoint_every,
        run=plan.folder.name if resources.address is not None else None,
    )
    cpus = resources.cpus_per_trial
    trainable = tune.with_resources(
        tune.with_parameters(TrialActor, context=context),
        lambda config: tune.PlacementGroupFactory([_bundle(cpus, config["gpus"])]),
    )
    # A Ray of the search's own is shared with nobody.
    membership = Membership(f"{plan.folder.name}-{uuid.uuid4().hex}") if resources.address is not None else None
    out = HandedOut(ledger, Room(resources, membership))
    if plan.upload is not None:
        out.behind = plan.upload.behind
    # Tune's own snapshots are not what a run is resumed from; they go where nobody looks.
    with tempfile.TemporaryDirectory(prefix="kdsearch-") as scratch:
        tuner = tune.Tuner(
            trainable,
            tune_config=tune.TuneConfig(
                search_alg=LedgerSearcher(out),
                scheduler=LedgerScheduler(out),
                num_samples=-1,  # the ledger says when there are no more
                max_concurrent_trials=NO_CAP,  # the room says how many fit
                reuse_actors=True,
                trial_dirname_creator=lambda trial: f"{trial.config['number']:04d}",
            ),
            run_config=tune.RunConfig(
                name="tune",
                storage_path=scratch,
                verbose=0,
                progress_reporter=Silent(),
                failure_config=tune.FailureConfig(max_failures=0),  # the ledger runs a trial again, not Ray
            ),
        )
        try:
            tuner.fit()
        except tune.TuneError as error:
            raise _told_by(error) from error
        finally:
            if membership is not None:
                membership.leave()


def _told_by(error: BaseException) -> BaseException:
    """What went wrong in the driver's own part: Ray raises errors of its own that hold its text."""
    while type(error).__name__ == "TuneError" and (error.__cause__ or error.__context__):
        error = error.__cause__ or error.__context__ or error
    return error


def _bundle(cpus: float, gpus: float) -> dict[str, float]:
    return {"CPU": cpus, "GPU": gpus} if gpus else {"CPU": cpus}


def _describe_end(record: Record, ledger: Ledger) -> None:
    failed = ledger.hopeless or (bool(ledger.trials) and all(trial.state == "FAILED" for trial in ledger.trials))
    state = "INTERRUPTED" if ledger.interrupted else "FAILED" if failed else "COMPLETE"
    why = ledger.stopping or f"all {len(ledger.trials)} trials are done"
    record.describe(state=state, why=why, ended=time.time(), gpu_hours=round(ledger.gpu_hours, 4))


def _reasons(ledger: Ledger) -> str:
    counts: dict[str, int] = {}
    for trial in ledger.trials:
        counts[trial.error or "unknown"] = counts.get(trial.error or "unknown", 0) + 1
    lines = [f"  {count} × {reason}" for reason, count in sorted(counts.items(), key=lambda pair: -pair[1])]
    return "\n".join([f"all {len(ledger.trials)} trials failed:", *lines])
