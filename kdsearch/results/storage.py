"""Where runs lie: one folder a run, named after it, in the storage folder, or in the folder of a chain there."""

from __future__ import annotations

import os
import re
from pathlib import Path

from kdsearch.errors import RunError, UnknownName
from kdsearch.results.results import EXPERIMENT, JOURNAL

CHAIN = "chain.yaml"

_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*")
_IN_CHAIN = re.compile(rf"({_NAME.pattern})/({_NAME.pattern})")
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


def is_chain(folder: Path) -> bool:
    """Whether `folder` holds a chain, whose generations are the runs in it."""
    return (folder / CHAIN).is_file()


def run_name(folder: Path) -> str:
    """The name that `find_run` knows a run by: CHAIN/GENERATION for a run of a chain."""
    folder = folder.resolve()
    return f"{folder.parent.name}/{folder.name}" if is_chain(folder.parent) else folder.name


def list_runs(storage: str | Path) -> list[Path]:
    """The run folders in the storage, by name, those of a chain in its place; none when there is no such folder."""
    found: list[Path] = []
    for entry in _folders(storage):
        if is_run(entry):
            found.append(entry)
        elif is_chain(entry):
            found += [run for run in _folders(entry) if is_run(run)]
    return found


def _folders(storage: str | Path) -> list[Path]:
    try:
        entries = sorted(storage_folder(storage).iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []
    except PermissionError as error:
        raise RunError(f"storage {str(storage)!r} cannot be read: {error.strerror}") from None
    return [entry for entry in entries if not entry.name.startswith(".")]


def find_chain(name_or_path: str | Path, storage: str | Path) -> Path | None:
    """The folder of a chain, by its name in the storage or its path; None where there is none."""
    text = str(name_or_path)
    root = storage_folder(storage)
    if _NAME.fullmatch(text) and (is_chain(root / text) or is_run(root / text)):
        return root / text if is_chain(root / text) else None
    path = Path(text).expanduser()
    return path if text and "\0" not in text and is_chain(path) else None


def find_run(name_or_path: str | Path, storage: str | Path) -> Path:
    """The folder of a run: a name is looked up in the storage and nowhere else, anything with a separator is a path.

    CHAIN/GENERATION, where the storage has such a chain, is a name. A bare name that the storage does not know may be
    a folder here. Raises `RunError` with the nearest name.
    """
    text = str(name_or_path)
    root = storage_folder(storage)
    if _NAME.fullmatch(text) and is_run(root / text):
        return root / text
    inside = _IN_CHAIN.fullmatch(text)
    if inside and is_chain(root / inside[1]):
        return _run_of_chain(root / inside[1], inside[2])
    chain = find_chain(text, storage)
    if chain is not None:
        runs = ", ".join(f"{text.rstrip('/')}/{run.name}" for run in _folders(chain) if is_run(run))
        raise RunError(f"{text!r} is a chain: name one of its runs ({runs or 'none has begun'})")
    path = Path(text).expanduser()
    if "\0" not in text and text and is_run(path):
        return path
    if os.sep in text:
        raise RunError(f"{text!r} is not the folder of a run: it holds no {EXPERIMENT}")
    names = [run_name(run) for run in list_runs(storage)]
    raise RunError(str(UnknownName("run", text, names, f"in {root}" if names else f"({root} holds no runs)")))


def _run_of_chain(chain: Path, name: str) -> Path:
    if is_run(chain / name):
        return chain / name
    names = [run.name for run in _folders(chain) if is_run(run)]
    raise RunError(str(UnknownName(f"run of chain {chain.name!r}:", name, names)))
