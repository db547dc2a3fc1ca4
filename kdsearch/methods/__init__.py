"""The distillation methods, found by name: a method is one module of this package, and no list names it.

Other packages add theirs through the entry-point group `kdsearch.methods`; a person's own is named by where it lies,
`file.py:Class` or `package.module:Class`.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import pkgutil
from typing import TYPE_CHECKING, Any

from kdsearch.errors import InvalidSetting, UnknownName
from kdsearch.user_code import load_function

if TYPE_CHECKING:
    from types import ModuleType

    from kdsearch.methods.base import Method as Method

ENTRY_POINTS = "kdsearch.methods"


def find(name: str) -> type[Method]:
    """The method of that name, of an entry point of that name, or at `file.py:Class` or `package.module:Class`.

    Raises UnknownName when there is none, InvalidSetting when what lies there is no method, and UserError when it
    cannot be imported.
    """
    if ":" in name:
        return _checked(load_function(name), name)
    if name.isidentifier() and not name.startswith("_") and importlib.util.find_spec(f"{__name__}.{name}") is not None:
        found = _method_of(importlib.import_module(f"{__name__}.{name}"))
        if found is not None:
            return found
    for entry in importlib.metadata.entry_points(group=ENTRY_POINTS, name=name):
        return _checked(load_function(entry.value), name)
    raise UnknownName("method", name, names(), "or your own as file.py:Class")


def names() -> list[str]:
    """Every method that has a name: the modules of this package that hold one, and the entry points."""
    modules = (importlib.import_module(f"{__name__}.{module.name}") for module in pkgutil.iter_modules(__path__))
    built_in = {found.name for found in map(_method_of, modules) if found is not None}
    return sorted(built_in | importlib.metadata.entry_points(group=ENTRY_POINTS).names)


def _method_of(module: ModuleType) -> type[Method] | None:
    """The method that a module of this package holds: the class whose `name` is the module's."""
    title = module.__name__.rpartition(".")[2]
    for value in vars(module).values():
        if _is_method(value) and value.__module__ == module.__name__ and getattr(value, "name", None) == title:
            found: type[Method] = value
            return found
    return None


def _is_method(value: Any) -> bool:
    from kdsearch.methods.base import Method

    return isinstance(value, type) and issubclass(value, Method)


def _checked(value: Any, name: str) -> type[Method]:
    if not _is_method(value):
        raise InvalidSetting("method", name, "is not a subclass of kdsearch.methods.base.Method")
    lacking = [part for part in ("name", "title", "citation", "forwards") if not hasattr(value, part)]
    if getattr(value.losses, "__isabstractmethod__", False):
        lacking.append("losses")
    if lacking:
        raise InvalidSetting("method", name, f"the class lacks {', '.join(lacking)}")
    found: type[Method] = value
    return found
