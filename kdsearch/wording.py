"""Pydantic's findings in plain words: one sentence that names the key, the value and the mend."""

from __future__ import annotations

import difflib
import re
import types
import typing
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from pydantic import BaseModel, ValidationError

from kdsearch.errors import LONGEST, InvalidSetting, UnknownName, UserError, shortened

_REASONS = {
    "int_type": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_from_float": "must be a whole number",
    "int_parsing_size": "is too large",
    "float_type": "must be a number",
    "float_parsing": "must be a number",
    "finite_number": "must be a finite number",
    "bool_type": "must be true or false",
    "bool_parsing": "must be true or false",
    "string_type": "must be text",
    "string_unicode": "must be text",
    "greater_than": "must be above {gt}",
    "greater_than_equal": "must be at least {ge}",
    "less_than": "must be below {lt}",
    "less_than_equal": "must be at most {le}",
    "tuple_type": "must be a list",
    "dict_type": "must map names to values",
    "mapping_type": "must map names to values",
    "model_type": "must be a section of names and values",
    "invalid_key": "a name must be text; put it in quotes",
    "too_short": "must list at least {min_length}",
}


class Shown:
    """A value as a sentence can hold it: its `repr`, cut short."""

    def __init__(self, value: object) -> None:
        self._value = value

    def __repr__(self) -> str:
        try:
            return shortened(repr(self._value))
        except ValueError:  # an integer of more digits than Python prints
            return "a number of thousands of digits"


def explained(
    error: ValidationError,
    model: type[BaseModel],
    prefix: Iterable[str] = (),
    elsewhere: Iterable[str] = (),
    whole: str = "the experiment",
) -> UserError:
    """The first finding as an error of ours; a key that is missing may be another one misspelt, which says more.

    Args:
        error: what pydantic found wrong with an instance of `model`.
        model: the section, or the whole.
        prefix: where the section stands in the whole.
        elsewhere: dotted keys that exist, to say where a key belongs that stands in the wrong section.
        whole: what to call it.
    """
    detail = min(error.errors(include_url=False), key=lambda finding: finding["type"] == "missing")
    inside = [str(part) for part in detail["loc"]]
    location = [*prefix, *inside]
    key = shortened(".".join(location)) or whole
    key = key if key.isprintable() else repr(key)
    if detail["type"] == "extra_forbidden":
        owner = _section(model, inside[:-1])
        homes = [known for known in elsewhere if known.rpartition(".")[2] == inside[-1]]
        hint = f"(did you mean {' or '.join(homes)}?)" if homes else ""
        where = ".".join(location[:-1]) or whole
        valid = owner.model_fields if owner and not homes else ()
        return UnknownName(f"key in {where}", shortened(inside[-1]), valid, hint)
    if detail["type"] == "missing":
        owner = _section(model, inside[:-1]) or model
        needed = [name for name, field in owner.model_fields.items() if field.is_required()]
        return UserError(f"{key} is missing; there is no default for {' and '.join(needed)}")
    if isinstance(detail["input"], Mapping | BaseModel) and _section(model, inside) and detail["type"] == "value_error":
        return UserError(f"{key}: {reason(detail)}")  # of a whole section, whose reason names the values
    return InvalidSetting(key, Shown(detail["input"]), reason(detail))


def reason(detail: Any) -> str:
    """What one of pydantic's findings says, in plain words."""
    kind, value = detail["type"], detail["input"]
    if kind == "literal_error":
        expected = str(detail["ctx"]["expected"])
        nearest = difflib.get_close_matches(str(value)[:LONGEST].lower(), re.findall(r"'([^']*)'", expected), n=1)
        return f"must be {expected}" + (f"; did you mean {nearest[0]!r}?" if nearest else "")
    if kind == "string_type" and value is not None and not isinstance(value, Mapping | list | tuple):
        return "must be text; put it in quotes"
    if kind in _REASONS:
        return _REASONS[kind].format(**{name: _number(limit) for name, limit in detail.get("ctx", {}).items()})
    message = str(detail["msg"]).partition("\n")[0].removeprefix("Value error, ").removeprefix("Assertion failed, ")
    return message[:1].lower() + message[1:]


def _number(limit: Any) -> Any:
    return int(limit) if isinstance(limit, float) and limit.is_integer() else limit


def plain_types(annotation: Any) -> Iterator[Any]:
    """The types that an annotation allows: `Annotated[int, …] | None` → int, NoneType."""
    if typing.get_origin(annotation) is typing.Annotated:
        yield from plain_types(typing.get_args(annotation)[0])
    elif typing.get_origin(annotation) in (typing.Union, types.UnionType):
        for part in typing.get_args(annotation):
            yield from plain_types(part)
    else:
        yield annotation


def section_of(annotation: Any) -> type[BaseModel] | None:
    """The section that an annotation allows, by itself or in a list; None without one."""
    for kind in plain_types(annotation):
        inner = typing.get_args(kind)[0] if typing.get_origin(kind) is tuple else kind
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            return inner
    return None


def _section(model: type[BaseModel], path: list[str]) -> type[BaseModel] | None:
    """The section at a path of field names and list indices."""
    found: type[BaseModel] | None = model
    for part in path:
        if found is not None and not part.isdecimal():  # an index stays at the field of its list
            field = found.model_fields.get(part)
            found = section_of(field.annotation) if field else None
    return found
