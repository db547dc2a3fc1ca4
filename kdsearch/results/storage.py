"""Where runs lie: one folder a run, named after it, in the storage folder."""

from __future__ import annotations

import os
import re
from pathlib import Path

from kdsearch.errors import RunError, UnknownName
from kdsearch.results.results import EXPERIMENT, JOURNAL

_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*")
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+)://")


def storage_folder(storage: str | Path) -> Path:
    """The storage as a local folder; `file://` addresses are understood. Raises `RunError` for other addresses."""
    scheme = _SCHEME.match(str(storage))
    if scheme is None:
        return Path(storage).expanduser()
    if scheme[1] != "file":
        raise RunError(f"storage {str(storage)!r}: runs are read from a folder; mount it here and give its path")
    return Path(str(storage)[len("file://") :])


def is_run(folder: Path) -> bool:
    """Whether `folder` holds a run."""
    return (folder / EXPERIMENT).is_file() or (folder / JOURNAL).is_file()


def list_runs(storage: str | Path) -> list[Path]:
    """The run folders in the storage, by name; none when there is no such folder."""
    try:
        entries = sorted(storage_folder(storage).iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []
    except PermissionError as error:
        raise RunError(f"storage {str(storage)!r} cannot be read: {error.strerror}") from None
    return [entry for entry in entries if not entry.name.startswith(".") and is_run(entry)]


def find_run(name_or_path: str | Path, storage: str | Path) -> Path:
    """The folder of a run: a name is looked up in the storage and nowhere else, anything with a separator is a path.

    A bare name that the storage does not know may be a folder here. Raises `RunError` with the nearest name.
    """
    text = str(name_or_path)
    root = storage_folder(storage)
    if _NAME.fullmatch(text) and is_run(root / text):
        return root / text
    path = Path(text).expanduser()
    if "\0" not in text and text and is_run(path):
        return path
    if os.sep in text:
        raise RunError(f"{text!r} is not the folder of a run: it holds no {EXPERIMENT}")
    names = [run.name for run in list_runs(storage)]
    raise RunError(str(UnknownName("run", text, names, f"in {root}" if names else f"({root} holds no runs)")))
