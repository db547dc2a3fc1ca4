"""Where runs lie: one folder a run, named after it, in the storage folder, or in the folder of a series there.

A series is a chain or a comparison: searches that belong together. Of runs at a URL copies are read, see `copies`.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from kdsearch.errors import RunError, UnknownName
from kdsearch.results.copies import Home
from kdsearch.results.remote import is_url
from kdsearch.results.results import EXPERIMENT, JOURNAL

CHAIN = "chain.yaml"
COMPARISON = "compare.yaml"

_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*")
_IN_SERIES = re.compile(rf"({_NAME.pattern})/({_NAME.pattern})")
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


def is_comparison(folder: Path) -> bool:
    """Whether `folder` holds a comparison, whose searches are the runs in it."""
    return (folder / COMPARISON).is_file()


def is_series(folder: Path) -> bool:
    """Whether `folder` holds searches that belong together."""
    return is_chain(folder) or is_comparison(folder)


def run_name(folder: Path) -> str:
    """The name that `find_run` knows a run by: SERIES/RUN for a run of a chain or a comparison."""
    folder = folder.resolve()
    return f"{folder.parent.name}/{folder.name}" if is_series(folder.parent) else folder.name


def list_runs(storage: str | Path) -> list[Path]:
    """The run folders in the storage, by name, those of a series in its place; none when there is no such folder."""
    if is_url(storage):
        return _runs_at(Home(str(storage)))
    found: list[Path] = []
    for entry in _folders(storage):
        if is_run(entry):
            found.append(entry)
        elif is_series(entry):
            found += [run for run in _folders(entry) if is_run(run)]
    return found


def _runs_at(home: Home) -> list[Path]:
    """Copies of the runs at a URL, brought up to date."""
    home.remote.check()
    copies = (home.see(name) for name in home.remote.folders() if _NAME.fullmatch(name))
    return [copy for copy in copies if is_run(copy)]


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
    found = _find_series(name_or_path, storage)
    return found if found is not None and is_chain(found) else None


def find_comparison(name_or_path: str | Path, storage: str | Path) -> Path | None:
    """The folder of a comparison, by its name in the storage or its path; None where there is none."""
    found = _find_series(name_or_path, storage)
    return found if found is not None and is_comparison(found) else None


def _find_series(name_or_path: str | Path, storage: str | Path) -> Path | None:
    text = str(name_or_path)
    if _NAME.fullmatch(text) and not is_url(storage):
        inside = storage_folder(storage) / text
        if is_series(inside) or is_run(inside):
            return inside if is_series(inside) else None
    path = Path(text).expanduser()
    return path if text and "\0" not in text and is_series(path) else None


def find_run(name_or_path: str | Path, storage: str | Path, *, weights: bool = False) -> Path:
    """The folder of a run: a name is looked up in the storage and nowhere else, anything with a separator is a path.

    SERIES/RUN, where the storage has such a chain or comparison, is a name. A bare name that the storage does not know
    may be a folder here. Raises `RunError` with the nearest name.

    Of a run at a URL it is a copy's, brought up to date; its students are there with `weights` alone.
    """
    text = str(name_or_path)
    if is_url(storage):
        return _find_at(text, Home(str(storage)), weights)
    root = storage_folder(storage)
    if _NAME.fullmatch(text) and is_run(root / text):
        return root / text
    inside = _IN_SERIES.fullmatch(text)
    if inside and is_series(root / inside[1]):
        return _run_of_series(root / inside[1], inside[2])
    series = _find_series(text, storage)
    if series is not None:
        runs = ", ".join(f"{text.rstrip('/')}/{run.name}" for run in _folders(series) if is_run(run))
        raise RunError(f"{text!r} is a {_kind(series)}: name one of its runs ({runs or 'none has begun'})")
    path = Path(text).expanduser()
    if "\0" not in text and text and is_run(path):
        return path
    if os.sep in text:
        raise RunError(f"{text!r} is not the folder of a run: it holds no {EXPERIMENT}")
    names = [run_name(run) for run in list_runs(storage)]
    raise RunError(str(UnknownName("run", text, names, f"in {root}" if names else f"({root} holds no runs)")))


def _find_at(text: str, home: Home, weights: bool) -> Path:
    if _NAME.fullmatch(text):
        home.remote.check()
        copy = home.see(text, weights=weights)
        if is_run(copy):
            return copy
        names = [name for name in home.remote.folders() if _NAME.fullmatch(name)]
        where = f"in {home.remote}" if names else f"({home.remote} holds no runs)"
        raise RunError(str(UnknownName("run", text, names, where)))
    path = Path(text).expanduser()
    if text and "\0" not in text and is_run(path):
        return path
    raise RunError(f"{text!r} is neither the name of a run in {home.remote} nor a run's folder here")


def _run_of_series(series: Path, name: str) -> Path:
    if is_run(series / name):
        return series / name
    names = [run.name for run in _folders(series) if is_run(run)]
    raise RunError(str(UnknownName(f"run of {_kind(series)} {series.name!r}:", name, names)))


def _kind(series: Path) -> str:
    return "chain" if is_chain(series) else "comparison"
