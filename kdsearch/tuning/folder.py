"""The folder of a run: its name, its making, what lies where."""

from __future__ import annotations

import contextlib
import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdsearch.errors import DiskFull, RunError
from kdsearch.files import write_atomic
from kdsearch.results.copies import Home
from kdsearch.results.documents import read_json
from kdsearch.results.remote import is_url
from kdsearch.results.storage import run_name, storage_folder
from kdsearch.tuning.failures import full_disk

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from kdsearch.experiment import Experiment

TRIALS = "trials"
EXPERIMENT = "experiment.yaml"
START = "start.json"
BEST = "best"


def trial_folder(trials: str | Path, number: int) -> Path:
    """Where a trial keeps its curves, its checkpoint and, if it is among the best, its student."""
    return Path(trials) / f"{number:04d}"


def new_folder(experiment: Experiment, storage: str | Path) -> Path:
    """Where a new run will lie: METHOD-DATA-STUDENT-NUMBER unless it has a name. Raises RunError when that exists."""
    root, taken, where = _place_of(storage)
    if experiment.name is not None:
        folder = root / experiment.name
        if taken(experiment.name) or folder.exists():
            raise RunError(f"run {experiment.name!r} exists in {where}: choose another --name, or remove it")
        return folder
    student = "students" if experiment.students else experiment.student.name
    parts = (experiment.method, experiment.data.name, student)
    stem = "-".join(_plain(Path(part.split(":")[0]).stem if ".py" in part else part) for part in parts)
    number = 1
    while taken(f"{stem}-{number}") or (root / f"{stem}-{number}").exists():
        number += 1
    return root / f"{stem}-{number}"


def _place_of(storage: str | Path) -> tuple[Path, Callable[[str], bool], object]:
    """Where new runs are written, which names are taken elsewhere, and the place as a person knows it.

    Raises StorageError for a URL that cannot be written."""
    if not is_url(storage):
        root = storage_folder(storage).resolve()
        return root, lambda name: False, root
    home = Home(str(storage))
    home.remote.check(writable=True)
    names = set(home.remote.folders())
    return home.driven(""), lambda name: name in names, home.remote


@contextlib.contextmanager
def created(folder: Path, experiment: Experiment, known: dict[str, Any]) -> Iterator[None]:
    """The run folder with its resolved experiment and what was known before its first trial, which a resume needs;
    gone again when the search fails before that trial.

    The experiment makes it a run, so it comes last: a folder without it holds nothing that could be resumed.
    """
    try:
        folder.mkdir(parents=True)
    except FileExistsError:
        raise RunError(f"run {folder.name!r} exists in {folder.parent}: choose another --name") from None
    except OSError as error:
        raise RunError(f"{folder} cannot be made: {error.strerror}") from None
    try:
        write_atomic(folder / START, json.dumps(known).encode())
        write_atomic(folder / EXPERIMENT, experiment.to_yaml().encode())
        yield
    except BaseException:
        if not (folder / TRIALS).exists():
            shutil.rmtree(folder, ignore_errors=True)
        raise


def known_before(folder: Path) -> dict[str, Any]:
    """What `created` wrote of the time before the first trial."""
    return read_json(folder / START) if (folder / START).is_file() else {}


def tidy(folder: Path) -> None:
    """Remove what writers that were killed left half done; nobody writes into the run now."""
    for part in folder.rglob(".*.part"):
        part.unlink(missing_ok=True)
    for half in [*folder.glob(f".{BEST}.*.new"), *folder.glob(f".{BEST}.*.old")]:
        shutil.rmtree(half, ignore_errors=True)


@contextlib.contextmanager
def naming_full_disks(folder: Path, command: str = "resume") -> Iterator[None]:
    """Inside, a full disk is one sentence that names the place and the command that goes on."""
    try:
        yield
    except OSError as error:
        if (full := full_disk(error)) is None:
            raise
        raise no_room(folder, str(full.filename or folder), command) from None


def no_room(folder: Path, place: str, command: str = "resume") -> DiskFull:
    """The error that ends the work on the run in `folder`, which is gone again where no trial had begun."""
    then = f"then  kdsearch {command} {run_name(folder)}" if folder.exists() else "and search again"
    return DiskFull(f"no room is left on the disk of {place}: make some, {then}")


def _plain(text: str) -> str:
    return "".join(letter if letter.isalnum() else "_" for letter in text).strip("_")
