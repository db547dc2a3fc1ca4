"""One training and one reading of a confirmation, as they run on the pool."""

from __future__ import annotations

import shutil
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from kdsearch.errors import Diverged
from kdsearch.files import remove_checked
from kdsearch.results.card import PER_CLASS
from kdsearch.results.confirm_log import TEST, TRAINING, Done
from kdsearch.tuning.checkpoints import CheckpointClock
from kdsearch.tuning.folder import BEST
from kdsearch.tuning.objective import CHECKPOINT, STUDENT, write_student

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from kdsearch.settings import Scalar
    from kdsearch.tuning.objective import TrainerObjectives

    Work = Callable[[TrainerObjectives, "Job"], Done]


@dataclass(frozen=True)
class Job:
    """A setting to train with a seed."""

    trial: int
    hyperparameters: dict[str, Scalar]
    seed: int
    folder: Path
    """Where its checkpoint lies, and then its student."""
    keep: bool
    """Whether the student is kept: of those that only decide, the value is enough."""


def train(objectives: TrainerObjectives, job: Job) -> Done:
    """Train one student at full budget; interrupted, it goes on from its checkpoint."""
    trainer = objectives.trainer(job.hyperparameters, job.seed)
    trainer.load(job.folder)
    checkpoints = CheckpointClock(trainer.training.checkpoint_every, trainer.training.checkpoint_seconds)
    try:
        while not trainer.finished:
            trainer.epoch()
            if checkpoints.is_due(trainer.epochs_done) and not trainer.finished:
                trainer.save(job.folder)
                checkpoints.written()
    except Diverged as error:
        shutil.rmtree(job.folder, ignore_errors=True)
        return Done(TRAINING, job.trial, job.seed, time.time(), error=str(error))
    assert trainer.best is not None
    if job.keep:
        write_student(trainer, job.folder / BEST)
        remove_checked(job.folder / CHECKPOINT)
    else:
        shutil.rmtree(job.folder, ignore_errors=True)
    return Done(
        what=TRAINING,
        trial=job.trial,
        seed=job.seed,
        time=time.time(),
        value=trainer.best.value,
        metrics=trainer.best.metrics,
        epoch=trainer.best.epoch,
        seconds=round(sum(report.seconds for report in trainer.history), 3),
    )


def read_test(objectives: TrainerObjectives, job: Job) -> Done:
    """Read the test split for a student that `train` kept: every metric, and those of each class."""
    import torch

    from kdsearch import tasks
    from kdsearch.models.weights import load_weights
    from kdsearch.training.trainer import default_device, predictor

    torch.set_num_threads(objectives.threads)
    experiment, _ = objectives.experiment.of(job.hyperparameters)  # of several students the setting's own
    data, device = objectives.data, default_device()
    task = tasks.find(experiment.task)
    module = task.build(experiment.student, data)
    load_weights(module, job.folder / BEST / STUDENT)
    size = task.input_size(module, experiment.student, data)
    predict = predictor(module.to(device), data, size)
    metrics = task.evaluate(predict, data.test, device) | task.final_metrics(predict, data.test, device)
    # A task looks for evidence in the validation split; what stands there now is the test split.
    facts = task.evidence(predict, replace(data, validation=data.test), device).facts
    return Done(
        what=TEST,
        trial=job.trial,
        seed=job.seed,
        time=time.time(),
        value=metrics[task.metric],
        metrics=metrics,
        per_class={name: scores for name, scores in facts.items() if name.startswith(PER_CLASS)},
    )
