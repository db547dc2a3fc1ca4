"""Whose code is run. The rule: a function that a file names is called only when the command line names that function
too, or says `--allow-code`.

A space, a run or an export that came from someone else may name `evil.py:build`, or any function of any installed
package with arguments of its choice. What is typed is the person's own wish. The same holds for a Ray cluster at an
address, with which programs are exchanged.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, TypeGuard

from kdsearch.errors import BadWeights, UserError
from kdsearch.models.exported import read_student
from kdsearch.models.names import SMP, TORCHVISION, parse_network
from kdsearch.students import names_in
from kdsearch.wording import Shown

_LIBRARIES = (TORCHVISION, SMP)
_HERE = ("auto", "local")


def is_code(name: Any) -> TypeGuard[str]:
    """Whether a name is a function of a file or a module, which has to be run, and not a network of a library."""
    return isinstance(name, str) and ":" in name and not name.startswith(_LIBRARIES)


def refuse_code(content: Mapping[str, Any], source: str, named: Collection[object] = ()) -> None:
    """Raise UserError where the sections of an experiment, or the generations of a chain, would run code that is not
    among those `named`.

    Args:
        content: the file as it was read, before anything of it is looked up.
        source: where it was read, for the sentence.
        named: what the person has typed.
    """
    for key, name in _code(content):
        if name not in named:
            what = "a cluster that would run programs" if key == "resources.address" else "code that would be run"
            raise UserError(
                f"{Shown(source)} names {what}: {key} = {Shown(name)!r}; read it, and if you trust it say --allow-code"
            )


def names_code(content: Mapping[str, Any]) -> bool:
    """Whether the sections of an experiment, or the generations of a chain, name any such code."""
    return any(True for _ in _code(content))


def code_of(content: Mapping[str, Any]) -> list[str]:
    """The names of all such code."""
    return [name for _, name in _code(content)]


def _code(content: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Key and name of everything that would be run."""
    yield from _code_of_sections(content)
    generations = content.get("generations")
    for place, generation in enumerate(generations if isinstance(generations, Sequence) else ()):
        if isinstance(generation, Mapping):
            key, weights = f"generations.{place}", generation.get("weights")
            yield from ((f"{key}.{inner}", name) for inner, name in _code_of_sections(generation))
            built = _name_in_export(weights) if isinstance(weights, str) else None
            if generation.get("student") is None and is_code(built):
                yield f"{key}.weights = {weights}, whose network", built


def _code_of_sections(content: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    method = content.get("method")
    if is_code(method):
        yield "method", method
    named = [(role, _name(content.get(role))) for role in ("data", "student", "teacher")]
    named += [("student", parse_network(name)["name"]) for name in names_in(content)]
    for role, name in dict.fromkeys(pair for pair in named if isinstance(pair[1], str)):
        if is_code(name):
            yield f"{role}.name", name
        elif role != "data" and isinstance(name, str) and "/" in name:
            built = _name_in_export(name)
            if is_code(built):
                yield f"{role}.name = {name}, whose network", built
    resources = content.get("resources")
    address = resources.get("address") if isinstance(resources, Mapping) else None
    if isinstance(address, str) and address not in _HERE:
        yield "resources.address", address


def _name(section: Any) -> Any:
    return section.get("name") if isinstance(section, Mapping) else section


def _name_in_export(folder: str) -> Any:
    try:
        return read_student(folder).get("name")
    except BadWeights:  # told when it is looked up
        return None
