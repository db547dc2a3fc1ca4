"""The trials of a search handed to Ray Tune, which is told nothing else: what they are is in the ledger."""

from __future__ import annotations

import tempfile
import uuid
from typing import TYPE_CHECKING

from kdsearch.tuning.folder import TRIALS
from kdsearch.tuning.place import Shared
from kdsearch.tuning.pool import NO_CAP
from kdsearch.tuning.pruner import decisions
from kdsearch.tuning.room import Room
from kdsearch.tuning.shares import Membership

if TYPE_CHECKING:
    from kdsearch.tuning.ledger import Ledger
    from kdsearch.tuning.plan import Plan
    from kdsearch.tuning.trainable import TrialContext


def import_tune() -> None:
    """Import what `run_trials` needs, while Ray is starting: it takes seconds."""
    from kdsearch.tuning import bridge, trainable  # noqa: F401


def run_trials(plan: Plan, ledger: Ledger) -> None:
    """Let Ray Tune run the ledger's trials."""
    from ray import tune

    from kdsearch.tuning.bridge import HandedOut, LedgerScheduler, LedgerSearcher, Silent
    from kdsearch.tuning.trainable import TrialActor

    resources = plan.experiment.resources
    cpus = resources.cpus_per_trial
    trainable = tune.with_resources(
        tune.with_parameters(TrialActor, context=_context(plan)),
        # It travels to the trials' processes, so it names nothing of this module: they would import all that it does.
        lambda config: tune.PlacementGroupFactory(
            [{"CPU": cpus} | ({"GPU": gpus} if (gpus := config["gpus"]) else {})]
        ),
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


def _context(plan: Plan) -> TrialContext:
    """What every process of a trial is told."""
    from kdsearch.tuning.trainable import TrialContext

    experiment, folder, upload = plan.experiment, plan.folder, plan.upload
    return TrialContext(
        objective=plan.objectives,
        place=upload.place() if upload is not None else Shared(str((folder / TRIALS).resolve())),
        epochs=experiment.search.trial_epochs(experiment.training.epochs),
        checkpoint_every=experiment.training.checkpoint_every,
        checkpoint_seconds=experiment.training.checkpoint_seconds,
        decisions=decisions(experiment.search, experiment.training.epochs),
        run=folder.name if experiment.resources.address is not None else None,
    )


def _told_by(error: BaseException) -> BaseException:
    """What went wrong in the driver's own part: Ray raises errors of its own that hold its text."""
    while type(error).__name__ == "TuneError" and (error.__cause__ or error.__context__):
        error = error.__cause__ or error.__context__ or error
    return error
