"""The tasks, found by name: a task is one module of this package, and no list names it."""

from __future__ import annotations

import importlib
import importlib.util
import pkgutil
from typing import TYPE_CHECKING

from kdsearch.errors import UnknownName

if TYPE_CHECKING:
    from types import ModuleType

    from kdsearch.tasks.base import Task as Task


def find(name: str) -> Task:
    """The task of that name. Raises UnknownName when there is none."""
    if name.isidentifier() and not name.startswith("_") and importlib.util.find_spec(f"{__name__}.{name}") is not None:
        found = _task_of(importlib.import_module(f"{__name__}.{name}"))
        if found is not None:
            return found()
    raise UnknownName("task", name, names())


def names() -> list[str]:
    """Every task: the modules of this package that hold one."""
    modules = (importlib.import_module(f"{__name__}.{module.name}") for module in pkgutil.iter_modules(__path__))
    return sorted(found.name for found in map(_task_of, modules) if found is not None)


def _task_of(module: ModuleType) -> type[Task] | None:
    """The task that a module of this package holds: the class whose `name` is the module's."""
    from kdsearch.tasks.base import Task

    title = module.__name__.rpartition(".")[2]
    for value in vars(module).values():
        if isinstance(value, type) and issubclass(value, Task) and getattr(value, "name", None) == title:
            return value
    return None
