"""The student as part of the space: `student: [resnet20, mobilenetv2_050, my.py:net]`.

A setting then names its student, `student: resnet20`, as the command line does: NAME, NAME:pretrained or NAME:FILE.
The section `student` is the first of them; its stem and input size are those of all.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import BaseModel

from kdsearch.anchoring import anchored_network
from kdsearch.auto import AUTO
from kdsearch.errors import InvalidSetting, UserError
from kdsearch.models.names import parse_network
from kdsearch.settings import Choices, NetworkSettings
from kdsearch.space import Hyperparameter
from kdsearch.spaces import shipped_space
from kdsearch.wording import Shown

if TYPE_CHECKING:
    from kdsearch.search_settings import SearchSettings

STUDENT = "student"
"""The hyperparameter that names the student."""

Value = TypeVar("Value")


class Choice(BaseModel):
    """The section that holds the name of the student."""

    student: str


HYPERPARAMETER = Hyperparameter(STUDENT, "method", Choice)


def listed(section: Any) -> list[Any] | None:
    """The names in a section that lists several, `[a, b]` or `{name: [a, b], stem: small}`; None for any other."""
    names = section.get("name") if isinstance(section, Mapping) else section
    return list(names) if isinstance(names, list | tuple) else None


def unfolded(sections: Mapping[str, Any]) -> dict[str, Any]:
    """The sections of an experiment, a list of students turned into the first of them and choices of the space.

    Raises InvalidSetting for a list that is none of names, or of networks with weights and arguments of their own.
    """
    names = listed(sections.get(STUDENT))
    if names is None:
        return dict(sections)
    if not names or not all(isinstance(name, str) and name.strip() for name in names):
        raise InvalidSetting(STUDENT, Shown(names), "list names of networks, [resnet20, my.py:net]")
    section = sections[STUDENT]
    common = {key: value for key, value in section.items() if value} if isinstance(section, Mapping) else {}
    for key in ("weights", "arguments"):
        if key in common:
            raise InvalidSetting(f"student.{key}", Shown(common[key]), _apart(key))
    unfolded = {**sections, STUDENT: {**common, **parse_network(names[0])}}
    if len(names) == 1 or "method" not in sections:  # without a method nothing is right yet
        return unfolded
    space = sections.get("space")
    if space is None:  # several methods refuse several students, whatever the space
        space = {} if sections["method"] == AUTO else shipped_space(str(sections["method"]))
    if not isinstance(space, Mapping):
        return unfolded
    if STUDENT in space:
        raise InvalidSetting("space.student", Shown(space[STUDENT]), "the section student lists them already")
    return {**unfolded, "space": {STUDENT: {"choices": names}, **space}}


def first_of(entry: Any, given: NetworkSettings | None) -> NetworkSettings:
    """The first student of a space's entry, as a section; `given` is that section where there is one.

    Raises InvalidSetting for an entry that is no choice, for students that cannot be told apart by their names, and
    for a section that is another network.
    """
    if not isinstance(entry, Choices):
        raise InvalidSetting("space.student", Shown(entry), "is no choice: name one network in the section student")
    names = [str(choice) for choice in entry.choices]
    labels = [label(name) for name in names]
    for place, (name, shown) in enumerate(zip(names, labels, strict=True)):
        if not shown or shown in labels[:place]:
            raise InvalidSetting("space.student", name, "students are told apart by their names; give it another one")
    if given is not None and given.arguments:
        raise InvalidSetting("student.arguments", dict(given.arguments), _apart("arguments"))
    first = network(given or NetworkSettings(), names[0])
    if given is not None and given != first:
        why = f"stands first, and the section student is {text_of(given)!r}: name it first, or leave the section out"
        raise InvalidSetting("space.student", names[0], why)
    return first


def _apart(key: str) -> str:
    if key == "weights":
        return "several students have weights of their own: write NAME:pretrained or NAME:FILE in the list"
    return "is of one network: with several students write a function of your own for each, my_net.py:build"


def network(common: NetworkSettings, name: str) -> NetworkSettings:
    """The student of this name, with what is common to all."""
    return NetworkSettings(**{**common.model_dump(), "weights": None, "arguments": {}, **parse_network(name)})


def text_of(network: NetworkSettings) -> str:
    """A network as the command line names it."""
    return network.name if network.weights is None else f"{network.name}:{network.weights}"


def text_in(section: Any) -> str:
    """The network of a file's section as the command line names it."""
    parts = section if isinstance(section, Mapping) else {"name": section}
    name, weights = parts.get("name"), parts.get("weights")
    return f"{name}:{weights}" if weights else str(name)


