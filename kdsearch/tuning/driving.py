"""What is left of a search, run to its end: books, trials, and what is taken home."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from kdsearch import tasks
from kdsearch.errors import SearchFailed
from kdsearch.results import Results
from kdsearch.results.storage import run_name
from kdsearch.results.tensorboard import write_experiment
from kdsearch.tuning.curves import Curves
from kdsearch.tuning.distributions import distributions
from kdsearch.tuning.fit import run_trials
from kdsearch.tuning.folder import TRIALS, known_before, no_room
from kdsearch.tuning.ledger import Ledger
from kdsearch.tuning.metrics import watching
from kdsearch.tuning.record import Record
from kdsearch.tuning.signals import clean_end
from kdsearch.tuning.winner import is_spent, keep_best, take_home

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from kdsearch.tuning.plan import Plan
    from kdsearch.tuning.trials import Watcher


def drive(plan: Plan, watchers: Sequence[Watcher], announce: Callable[[str], None], *, again: bool = False) -> Results:
    """Run what is left of a search: of a new one all, of one that goes on what the study does not hold."""
    experiment, folder, upload = plan.experiment, plan.folder, plan.upload
    task = tasks.find(experiment.task)
    name, study = experiment.name or folder.name, experiment.search.study
    record = Record(folder, name, task.mode, distributions(experiment), study, resume=again, announce=announce)
    try:
        started = record.study.user_attrs.get("started", time.time())
        record.describe(metric=task.metric, mode=task.mode, started=started, state="RUNNING", why=None)
        record.describe(resumed=time.time(), seconds_before=round(record.seconds_before, 3))
        if "reserve" in (before := known_before(folder)):
            record.describe(reserve=before["reserve"])
        write_experiment(folder, experiment.space, task.metric, [experiment.paper(), experiment.control()])
        curves = Curves(
            folder / TRIALS, task.metric, task.mode, experiment.search.trial_epochs(experiment.training.epochs)
        )
        followers: list[Watcher] = [curves, *([upload] if upload is not None else []), *watchers]
        ledger = _ledger(plan, record, followers, announce)
        if upload is not None:
            upload.when_lost(lambda why: ledger.stop(why, interrupted=True))
        with clean_end(ledger, announce), watching(experiment, task.metric, task.mode, ledger.trials) as metrics:
            followers += metrics
            if ledger.to_run:
                run_trials(plan, ledger)
        _describe_end(record, ledger)
    finally:
        record.close()
    return _ended(plan, ledger)


def _ledger(plan: Plan, record: Record, watchers: list[Watcher], announce: Callable[[str], None]) -> Ledger:
    """The books of the search, with what an earlier driver told."""
    before = known_before(plan.folder)
    ledger = Ledger(
        plan.experiment,
        tasks.find(plan.experiment.task),
        record,
        tries=before.get("tries", []),
        reserve=before.get("reserve"),
        watchers=watchers,
        announce=announce,
        slots=plan.slots,
    )
    ledger.learn(before.get("warm_start", []))
    ledger.restore()
    return ledger


def _ended(plan: Plan, ledger: Ledger) -> Results:
    """Take home what the search has found. Raises DiskFull or SearchFailed where that is how it ended."""
    folder, upload, keep = plan.folder, plan.upload, plan.experiment.search.keep
    if ledger.full_disk is not None:
        raise no_room(folder, ledger.full_disk)
    results = Results(folder)
    if upload is not None:
        upload.bring_home(results)
    keep_best(results, keep, interrupted=ledger.interrupted)
    take_home(results, tasks.find(plan.experiment.task).metric)
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
