"""Functions of the user's own code: found, called and, where they fail, located."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import inspect
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import ModuleType
from typing import Any

from kdsearch.errors import UnknownName, UserError

PREFIX = "kdsearch_user_"


class FunctionFailed(UserError):
    """The user's own code raised something."""


_BY_NAME = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
_VARIABLE = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


def load_function(reference: str) -> Callable[..., Any]:
    """`path/file.py:function` or `package.module:function` → the function (or class).

    A file is imported under a name of its own, made of its path and content, and sees its neighbours as modules.
    Raises UserError when file, module or function are not there, or importing fails (with file and line).
    """
    place, _, name = reference.rpartition(":")
    module = (
        _import_file(reference, Path(place).expanduser()) if place.endswith(".py") else _import_module(reference, place)
    )
    function = getattr(module, name, None)
    if not callable(function):
        known = [key for key, value in vars(module).items() if inspect.isroutine(value) or inspect.isclass(value)]
        raise UnknownName(f"function of {place}", name, [key for key in known if not key.startswith("_")])
    found: Callable[..., Any] = function
    return found


def loaded_modules() -> list[ModuleType]:
    """The modules of a person's files that this process has imported."""
    return [module for name, module in sys.modules.items() if name.startswith(PREFIX)]


def absolute(reference: str) -> str:
    """The reference seen from anywhere: a file's path made absolute, everything else as it is."""
    place, colon, name = reference.rpartition(":")
    return f"{Path(place).expanduser().resolve()}:{name}" if colon and place.endswith(".py") else reference


def call_function(
    reference: str, function: Callable[..., Any], offered: Mapping[str, Any], arguments: Mapping[str, Any]
) -> Any:
    """Call with what the signature names of `offered`, and with all `arguments`.

    Raises UserError for an argument it does not take, one it needs and nobody gives, and any failure inside.
    """
    with locating(reference):
        parameters = list(inspect.signature(function).parameters.values())
    named = [parameter.name for parameter in parameters if parameter.kind in _BY_NAME]
    takes_any = any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters)
    for name in arguments:
        if name not in named and not takes_any:
            raise UnknownName(f"argument of {reference}", name, named)
    given = {name: value for name, value in offered.items() if name in named} | dict(arguments)
    needed = [parameter.name for parameter in parameters if _is_needed(parameter) and parameter.name not in given]
    if needed:
        raise UserError(
            f"{reference} needs {', '.join(needed)}, and is given {', '.join(offered)}; set it under `arguments`"
        )
    with locating(reference):
        return function(**given)


def _is_needed(parameter: inspect.Parameter) -> bool:
    return parameter.default is inspect.Parameter.empty and parameter.kind not in _VARIABLE


@contextmanager
def locating(reference: str) -> Iterator[None]:
    """Turn any failure of the user's code into one sentence with file and line."""
    folder = folder_of(reference)
    try:
        with _importable(folder):
            yield
    except UserError:
        raise
    except Exception as error:
        raise FunctionFailed(f"{reference} failed: {describe(error, folder)}") from error


def describe(error: BaseException, folder: Path) -> str:
    """`TypeError: what (my_net.py, line 12)`: the innermost line of code under `folder`, else of any."""
    if isinstance(error, SyntaxError):
        return f"{type(error).__name__}: {error.msg} ({error.filename}, line {error.lineno})"
    text = f"{type(error).__name__}: {' '.join(str(error).split()) or 'no message'}"
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if _is_under(Path(frame.filename), folder)]
    if not frames:
        return text
    innermost = (own or frames)[-1]
    return f"{text} ({innermost.filename}, line {innermost.lineno})"


def _is_under(file: Path, folder: Path) -> bool:
    file = file.resolve()
    return folder in file.parents and "site-packages" not in file.parts


def folder_of(reference: str) -> Path:
    """Where the user's code lies: beside the file, or the folder one works in."""
    place = reference.rpartition(":")[0]
    return Path(place).expanduser().resolve().parent if place.endswith(".py") else Path.cwd()


def _import_file(reference: str, path: Path) -> ModuleType:
    if not path.is_file():
        raise UserError(f"{reference}: there is no file {str(path)!r}")
    path = path.resolve()
    digest = hashlib.sha256(str(path).encode() + path.read_bytes()).hexdigest()[:16]
    name = f"{PREFIX}{path.stem}_{digest}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # before it runs: dataclasses and pickle look their classes' module up there
    try:
        with locating(reference):
            spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _import_module(reference: str, place: str) -> ModuleType:
    with locating(reference):
        try:
            return importlib.import_module(place)
        except (ModuleNotFoundError, ValueError) as error:
            missing = getattr(error, "name", None) or ""
            if isinstance(error, ValueError) or f"{place}.".startswith(f"{missing}."):
                raise UserError(
                    f"{reference}: there is no module {place!r}; a file is written path/file.py:function"
                ) from error
            raise


@contextmanager
def _importable(folder: Path) -> Iterator[None]:
    """The folder on the import path, while the user's code runs."""
    if str(folder) in sys.path:
        yield
        return
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        with suppress(ValueError):  # the code may have tidied up itself
            sys.path.remove(str(folder))
