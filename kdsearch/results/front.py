"""The front of accuracy, size and latency: what nothing else is better than in one without being worse in another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Point:
    """A student by what it reaches and what it costs."""

    value: float | None
    """Of the metric; None: not known, so that nothing can be said of it."""
    parameters: int
    latency: float
    """Seconds for one image."""


def on_front(points: Sequence[Point], mode: str) -> list[bool]:
    """Of each point whether it is on the Pareto front: it has a value, and no other dominates it.

    A point dominates another when it is at least as good in value (`max` or `min` is better), parameters and latency,
    and better in one of them: of points that are equal in all three each is on the front.
    """
    costs = [_costs(point, mode) for point in points]
    return [own is not None and not any(_dominates(other, own) for other in costs) for own in costs]


def _costs(point: Point, mode: str) -> tuple[float, float, float] | None:
    """Three figures of which less is better; None where the value is not known."""
    if point.value is None:
        return None
    return (-point.value if mode == "max" else point.value), point.parameters, point.latency


def _dominates(other: tuple[float, float, float] | None, own: tuple[float, float, float]) -> bool:
    return other is not None and other != own and all(theirs <= mine for theirs, mine in zip(other, own, strict=True))
