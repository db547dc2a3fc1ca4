"""The folder of a run: its name, its making, what lies where."""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from kdsearch.errors import RunError
from kdsearch.files import write_atomic
from kdsearch.results.storage import storage_folder

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kdsearch.experiment import Experiment

TRIALS = "trials"
EXPERIMENT = "experiment.yaml"
BEST = "best"


def trial_folder(trials: str | Path, number: int) -> Path:
    """Where a trial keeps its curves, its checkpoint and, if it is among the best, its student."""
    return Path(trials) / f"{number:04d}"


def new_folder(experiment: Experiment, storage: str | Path) -> Path:
    """Where a new run will lie: METHOD-DATA-STUDENT-NUMBER unless it has a name. Raises RunError when that exists."""
    root = storage_folder(storage).resolve()
    if experiment.name is not None:
        folder = root / experiment.name
        if folder.exists():
            raise RunError(f"run {experiment.name!r} exists in {root}: choose another --name, or remove it")
        return folder
    parts = (experiment.method, experiment.data.name, experiment.student.name)
    stem = "-".join(_plain(Path(part.split(":")[0]).stem if ".py" in part else part) for part in parts)
    number = 1
    while (root / f"{stem}-{number}").exists():
        number += 1
    return root / f"{stem}-{number}"


@contextlib.contextmanager
def created(folder: Path, experiment: Experiment) -> Iterator[None]:
    """The run folder with its resolved experiment; gone again when the search fails before its first trial."""
    try:
        folder.mkdir(parents=True)
    except FileExistsError:
        raise RunError(f"run {folder.name!r} exists in {folder.parent}: choose another --name") from None
    except OSError as error:
        raise RunError(f"{folder} cannot be made: {error.strerror}") from None
    try:
        write_atomic(folder / EXPERIMENT, experiment.to_yaml().encode())
        yield
    except BaseException:
        if not (folder / TRIALS).exists():
            shutil.rmtree(folder, ignore_errors=True)
        raise


def _plain(text: str) -> str:
    return "".join(letter if letter.isalnum() else "_" for letter in text).strip("_")
