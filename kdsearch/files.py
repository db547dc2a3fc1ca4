"""Files that appear whole or not at all, and YAML that is read safely, whoever wrote it."""

from __future__ import annotations

import hashlib
import os
from typing import TYPE_CHECKING, Any

import yaml

from kdsearch.errors import UserError, shortened

try:  # the parser in C is eight times as fast; both are safe loaders
    from yaml import CSafeLoader as _SafeLoader
except ImportError:
    from yaml import SafeLoader as _SafeLoader  # type: ignore[assignment]

if TYPE_CHECKING:
    from pathlib import Path

_DIGEST_BYTES = hashlib.sha256().digest_size
_DEEPEST = 100


def write_atomic(path: Path, content: bytes) -> None:
    """Write beside, flush to the disk, rename: a reader sees the old file or the new one, never a part."""
    part = path.with_name(f".{path.name}.part")
    try:
        with part.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def write_checked(path: Path, content: bytes) -> None:
    """Write `content` behind its checksum, keeping the file that was there as `NAME.previous`."""
    if path.exists():
        path.replace(_previous(path))
    write_atomic(path, hashlib.sha256(content).digest() + content)


def read_checked(path: Path) -> bytes | None:
    """The content that `write_checked` wrote; the previous one where the newest is damaged; None without any."""
    for candidate in (path, _previous(path)):
        try:
            stored = candidate.read_bytes()
        except FileNotFoundError:
            continue
        digest, content = stored[:_DIGEST_BYTES], stored[_DIGEST_BYTES:]
        if hashlib.sha256(content).digest() == digest:
            return content
    return None


def remove_checked(path: Path) -> None:
    """Remove what `write_checked` wrote."""
    path.unlink(missing_ok=True)
    _previous(path).unlink(missing_ok=True)


def _previous(path: Path) -> Path:
    return path.with_name(path.name + ".previous")


def read_yaml(path: Path, error: type[UserError] = UserError) -> dict[str, Any]:
    """A YAML mapping with names as keys. Raises `error` with one sentence when the file holds anything else."""
    try:
        content = parse_yaml(path.read_bytes())
    except OSError as problem:
        raise error(f"{path} cannot be read: {problem.strerror or problem}") from None
    except ValueError as problem:
        raise error(f"{path} is not YAML: {problem}") from None
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise error(f"{path} must hold a mapping of names to values")
    return content


def parse_yaml(text: bytes | str) -> Any:
    """What a YAML text says, by safe load. Raises ValueError with one line that says what is wrong, and where.

    Stricter than YAML: no aliases, with which a small text unfolds into a huge value, no name twice in a mapping, and
    no binary values: settings would take them for text, after the search for code (`consent`) has passed them over.
    """
    try:
        _check_shape(text)
        return yaml.load(text, Loader=_StrictLoader)
    except yaml.MarkedYAMLError as error:
        raise ValueError(f"{error.problem}{_line(error.problem_mark or error.context_mark)}") from None
    except (yaml.YAMLError, ValueError) as error:
        raise ValueError(str(error).partition("\n")[0]) from None
    except Exception:  # YAML's constructors raise whatever a value leads to, such as KeyError for `!!bool x`
        raise ValueError("a value does not fit its tag") from None


def _check_shape(text: bytes | str) -> None:
    """Raise ValueError for aliases, and for a text so deep that the parser in C would overflow the stack."""
    depth = 0
    for event in yaml.parse(text, Loader=_SafeLoader):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > _DEEPEST:
            raise ValueError(f"it nests deeper than {_DEEPEST} levels")
        if isinstance(event, yaml.AliasEvent):
            alias = f"*{shortened(str(event.anchor))}{_line(event.start_mark)}"
            raise ValueError(f"the alias {alias} is not followed; write the value out")


def _line(mark: Any) -> str:
    return f" at line {mark.line + 1}" if mark else ""


def _refuse_binary(loader: yaml.SafeLoader, node: yaml.Node) -> None:
    raise ValueError(f"the binary value{_line(node.start_mark)} is not taken; write it as text")


class _StrictLoader(_SafeLoader):
    yaml_constructors = {**_SafeLoader.yaml_constructors, "tag:yaml.org,2002:binary": _refuse_binary}

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        names: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                continue
            if key.value in names:
                raise ValueError(f"{key.value!r} stands twice in the mapping{_line(node.start_mark)}")
            names.add(key.value)
        return super().construct_mapping(node, deep)
