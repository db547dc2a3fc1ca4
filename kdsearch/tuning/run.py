"""One search, from the experiment to the best student."""

from __future__ import annotations

import functools
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from kdsearch import data as data_sets
from kdsearch import tasks
from kdsearch.errors import SearchFailed
from kdsearch.experiment import Experiment
from kdsearch.files import write_atomic
from kdsearch.results import Results, RunLock
from kdsearch.results.storage import run_name, storage_folder
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
from kdsearch.tuning.pool import gpus_per_trial, pool, slots
from kdsearch.tuning.record import END_NOTES, JOURNAL, Record
from kdsearch.tuning.signals import clean_end
from kdsearch.tuning.trials import memories
from kdsearch.tuning.winner import keep_best, take_home

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from kdsearch.objective import Objective
    from kdsearch.settings import Scalar
    from kdsearch.tuning.trials import Watcher

    Objectives = Callable[[Mapping[str, Scalar]], Objective]


@dataclass(frozen=True)
class Plan:
    """What is known before the first trial."""

    experiment: Experiment
    folder: Path
    slots: int
    objectives: Objectives


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
        storage: the folder of runs.
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
    """
    folder = new_folder(experiment, storage)
    for setting in tries:
        experiment.resolve(setting)
    known = memories(Results(warm_start)) if warm_start is not None else []
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
        room = slots(resources.cpus_per_trial, gpus, resources.max_concurrent)
        resolved = resources.model_copy(update={"gpus_per_trial": gpus})
        # Workers see a person's files from elsewhere; mistakes above were told in the paths as they were given.
        experiment = experiment.anchored().model_copy(update={"resources": resolved, "name": folder.name})
        if objectives is None:
            from kdsearch.tuning.prepare import prepare

            assert data is not None
            objectives = prepare(experiment, data, storage_folder(storage), announce)
        plan = Plan(experiment, folder, room, objectives)
        before = {"tries": [dict(setting) for setting in tries], "warm_start": known}
        with naming_full_disks(folder), created(folder, experiment, before), RunLock(folder):
            return _run(plan, watchers, announce)


def resume(
    folder: str | Path,
    *,
    more_trials: int = 0,
    retry_failed: bool = False,
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
    diverged, whose setting is to blame. Code that the run names is refused unless `allow_code`. Raises RunError when
    another process drives the run, and what `search` raises.
    """
    folder = Path(folder).resolve()
    experiment = Experiment.load(str(folder / EXPERIMENT), allow_code=allow_code)
    with RunLock(folder), naming_full_disks(folder), pool(experiment.resources, verbose) as wait_for_ray:
        tidy(folder)
        data = data_sets.load(experiment.data, experiment.task) if objectives is None else None
        wait_for_ray()
        resources = experiment.resources
        room = slots(resources.cpus_per_trial, resources.gpus_per_trial or 0, resources.max_concurrent)
        if more_trials:
            experiment = experiment.with_trials(experiment.search.trials + more_trials)
            write_atomic(folder / EXPERIMENT, experiment.to_yaml().encode())
        if data is not None:
            from kdsearch.tuning.prepare import prepare

            objectives = prepare(experiment, data, folder.parent, announce)
        if retry_failed:
            reopen_failed(folder / JOURNAL, END_NOTES)
        assert objectives is not None
        return _run(Plan(experiment, folder, room, objectives), watchers, announce, again=True)


def _run(plan: Plan, watchers: Sequence[Watcher], announce: Callable[[str], None], *, again: bool = False) -> Results:
    """Run what is left of a search: of a new one all, of one that goes on what the study does not hold."""
    experiment, folder = plan.experiment, plan.folder
    task = tasks.find(experiment.task)
    name, before = experiment.name or folder.name, known_before(folder)
    record = Record(folder, name, task.mode, distributions(experiment), experiment.search.study, resume=again)
    try:
        started = record.study.user_attrs.get("started", time.time())
        record.describe(metric=task.metric, mode=task.mode, started=started, state="RUNNING", why=None)
        write_experiment(folder, experiment.space, task.metric, [experiment.paper(), experiment.control()])
        curves = Curves(folder / TRIALS, task.metric, task.mode, experiment.training.epochs)
        ledger = Ledger(
            experiment,
            task,
            record,
            tries=before.get("tries", []),
            watchers=[curves, *watchers],
            announce=announce,
            slots=plan.slots,
        )
        ledger.learn(before.get("warm_start", []))
        ledger.restore()
        with clean_end(ledger, announce):
            if ledger.to_run:
                _fit(plan, ledger)
        _describe_end(record, ledger)
    finally:
        record.close()
    if ledger.full_disk is not None:
        raise no_room(folder, ledger.full_disk)
    results = Results(folder)
    keep_best(results, experiment.search.keep, interrupted=ledger.interrupted)
    take_home(results, task.metric)
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

    from kdsearch.tuning.bridge import LedgerScheduler, LedgerSearcher, Silent
    from kdsearch.tuning.trainable import TrialActor, TrialContext

    experiment, resources = plan.experiment, plan.experiment.resources
    context = TrialContext(
        objective=plan.objectives,
        folder=str((plan.folder / TRIALS).resolve()),
        epochs=experiment.training.epochs,
        checkpoint_every=experiment.training.checkpoint_every,
    )
    cpus = resources.cpus_per_trial
    trainable = tune.with_resources(
        tune.with_parameters(TrialActor, context=context),
        lambda config: tune.PlacementGroupFactory([_bundle(cpus, config["gpus"])]),
    )
    room = functools.lru_cache(lambda gpus: slots(cpus, gpus, plan.slots))
    raised: dict[str, str] = {}
    # Tune's own snapshots are not what a run is resumed from; they go where nobody looks.
    with tempfile.TemporaryDirectory(prefix="kdsearch-") as scratch:
        tuner = tune.Tuner(
            trainable,
            tune_config=tune.TuneConfig(
                search_alg=LedgerSearcher(ledger, room, raised),
                scheduler=LedgerScheduler(ledger, raised),
                num_samples=-1,  # the ledger says when there are no more
                max_concurrent_trials=plan.slots,
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
