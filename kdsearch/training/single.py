"""One training without a search."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdsearch import data as data_sets
from kdsearch.auto import AUTO
from kdsearch.errors import InvalidSetting, RunError
from kdsearch.results.documents import read_json
from kdsearch.results.export import METRICS, write_export
from kdsearch.students import refuse_several
from kdsearch.training.outcome import outcome
from kdsearch.training.teacher import is_trained, load_teacher, train_teacher
from kdsearch.training.teaching import compute_outputs, keeps_outputs
from kdsearch.training.trainer import Trainer, default_device

if TYPE_CHECKING:
    from collections.abc import Callable

    from kdsearch.data.base import DataSet
    from kdsearch.experiment import Experiment
    from kdsearch.objective import Report

TEACHER = "teacher"


def train_student(
    experiment: Experiment, to: str | Path, told: Callable[[str, Report, int], None] = lambda what, report, epochs: None
) -> dict[str, Any]:
    """Train one student with the paper's setting (or what the space fixes) and export it to `to`; its metrics.json.

    A teacher without weights is trained first and exported to `to`/teacher. Raises RunError when `to` holds
    anything, UserError for whatever does not fit.
    """
    if experiment.method == AUTO:
        raise InvalidSetting(
            "method", AUTO, f"is for a search; name the method to train: {', '.join(experiment.methods)}"
        )
    refuse_several(experiment.students, experiment.search, "a training", limits=False)
    folder = Path(to).expanduser().resolve()
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise RunError(f"{str(to)!r} exists and is not empty: name a new folder")
    data = data_sets.load(experiment.data, experiment.task)
    trained = _teacher_folder(experiment, folder, data, told)
    if trained is not None and experiment.teacher is not None:
        weights = experiment.teacher.model_copy(update={"weights": str(trained)})
        experiment = experiment.model_copy(update={"teacher": weights})
    teacher = load_teacher(experiment, data) if experiment.method_class.needs_teacher else None
    taught = None
    if teacher is not None and keeps_outputs(experiment, data):
        taught = compute_outputs(experiment, data, teacher, default_device())
    trainer = Trainer(experiment, experiment.paper(), data=data, teacher=teacher, taught=taught)
    while not trainer.finished:
        told(experiment.student.name, trainer.epoch(), trainer.training.epochs)
    facts = {**outcome(trainer).facts, "search": None}
    weights_bytes = trainer.student_bytes()
    write_export(folder, weights=weights_bytes, facts=facts, hyperparameters=trainer.hyperparameters)
    if trained is not None:
        trained.rename(folder / TEACHER)
    return read_json(folder / METRICS)


def _teacher_folder(
    experiment: Experiment, folder: Path, data: DataSet, told: Callable[[str, Report, int], None]
) -> Path | None:
    """Where a teacher that came without weights was trained to; None when none was needed."""
    settings = experiment.teacher
    if not experiment.method_class.needs_teacher or settings is None or is_trained(settings):
        return None
    trained = folder.with_name(f".{folder.name}.{TEACHER}")
    if not (trained / METRICS).is_file():
        trained.parent.mkdir(parents=True, exist_ok=True)
        for report in train_teacher(experiment, data, trained):
            told(f"teacher {settings.name}", report, settings.epochs or experiment.training.epochs)
    return trained
