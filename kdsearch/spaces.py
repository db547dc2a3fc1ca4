"""Where experiments are written: the search spaces that ship, a person's own files, and dotted keys that override."""

from __future__ import annotations

from collections.abc import Collection
from os.path import isfile
from pathlib import Path
from typing import Any

from kdsearch import methods
from kdsearch.errors import InvalidSetting, UnknownName, UserError, shortened
from kdsearch.files import read_yaml
from kdsearch.settings import Scalar
from kdsearch.wording import Shown


def find_space(name_or_path: str) -> Path:
    """The YAML file of that path, or the shipped one of that name. Raises UserError when there is none."""
    if Path(name_or_path).suffix in {".yaml", ".yml"} or ("/" in name_or_path and ":" not in name_or_path):
        if not isfile(name_or_path):
            raise UserError(f"{Shown(name_or_path)!r} is no file; give a method's name or the path of a space in YAML")
        return Path(name_or_path)
    shipped = {file.stem: file for file in _folder().glob("*.yaml")}
    if name_or_path not in shipped:
        raise UnknownName("method", shortened(name_or_path), shipped, "or the path of a space in YAML")
    return shipped[name_or_path]


def read_space(name_or_path: str) -> dict[str, Any]:
    """What the shipped experiment of that name says, or the file at that path; a method that ships none will do."""
    try:
        return read_yaml(find_space(name_or_path))
    except UnknownName:
        if ":" not in name_or_path and name_or_path not in methods.names():
            raise
        return {"method": name_or_path, "space": shipped_space(name_or_path)}


def shipped_space(method: str) -> Any:
    """The space that ships with the method; of one that ships none, its training rates alone."""
    file = _folder() / f"{methods.find(method).name}.yaml"
    if file.is_file():
        return read_yaml(file)["space"]
    return {
        "learning_rate": {"low": 0.01, "high": 0.3, "log": True},
        "weight_decay": {"low": 1e-5, "high": 1e-2, "log": True},
    }


def read_settings(path: str | Path) -> dict[str, Scalar]:
    """A flat YAML file of hyperparameters, such as `best/hyperparameters.yaml`. Raises UserError."""
    content = read_yaml(Path(path))
    for name, value in content.items():
        if not isinstance(value, bool | int | float | str):
            raise InvalidSetting(f"{path}: {name}", Shown(value), "must be one value, no list and no range")
    return content


def override(content: dict[str, Any], key: str, value: Any, named: Collection[str] = ()) -> None:
    """Set a dotted key. `named` are the sections that may be written as their name alone: `student: resnet8`."""
    *path, last = key.split(".")
    inner: Any = content
    for place, part in enumerate(path):
        if inner.get(part) is None:
            inner[part] = {}
        elif place == 0 and part in named and isinstance(inner[part], str | list):
            inner[part] = {"name": inner[part]}
        if not isinstance(inner[part], dict):
            raise InvalidSetting(
                key, Shown(value), f"{'.'.join(path[: place + 1])} is {Shown(inner[part])!r}, which has no parts"
            )
        inner = inner[part]
    inner[last] = value


def _folder() -> Path:
    """In the wheel the spaces lie inside the package, in a checkout beside it."""
    package = Path(__file__).parent
    inside = package / "search_spaces"
    return inside if inside.is_dir() else package.parent / "search_spaces"
