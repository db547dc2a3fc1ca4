"""Which hyperparameters there are, which are searched, and what a setting of them means.

A hyperparameter is a field of the method's `Hyperparameters`, or a searchable field of the training or
augmentation section. Their names are disjoint, so that a setting is one flat mapping `name → value`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ValidationError

from kdsearch.errors import InvalidSetting, UnknownName, UserError, shortened
from kdsearch.settings import AugmentationSettings, Choices, Range, Scalar, TrainingSettings, one_value
from kdsearch.wording import Shown, explained, plain_types, reason

if TYPE_CHECKING:
    from kdsearch.methods.base import Method

Dimension = Range | Choices
Section = Literal["method", "training", "augmentation"]

# The budget and the way of computing are the experiment's, not the trial's.
NOT_SEARCHABLE = {
    "epochs",
    "milestones",
    "precision",
    "channels_last",
    "compile",
    "averaging",
    "checkpoint_every",
    "checkpoint_seconds",
}


@dataclass(frozen=True)
class Hyperparameter:
    """One name that a space may contain."""

    name: str
    section: Section
    model: type[BaseModel]
    """The section's model, which knows the legal values."""

    @property
    def kinds(self) -> set[Any]:
        """The types of its values."""
        return set(plain_types(self.model.model_fields[self.name].annotation))

    @property
    def is_integer(self) -> bool:
        """Whether a range of it runs over whole numbers."""
        return int in self.kinds and float not in self.kinds

    @property
    def is_numeric(self) -> bool:
        return bool(self.kinds & {int, float})

    def value(self, value: Any, key: str) -> Any:
        """`value` in the hyperparameter's own type: YAML reads 1e-3 as text and 4 as a whole number.

        Raises InvalidSetting, naming `key`, when it is not legal. What depends on other hyperparameters is not seen.
        """
        if isinstance(value, bool) and self.is_numeric and bool not in self.kinds:
            raise InvalidSetting(key, value, "must be a number")
        try:
            return getattr(self.model(**{self.name: value}), self.name)
        except ValidationError as error:
            for detail in error.errors(include_url=False):
                if self.name in detail["loc"]:
                    raise InvalidSetting(key, Shown(value), reason(detail)) from None
            return value


def hyperparameters_of(method: type[Method]) -> dict[str, Hyperparameter]:
    """Every name that a space of this method may contain. Raises UserError for a method that breaks the rules."""
    known: dict[str, Hyperparameter] = {}
    for name in TrainingSettings.model_fields:
        if name not in NOT_SEARCHABLE:
            known[name] = Hyperparameter(name, "training", TrainingSettings)
    for name in AugmentationSettings.model_fields:
        known[name] = Hyperparameter(name, "augmentation", AugmentationSettings)
    for name, field in method.Hyperparameters.model_fields.items():
        where = f"hyperparameter {name!r} of method {method.name!r}"
        if name in known:
            raise UserError(f"{where} has the name of a setting of the {known[name].section} section; rename it")
        if name == "student":
            raise UserError(f"{where} has the name by which a setting names its student; rename it")
        if field.is_required():
            raise UserError(f"{where} needs a default: the paper's value")
        known[name] = Hyperparameter(name, "method", method.Hyperparameters)
    return known


def check_space(space: Mapping[str, Dimension | Scalar], method: type[Method]) -> dict[str, Dimension | Scalar]:
    """The space with each value in its hyperparameter's own type.

    Raises UnknownName or InvalidSetting when a name or a value of the space does not fit the method.
    """
    known = hyperparameters_of(method)
    checked: dict[str, Dimension | Scalar] = {}
    for name, entry in space.items():
        if name not in known:
            if name in NOT_SEARCHABLE:
                raise UserError(f"space.{name}: it is the same for all trials; set training.{name}")
            raise UnknownName(f"hyperparameter of method {method.name!r}", shortened(name), known)
        checked[name] = _checked(known[name], entry, f"space.{name}")
    return checked


def _checked(hyperparameter: Hyperparameter, entry: Dimension | Scalar, key: str) -> Dimension | Scalar:
    if isinstance(entry, Range):
        _check_range(hyperparameter, entry, key)
        return entry
    if not isinstance(entry, Choices):
        value: Scalar = hyperparameter.value(entry, key)
        return value
    try:
        return Choices(choices=tuple(hyperparameter.value(choice, key) for choice in entry.choices))
    except ValidationError as error:  # two choices that are one in the hyperparameter's type
        raise explained(error, Choices, key.split(".")) from None


def _check_range(hyperparameter: Hyperparameter, interval: Range, key: str) -> None:
    if not hyperparameter.is_numeric:
        raise UserError(f"{key} is no number: list its choices in place of a range")
    for end, value in (("low", interval.low), ("high", interval.high), ("step", interval.step)):
        if hyperparameter.is_integer and value is not None and not value.is_integer():
            raise InvalidSetting(f"{key}.{end}", value, "must be a whole number")
    kind = int if hyperparameter.is_integer else float
    hyperparameter.value(kind(interval.low), f"{key}.low")
    hyperparameter.value(kind(interval.high), f"{key}.high")
    if interval.or_zero:
        hyperparameter.value(kind(0), f"{key}.or_zero")


def points(entry: Dimension, hyperparameter: Hyperparameter) -> float:
    """How many values a dimension has; infinity for a range without steps."""
    if isinstance(entry, Choices):
        return len(entry.choices)
    step = entry.step or (1 if hyperparameter.is_integer else 0)
    inside = math.floor((entry.high - entry.low) / step + 1e-9) + 1 if step else math.inf
    return inside + entry.or_zero


def extreme(entry: Dimension, highest: bool) -> Scalar:
    """The largest or the smallest value of a dimension; the first of choices that are no numbers."""
    if isinstance(entry, Range):
        return entry.high if highest else min(entry.low, 0) if entry.or_zero else entry.low
    numbers = [choice for choice in entry.choices if isinstance(choice, int | float)]
    return (max if highest else min)(numbers) if numbers else entry.choices[0]


def read_entries(space: Mapping[str, Any]) -> dict[str, Dimension | Scalar]:
    """The entries of a space as a file has them. Raises InvalidSetting."""
    return {name: _entry(name, value) for name, value in space.items()}


def _entry(name: str, value: Any) -> Any:
    """One entry of a space: a range, choices or a constant."""
    if isinstance(value, Range | Choices):
        return value
    if not isinstance(value, Mapping):
        try:
            return one_value(value)
        except ValueError as error:
            why = str(error) if isinstance(value, Scalar) else "must be a range (low, high), choices or one value"
            raise InvalidSetting(f"space.{name}", Shown(value), why) from None
    kind = Choices if "choices" in value else Range
    if kind is Choices and len(value) > 1:
        raise InvalidSetting(f"space.{name}", Shown(value), "choices stand alone; what else is here belongs to a range")
    try:
        return kind.model_validate(value)
    except ValidationError as error:
        raise explained(error, kind, ("space", name)) from None