def label(name: str) -> str:
    """A student's name for people and for other machines: without the folders of its files."""
    parts = parse_network(name)
    shown = [_last_part(parts["name"])] + ([_last_part(parts["weights"])] if "weights" in parts else [])
    return ":".join(shown)


def _last_part(place: str) -> str:
    return Path(place).name if place.startswith(("/", "~")) or ".py:" in place else place


def anchored(name: str) -> str:
    """The name with absolute paths."""
    return text_of(anchored_network(network(NetworkSettings(), name)))


def in_setting(setting: Mapping[str, Any]) -> dict[str, Any]:
    """A setting whose student, if it names one, has absolute paths."""
    return {name: anchored(str(value)) if name == STUDENT else value for name, value in setting.items()}


def chosen(names: Sequence[str], name: object) -> str:
    """The one of these students that a setting names, with or without its folder; None stands for the first.

    Raises InvalidSetting where it is none of them.
    """
    if name is None:
        return names[0]
    for each in names:
        if name in (each, label(each)) or anchored(each) == anchored(str(name)):
            return each
    raise InvalidSetting(STUDENT, Shown(name), f"is none of the students here: {', '.join(names)}")


def without(setting: Mapping[str, Value]) -> dict[str, Value]:
    """A setting, or a space, apart from its student."""
    return {name: value for name, value in setting.items() if name != STUDENT}


def names_in(content: Mapping[str, Any]) -> list[str]:
    """Every student that the sections of an experiment's file name beside the section `student` of one network."""
    space = content.get("space")
    entry = space.get(STUDENT) if isinstance(space, Mapping) else None
    choices = entry.get("choices") if isinstance(entry, Mapping) else None
    found = [*(listed(content.get(STUDENT)) or ()), *(choices if isinstance(choices, list | tuple) else ())]
    return [name for name in found if isinstance(name, str)]


def place_of(content: Mapping[str, Any], built: object) -> str | None:
    """Where the experiment of a run says that the network lies which an export calls `built`; None: not among them."""
    places = [parse_network(name)["name"] for name in names_in(content)]
    return next((place for place in places if label(place) == built), None)


def refuse_several(students: Sequence[str], search: SearchSettings, what: str, *, limits: bool = True) -> None:
    """Raise UserError where an experiment has several students, which `what` does not serve, or limits to them."""
    if students:
        why = f"{what} has one student; only a search chooses among several"
        raise InvalidSetting(STUDENT, ", ".join(students), why)
    for key in ("max_parameters", "max_latency") if limits else ():
        if getattr(search, key) is not None:
            raise InvalidSetting(f"search.{key}", getattr(search, key), f"limits are for a search, not for {what}")


def setting_of(student: NetworkSettings, setting: Mapping[str, Value]) -> dict[str, Value]:
    """A setting apart from its student. Raises InvalidSetting where that is another than this one."""
    chosen([text_of(student)], setting.get(STUDENT))
    return without(setting)


def naming(name: str, error: UserError) -> UserError:
    """The error of one of several students, with its name."""
    return UserError(f"student {label(name)!r}: {error}")


def listed_names(text: str) -> list[str]:
    """The names in `a,b,c`. Raises InvalidSetting for an empty one."""
    names = [name.strip() for name in text.split(",")]
    if not all(names):
        why = "write names of networks with commas between them, such as resnet20,resnet8"
        raise InvalidSetting("--student", text, why)
    return names


def typed(values: Iterable[object]) -> list[str]:
    """The names among values that a person has typed, in lists and before weights too."""
    texts = [text for value in values for text in (value if isinstance(value, list) else [value])]
    return [name for text in texts if isinstance(text, str) for name in (text, parse_network(text)["name"])]


def joined(names: Iterable[str]) -> str:
    """Several students as one name: `resnet20, net.py:small`."""
    return ", ".join(label(name) for name in names)
