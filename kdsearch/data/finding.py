"""A data set found by its name: a module of `kdsearch.data.sets`, an entry point, or a function of a person's own."""

from __future__ import annotations

import importlib
import importlib.metadata
import inspect
import pkgutil
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from kdsearch.data import sets
from kdsearch.errors import BadData, InvalidSetting, UnknownName
from kdsearch.user_code import load_function, locating

if TYPE_CHECKING:
    from types import ModuleType

    from kdsearch.settings import DataSettings

    Load = Callable[[DataSettings], Any]

ENTRY_POINTS = "kdsearch.datasets"
CLASSES = ("classification",)
_KIND = "data set"
_HINT = "or your own as file.py:function"


def find(name: str, task: str = "classification") -> Load:
    """The function that loads the set of that name, for a task, from its settings.

    A name is a module of `kdsearch.data.sets`; `FAMILY:MEMBER` of such a module; a member of a family (a module that
    has `names()`); an entry point; `file.py:function` or `package.module:function`. Raises UnknownName, or BadData
    where a person's module cannot be imported, InvalidSetting where the set is for other tasks.
    """
    family, _, member = name.rpartition(":")
    if family in _modules() and _is_family(_module(family)):
        return _load_of(_module(family), name, task)
    if family:
        return _own(family, member)
    if name in _modules() and not _is_family(_module(name)):
        return _load_of(_module(name), name, task)
    for entry in importlib.metadata.entry_points(group=ENTRY_POINTS, name=name):
        return _own(entry.module, entry.attr)
    families = [_module(module) for module in _modules() if _is_family(_module(module))]
    for module in families:
        if module.member(name) is not None:
            return _load_of(module, name, task)
    raise UnknownName(_KIND, name, names(task), f"{_also(families) if task in CLASSES else ''}{_HINT}")


def names(task: str = "classification") -> list[str]:
    """The sets for a task that ship with kdsearch or with other installed packages; families are left out."""
    built_in = {name for name in _modules() if not _is_family(_module(name)) and task in _tasks(_module(name))}
    return sorted(built_in | importlib.metadata.entry_points(group=ENTRY_POINTS).names)


def _also(families: list[ModuleType]) -> str:
    return "".join(f"or {family.TITLE}, " for family in families)


def _modules() -> list[str]:
    return [module.name for module in pkgutil.iter_modules(sets.__path__)]


def _module(name: str) -> ModuleType:
    return importlib.import_module(f"{sets.__name__}.{name}")


def _is_family(module: ModuleType) -> bool:
    return hasattr(module, "member")


def _tasks(module: ModuleType) -> tuple[str, ...]:
    """What a set is for: its `TASKS`, or classification."""
    return tuple(getattr(module, "TASKS", CLASSES))


def _load_of(module: ModuleType, name: str, task: str) -> Load:
    if task not in _tasks(module):
        others = "".join(f"{other}, " for other in names(task))
        raise InvalidSetting("data", name, f"is for {', '.join(_tasks(module))}; for {task} take {others}{_HINT}")
    load: Callable[..., Any] = module.load
    return partial(load, task=task) if hasattr(module, "TASKS") else load


def _own(where: str, attribute: str) -> Load:
    reference = f"{where}:{attribute}"
    return _fitted(load_function(reference), reference)


def _fitted(function: Any, name: str) -> Load:
    """A person's function as one of the settings: it may take them as its one argument, or nothing."""
    required = [
        parameter
        for parameter in inspect.signature(function).parameters.values()
        if parameter.default is parameter.empty
        and parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
    ]
    if len(required) > 1:
        raise BadData(
            f"{name!r} asks for {len(required)} arguments: it must take none, or one (the kdsearch DataSettings)"
        )

    def load(settings: DataSettings) -> Any:
        with locating(name):
            return function(settings) if required else function()

    return load
