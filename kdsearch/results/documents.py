"""Documents of a run folder: read safely, whoever wrote them, and written so that every reader understands them."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any

from kdsearch import files
from kdsearch.errors import RunError

if TYPE_CHECKING:
    from pathlib import Path

_DEEPEST = 100


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML mapping with names as keys, by safe load. Raises `RunError` when the file holds anything else."""
    return files.read_yaml(path, RunError)


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object. Raises `RunError` when the file holds anything else."""
    try:
        content = json.loads(path.read_bytes())
    except OSError as error:
        raise RunError(f"{path} cannot be read: {error.strerror or error}") from None
    except (ValueError, RecursionError) as error:
        raise RunError(f"{path} is not JSON: {error}") from None
    return _names_to_values(path, content)


def _names_to_values(path: Path, content: Any) -> dict[str, Any]:
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise RunError(f"{path} must hold a mapping of names to values")
    return content


def plain(value: Any, depth: int = 0) -> Any:
    """`value` as JSON can hold it: numbers that are not finite become None, sequences lists, the unknown its text.

    What nests deeper than any document of ours is cut off.
    """
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return str(value)
    if getattr(value, "shape", None) == ():
        return plain(value.item())  # a scalar of numpy or torch
    if isinstance(value, Integral):
        return int(value)
    if isinstance(value, Real):
        return float(value) if math.isfinite(value) else None
    if depth > _DEEPEST:
        return "…"
    if isinstance(value, Mapping):
        return {str(key): plain(entry, depth + 1) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [plain(entry, depth + 1) for entry in value]
    return str(value)


def to_json(document: Mapping[str, Any]) -> str:
    """One JSON document, readable by people too; never NaN or Infinity, which are no JSON."""
    return json.dumps(plain(document), indent=2, allow_nan=False) + "\n"
