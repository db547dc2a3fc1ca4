"""Before the first trial: the teacher is there, the data lies where every process can map it."""

from __future__ import annotations

import contextlib
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ray
import torch

from kdsearch.files import write_atomic
from kdsearch.results.export import METRICS
from kdsearch.training.teacher import fingerprint, is_trained, load_teacher, train_teacher
from kdsearch.training.teaching import (
    compute_outputs,
    keeps_outputs,
    outputs_name,
    read_outputs,
    view_bank,
    write_outputs,
)
from kdsearch.training.trainer import default_device
from kdsearch.tuning.objective import TrainerObjectives
from kdsearch.user_code import loaded_modules

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from kdsearch.data.base import DataSet
    from kdsearch.data.teacher_outputs import TeacherOutputs
    from kdsearch.experiment import Experiment
    from kdsearch.objective import Report
    from kdsearch.results.remote import Remote

TEACHERS = ".teachers"


def prepare(
    experiment: Experiment,
    data: DataSet,
    storage: Path,
    announce: Callable[[str], None],
    remote: Remote | None = None,
) -> TrainerObjectives:
    """The objectives of a search, with a teacher that has weights.

    Args:
        experiment: what to search.
        data: its data.
        storage: the folder of runs; of a storage at a URL, that of its copies.
        announce: told in a sentence what is prepared.
        remote: the storage at a URL; None for a folder, which all nodes see.
    """
    for module in loaded_modules():  # workers know a person's file by no name: what data holds of it travels along
        ray.cloudpickle.register_pickle_by_value(module)
    files: dict[str, bytes] = {}
    keeps = keeps_outputs(experiment, data)  # first, as it raises for what cannot be
    if experiment.needs_teacher:
        taught = with_trained_teacher(experiment, data, storage, announce, remote)
        if remote is not None and taught is not experiment:
            assert taught.teacher is not None
            assert taught.teacher.weights is not None
            files = {path.name: path.read_bytes() for path in Path(taught.teacher.weights).iterdir()}
        experiment = taught
    threads = max(1, int(experiment.resources.cpus_per_trial))
    objectives = TrainerObjectives(experiment, data, threads=threads, teacher_files=files)
    return replace(objectives, taught=kept_outputs(objectives, storage, announce, remote)) if keeps else objectives


def kept_outputs(
    objectives: TrainerObjectives, storage: Path, announce: Callable[[str], None], remote: Remote | None = None
) -> TeacherOutputs:
    """What the teacher says of the training images: from the storage, or computed now and kept there.

    Files are looked for by all that determines the outputs, and checked: a resumed search has those it began with.
    """
    experiment, data = objectives.experiment, objectives.data
    teacher = load_teacher(experiment, data, torch.device("cpu"))
    name = outputs_name(experiment, data, teacher)
    path = None if name is None else (storage / TEACHERS / name).resolve()
    found = None if path is None else _read(path, experiment, data, remote)
    if found is not None:
        return found
    bank = view_bank(experiment, data)
    views = "" if bank is None else f"{bank.views:,} views of "
    announce(f"asking the teacher once for each of {views}{len(data.train):,} training images")
    resources = experiment.resources
    if resources.gpus:
        task: Any = ray.remote(num_cpus=resources.cpus_per_trial, num_gpus=resources.gpus)(_outputs)
        outputs: TeacherOutputs = ray.get(task.remote(objectives))
    else:
        outputs = compute_outputs(experiment, data, teacher, torch.device("cpu"))
    if path is not None:
        with contextlib.suppress(OSError):  # a full disk, say: the next start computes them again
            write_outputs(path, outputs)
            if remote is not None:
                (remote / TEACHERS).write(path.name, path.read_bytes())
    return outputs


def _read(path: Path, experiment: Experiment, data: DataSet, remote: Remote | None) -> TeacherOutputs | None:
    """The outputs in a file of the storage, or in its copy on this machine."""
    found = read_outputs(path, experiment, data)
    if found is None and remote is not None and (content := (remote / TEACHERS).read(path.name)) is not None:
        with contextlib.suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(path, content)
        found = read_outputs(path, experiment, data)
    return found


def _outputs(objectives: TrainerObjectives) -> TeacherOutputs:
    """On some node, on the GPU that trials have too."""
    assert objectives.teacher is not None
    return compute_outputs(objectives.experiment, objectives.data, objectives.teacher, default_device())


def with_trained_teacher(
    experiment: Experiment,
    data: DataSet,
    storage: Path,
    announce: Callable[[str], None],
    remote: Remote | None = None,
) -> Experiment:
    """The experiment with weights for its teacher: trained on the pool where none were given and none are cached."""
    teacher = experiment.teacher
    if teacher is None or is_trained(teacher):
        return experiment
    name = f"{TEACHERS}/{fingerprint(experiment)}"
    folder = (storage / name).resolve()
    if remote is not None and not (folder / METRICS).is_file():
        (remote / name).pull(folder, lambda file: True)
    if not (folder / METRICS).is_file():
        folder.parent.mkdir(parents=True, exist_ok=True)
        files = _train(experiment, data, folder if remote is None else None, announce)
        if remote is not None:
            _keep(files, folder, remote / name)
    trained = teacher.model_copy(update={"weights": str(folder)})
    return experiment.model_copy(update={"teacher": trained})


def _keep(files: dict[str, bytes], folder: Path, there: Remote) -> None:
    """Keep a trained teacher at the URL and here; what says that it is whole comes last."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in sorted(files, key=lambda name: name == METRICS):
        there.write(name, files[name])
        write_atomic(folder / name, files[name])


def _train(
    experiment: Experiment, data: DataSet, folder: Path | None, announce: Callable[[str], None]
) -> dict[str, bytes]:
    """Train the teacher on some node, into a folder that all nodes see; without one its files are returned."""
    assert experiment.teacher is not None
    resources = experiment.resources
    task: Any = ray.remote(num_cpus=resources.cpus_per_trial, num_gpus=resources.gpus)(_reports)
    epochs = experiment.teacher.epochs or experiment.training.epochs
    name = experiment.teacher.name
    announce(f"training the teacher {name} once, {epochs} epochs")
    files: dict[str, bytes] = {}
    for reference in task.options(num_returns="streaming").remote(experiment, data, folder):
        told: Report | dict[str, bytes] = ray.get(reference)
        if isinstance(told, dict):
            files = told
        elif told.epoch == epochs or told.epoch % max(1, epochs // 5) == 0:
            announce(f"teacher {name}: epoch {told.epoch} of {epochs}, {told.value:.4f}")
    return files


def _reports(experiment: Experiment, data: DataSet, folder: Path | None) -> Iterator[Report | dict[str, bytes]]:
    if folder is not None:
        yield from train_teacher(experiment, data, folder)
        return
    with tempfile.TemporaryDirectory(prefix="kdsearch-teacher-") as scratch:
        trained = Path(scratch) / "teacher"
        yield from train_teacher(experiment, data, trained)
        yield {path.name: path.read_bytes() for path in trained.iterdir()}
