"""The method as part of the space: `method: auto`.

A setting then names its method, `method: kd`; what methods share (training, augmentation) stands under its own name,
what is a method's own under METHOD/NAME, and only those of the method that is named are there.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import BaseModel

from kdsearch import methods, tasks
from kdsearch.errors import InvalidSetting, UnknownName, shortened
from kdsearch.space import Hyperparameter, hyperparameters_of
from kdsearch.spaces import shipped_space

AUTO = "auto"
METHOD = "method"
"""The hyperparameter that names the method."""

SAMPLERS = ("tpe", "random")
"""Those that take a space with conditions."""
SAMPLERS_IN_WORDS = "tpe or random"

Value = TypeVar("Value")


class Choice(BaseModel):
    """The section that holds the name of the method."""

    method: str


def own_name(method: str, name: str) -> str:
    """How a space of several methods calls a hyperparameter of one: shared ones keep their names."""
    shared = hyperparameters_of(methods.find(method))[name].section != "method"
    return name if shared else f"{method}/{name}"


def spread(method: str, setting: Mapping[str, Value]) -> dict[str, Any]:
    """A setting of one method as one of a space of several."""
    return {METHOD: method, **{own_name(method, name): value for name, value in setting.items()}}


def gathered(method: str, setting: Mapping[str, Value]) -> dict[str, Value]:
    """What a setting, or a space, of several methods means for this one."""
    return {
        name.removeprefix(f"{method}/"): value
        for name, value in setting.items()
        if name != METHOD and applies(name, method)
    }


def applies(name: str, method: Any) -> bool:
    """Whether a hyperparameter of the space is there in settings of this method."""
    prefix, slash, _ = name.partition("/")
    return not slash or prefix == method


def known_of(choices: tuple[str, ...]) -> dict[str, Hyperparameter]:
    """Every name that a space of these methods may contain."""
    known = {METHOD: Hyperparameter(METHOD, "method", Choice)}
    for method in choices:
        known |= {own_name(method, name): found for name, found in hyperparameters_of(methods.find(method)).items()}
    return known


def methods_of(space: Mapping[str, Any]) -> tuple[str, ...]:
    """The methods that a space chooses among. Raises InvalidSetting where it does not say."""
    entry = space.get(METHOD)
    choices = entry.get("choices") if isinstance(entry, Mapping) else getattr(entry, "choices", None)
    if not isinstance(choices, list | tuple) or len(choices) < 2:
        raise InvalidSetting("space.method", entry, "list the methods to choose among: choices: [ce, kd]")
    for name in choices:
        if ":" in str(name):
            raise InvalidSetting("space.method", name, "has no name; make it an entry point, or search it alone")
        methods.find(str(name))
    return tuple(str(name) for name in choices)


def check_names(space: Mapping[str, Any], choices: tuple[str, ...]) -> None:
    """Raise UnknownName for a name that is of none of these methods; that of a method left out is passed over."""
    known, left_out = known_of(choices), set(methods.names()) - set(choices)
    for name in space:
        if name not in known and name.partition("/")[0] not in left_out:
            raise UnknownName("hyperparameter of method 'auto'", shortened(name), known)


def shipped(task: str, choices: tuple[str, ...] = ()) -> dict[str, Any]:
    """The space of these methods (none: of all of the task), made of those that ship with them.

    What they share is searched wherever one of them searches it. Raises UnknownName for a task that there is not.
    """
    tasks.find(task)
    fitting = choices or tuple(name for name in methods.names() if task in methods.find(name).tasks)
    space: dict[str, Any] = {METHOD: {"choices": list(fitting)}}
    for method in fitting:
        for name, entry in shipped_space(method).items():
            key = own_name(method, name)
            space[key] = _hull(space[key], entry) if key in space else entry
    return space


def _hull(entry: Any, other: Any) -> Any:
    """A range that holds both; where one of them is none, the first."""
    if not all(isinstance(each, Mapping) and "low" in each for each in (entry, other)):
        return entry
    return {**entry, "low": min(entry["low"], other["low"]), "high": max(entry["high"], other["high"])}
