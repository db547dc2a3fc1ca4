"""A searched hyperparameter as an axis: every value of its range has a position from 0 to 1."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kdsearch.results.figures import number

if TYPE_CHECKING:
    from collections.abc import Mapping

OFF = 1 / 6
"""The stretch of an axis that stands for `off`, the 0 beside a range (`or_zero`)."""


@dataclass(frozen=True)
class Axis:
    """A range or a list of choices, as it was searched."""

    name: str
    low: float = 0.0
    high: float = 1.0
    log: bool = False
    off: bool = False
    """Whether 0 stands beside the range."""
    choices: tuple[Any, ...] = ()
    """Empty of a range."""

    def position(self, value: Any) -> float | None:
        """Where a value lies, from 0 to 1; None where it is not on the axis."""
        if self.choices:
            places = [place for place, choice in enumerate(self.choices) if _equal(choice, value)]
            return (places[0] + 0.5) / len(self.choices) if places else None
        if isinstance(value, bool) or not isinstance(value, int | float):
            return None
        if self.off and value == 0:
            return OFF / 2
        if not self.low <= value <= self.high:
            return None
        return self._start + (1 - self._start) * self._share(value)

    @property
    def _start(self) -> float:
        return OFF if self.off else 0.0

    def _share(self, value: float) -> float:
        if self.log:
            return math.log(value / self.low) / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)

    def segment(self, position: float) -> int:
        """Positions of different segments are no neighbours: each choice is one, and so is `off` beside a range."""
        if self.choices:
            return min(int(position * len(self.choices)), len(self.choices) - 1)
        return int(self.off and position < OFF)

    def cells(self, count: int) -> list[tuple[float, float]]:
        """The axis cut into stretches, about `count` of a range; one of each choice, and of `off`."""
        if self.choices:
            count, start, first = len(self.choices), 0.0, []
        else:
            start, first = self._start, [(0.0, OFF)] if self.off else []
        width = (1 - start) / count
        return first + [(start + place * width, start + (place + 1) * width) for place in range(count)]

    def ticks(self) -> list[tuple[float, str]]:
        """Positions that are labelled: every choice, or `off` and the ends of a range with round values between."""
        if self.choices:
            return [((place + 0.5) / len(self.choices), number(choice)) for place, choice in enumerate(self.choices)]
        middle = math.sqrt(self.low * self.high) if self.log else (self.low + self.high) / 2
        values = [self.low, middle, self.high]
        marks = [(self._start + (1 - self._start) * self._share(value), _short(value)) for value in values]
        return [(OFF / 2, "off"), *marks] if self.off else marks


def axis(name: str, entry: Mapping[str, Any]) -> Axis | None:
    """The axis of an entry of a space; None where it is no range and no list of choices."""
    choices = entry.get("choices")
    if isinstance(choices, list | tuple) and choices:
        return Axis(name, choices=tuple(choices))
    low, high, log = _finite(entry.get("low")), _finite(entry.get("high")), bool(entry.get("log"))
    if low is None or high is None or low >= high or (log and low <= 0):
        return None
    return Axis(name, low, high, log=log, off=bool(entry.get("or_zero")) and low > 0)


def _finite(value: Any) -> float | None:
    number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return float(value) if number else None


def _equal(choice: Any, value: Any) -> bool:
    """Whether they are one value; true is not 1."""
    return bool(choice == value) and isinstance(choice, bool) == isinstance(value, bool)


def _short(value: float) -> str:
    return f"{value:.2g}" if abs(value) < 100 else f"{value:.4g}"
