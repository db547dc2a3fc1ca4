"""Before the first trial: the teacher is there, the data lies where every process can map it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import ray

from kdsearch.training.teacher import fingerprint, train_teacher
from kdsearch.tuning.objective import TrainerObjectives
from kdsearch.user_code import loaded_modules

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from kdsearch.data.base import DataSet
    from kdsearch.experiment import Experiment
    from kdsearch.objective import Report

TEACHERS = ".teachers"


def prepare(experiment: Experiment, data: DataSet, storage: Path, announce: Callable[[str], None]) -> TrainerObjectives:
    """The objectives of a search, with a teacher that has weights."""
    for module in loaded_modules():  # workers know a person's file by no name: what data holds of it travels along
        ray.cloudpickle.register_pickle_by_value(module)
    if experiment.method_class.needs_teacher:
        experiment = with_trained_teacher(experiment, data, storage, announce)
    return TrainerObjectives(experiment, data, threads=max(1, int(experiment.resources.cpus_per_trial)))


def with_trained_teacher(
    experiment: Experiment, data: DataSet, storage: Path, announce: Callable[[str], None]
) -> Experiment:
    """The experiment with weights for its teacher: trained on the pool where none were given and none are cached."""
    teacher = experiment.teacher
    if teacher is None or teacher.weights is not None:
        return experiment
    folder = (storage / TEACHERS / fingerprint(experiment)).resolve()
    if not (folder / "metrics.json").is_file():
        folder.parent.mkdir(parents=True, exist_ok=True)
        _train(experiment, data, folder, announce)
    trained = teacher.model_copy(update={"weights": str(folder)})
    return experiment.model_copy(update={"teacher": trained})


def _train(experiment: Experiment, data: DataSet, folder: Path, announce: Callable[[str], None]) -> None:
    assert experiment.teacher is not None
    resources = experiment.resources
    task: Any = ray.remote(num_cpus=resources.cpus_per_trial, num_gpus=resources.gpus_per_trial or 0)(_reports)
    epochs = experiment.teacher.epochs or experiment.training.epochs
    name = experiment.teacher.name
    announce(f"training the teacher {name} once, {epochs} epochs")
    for reference in task.options(num_returns="streaming").remote(experiment, data, folder):
        report: Report = ray.get(reference)
        if report.epoch == epochs or report.epoch % max(1, epochs // 5) == 0:
            announce(f"teacher {name}: epoch {report.epoch} of {epochs}, {report.value:.4f}")


def _reports(experiment: Experiment, data: DataSet, folder: Path) -> Iterator[Report]:
    yield from train_teacher(experiment, data, folder)
