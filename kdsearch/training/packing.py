"""How many trials share a GPU: the most whose memory fits and whose throughput still grows. No ray."""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from kdsearch.auto import AUTO, METHOD, gathered, own_name, spread
from kdsearch.errors import KDSearchError
from kdsearch.settings import Choices
from kdsearch.space import extreme

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from kdsearch.experiment import Experiment
    from kdsearch.settings import Scalar
    from kdsearch.training.probe import Described, Pace

FITS = 0.9
"""Share of a GPU's memory that its trials may take together."""
GROWTH = 0.05
"""By how much more copies must raise the steps per second of a GPU, at least, to be worth it."""
SECONDS = 3.0
"""The window in which steps are counted."""
GIB = 2**30


class CopyFailed(KDSearchError):
    """A copy of the probe raised something, or lost its process."""

    def __init__(self, reason: str, *, out_of_memory: bool) -> None:
        super().__init__(reason)
        self.out_of_memory = out_of_memory


class Crew(Protocol):
    """Copies of a trial on one GPU, each a `Probe` in a process of its own."""

    def each(self, what: str, *arguments: Any) -> list[Any]:
        """What this method of the Probe answers in each copy, called in all at once. Raises CopyFailed."""
        ...


Start = Callable[[int], AbstractContextManager[Crew]]
"""Starts a crew of so many copies, which end with the block."""


@dataclass(frozen=True)
class Limit:
    """How many copies there is a use for, whatever the GPU could hold."""

    copies: int
    why: str


@dataclass(frozen=True)
class Level:
    """So many copies at a time, and what was measured of them."""

    copies: int
    memory: int | None = None
    """Bytes that all of them took of the GPU at most, with their contexts and whatever else was there."""
    rate: float | None = None
    """Steps per second of all of them together."""
    failure: str | None = None
    """Why they could not be run."""


@dataclass(frozen=True)
class Packing:
    """How many trials share a GPU of one kind."""

    device: Described
    setting: Mapping[str, Scalar]
    """The most demanding setting, as far as its values differ between trials."""
    levels: tuple[Level, ...]
    copies: int
    """How many share it."""
    why: str
    """Why not more."""
    measured: float
    """When, in seconds since 1970."""


def share_of(copies: int) -> float:
    """The share of a GPU of each of so many, rounded down to the steps in which Ray counts."""
    return math.floor(10_000 / copies) / 10_000


def alternatives(experiment: Experiment, tries: Sequence[Mapping[str, Scalar]] = ()) -> dict[str, list[Scalar]]:
    """Of each hyperparameter in which trials differ, the values among which the most demanding is to be found.

    Of numbers that is the largest that a trial may have: the upper end of its range or choices, the paper's value, or
    that of a setting which is tried first. A larger number never costs less: batches grow, and weights above 0 turn
    terms on. What is no number (heads, kind of head, optimiser, true and false) has no such order, so all its values
    are named, the paper's first. Of several methods each has its own.
    """
    if experiment.method == AUTO:
        of_each: dict[str, list[Scalar]] = {METHOD: list(experiment.methods)}
        for method, own, own_tries in _each_method(experiment, tries):
            of_each |= {own_name(method, name): values for name, values in alternatives(own, own_tries).items()}
        return of_each
    known, dimensions, base = experiment.hyperparameters, experiment.dimensions, _base(experiment)
    found: dict[str, list[Scalar]] = {}
    for name in sorted({*dimensions, *(name for setting in tries for name in setting)}):
        values = [setting[name] for setting in (base, *tries) if setting.get(name) is not None]
        if name in dimensions:
            dimension = dimensions[name]
            values += dimension.choices if isinstance(dimension, Choices) else [extreme(dimension, highest=True)]
        unique = list(dict.fromkeys(known[name].value(value, name) for value in values))
        found[name] = [max(unique)] if all(_is_number(value) for value in unique) else unique
    return found


def _base(experiment: Experiment) -> dict[str, Any]:
    """What trial 0 has of every hyperparameter; None: left to the data set."""
    resolved = experiment.resolve(experiment.paper())
    return {
        **resolved.training.model_dump(),
        **resolved.augmentation.model_dump(),
        **resolved.method.model_dump(),
    }


def _is_number(value: Scalar) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def most_demanding(
    experiment: Experiment, tries: Sequence[Mapping[str, Scalar]], memory: Callable[[Mapping[str, Scalar]], int]
) -> dict[str, Scalar]:
    """The setting that takes the most memory of all that trials may have.

    Its numbers are the largest; what is no number is chosen by measuring, one hyperparameter after the other, and the
    one that takes the most stays. `memory` gives the bytes that a trial of a setting takes.
    """
    if experiment.method == AUTO:
        return _most_demanding_method(experiment, tries, memory)
    values = alternatives(experiment, tries)
    setting = _largest(experiment, values)
    for name, choices in values.items():
        if len(choices) > 1:
            taken = {choice: memory({**setting, name: choice}) for choice in choices}
            setting[name] = max(taken, key=lambda choice: taken[choice])
    return setting


def _most_demanding_method(
    experiment: Experiment, tries: Sequence[Mapping[str, Scalar]], memory: Callable[[Mapping[str, Scalar]], int]
) -> dict[str, Scalar]:
    """Of the most demanding settings of each method the one that takes the most memory."""

    def own_memory(method: str, setting: Mapping[str, Scalar]) -> int:
        return memory(spread(method, setting))

    found = [
        spread(method, most_demanding(own, own_tries, functools.partial(own_memory, method)))
        for method, own, own_tries in _each_method(experiment, tries)
    ]
    return max(found, key=memory)


def _each_method(
    experiment: Experiment, tries: Sequence[Mapping[str, Scalar]]
) -> list[tuple[str, Experiment, list[dict[str, Scalar]]]]:
    """Of several methods the experiment of each, and the settings of it that are tried, in its own names."""
    return [
        (name, experiment.of_method(name), [gathered(name, one) for one in tries if one.get(METHOD) == name])
        for name in experiment.methods
    ]


def _largest(experiment: Experiment, values: Mapping[str, Sequence[Scalar]]) -> dict[str, Scalar]:
    """The paper's setting with the largest numbers, of what is mixed as much as goes together."""
    setting = {**experiment.paper(), **{name: choices[0] for name, choices in values.items()}}
    cutmix, mixup = (float(setting.get(name, 0)) for name in ("cutmix", "mixup"))
    return {**setting, "mixup": 1 - cutmix} if cutmix + mixup > 1 else setting


def pack(
    start: Start,
    experiment: Experiment,
    tries: Sequence[Mapping[str, Scalar]],
    limit: Limit,
    *,
    known: Callable[[Described], Packing | None] = lambda device: None,
    told: Callable[[Level], None] = lambda level: None,
    seconds: float = SECONDS,
) -> Packing:
    """Train copies of the most demanding setting, 1, 2, 4, 8 … at a time, until memory or throughput is exhausted.

    Args:
        start: starts a crew of so many copies.
        experiment: whose trials are to share a GPU.
        tries: settings that are tried beside its space.
        limit: of copies that there is a use for.
        known: what an earlier measurement found on such a device.
        told: told of each level as it is measured.
        seconds: for which steps are counted.

    Raises CopyFailed when not even one can be trained.
    """
    with start(1) as crew:
        device: Described = crew.each("describe")[0]
        if (found := known(device)) is not None:
            return found
        setting = most_demanding(experiment, tries, lambda setting: int(crew.each("peak", dict(setting))[0]))
        best = _measured(crew, 1, setting, seconds)
    levels, total = [best], device.total_memory
    told(best)
    while True:
        copies, why = _next(levels, limit, total)
        if copies:
            levels.append(measured_level(start, copies, setting, seconds))
            told(levels[-1])
            why = _against(levels[-1], best, total)
        if why:
            shown = {name: setting[name] for name in alternatives(experiment, tries) if name in setting}
            return Packing(device, shown, tuple(levels), best.copies, why, time.time())
        best = levels[-1]


def _next(levels: Sequence[Level], limit: Limit, total: int) -> tuple[int, str]:
    """How many copies are tried after these; 0 and why when it is enough."""
    last = levels[-1]
    assert last.memory is not None
    if last.copies >= limit.copies:
        return 0, limit.why
    more = last.memory / last.copies
    if len(levels) > 1 and (before := levels[-2]).memory is not None:
        more = (last.memory - before.memory) / (last.copies - before.copies)
    room = last.copies + math.floor(max(0.0, FITS * total - last.memory) / max(more, 1.0))
    copies = min(2 * last.copies, room, limit.copies)
    if copies > last.copies:
        return copies, ""
    needed = last.memory + more
    return 0, f"{last.copies + 1} would take {needed / GIB:.1f} GiB of {total / GIB:.1f}"


def _against(level: Level, best: Level, total: int) -> str:
    """What speaks against this level; nothing when it is better than the best so far."""
    if level.failure is not None:
        return f"{level.copies} failed: {level.failure}"
    assert level.memory is not None
    assert level.rate is not None
    assert best.rate is not None
    if level.memory > FITS * total:
        return f"{level.copies} took {level.memory / GIB:.1f} GiB of {total / GIB:.1f}"
    if level.rate < (1 + GROWTH) * best.rate:
        return f"{level.copies} took {level.rate / best.rate - 1:+.0%} steps a second"
    return ""


def measured_level(start: Start, copies: int, setting: Mapping[str, Scalar], seconds: float) -> Level:
    """The level, measured, or with the reason why it cannot be."""
    try:
        with start(copies) as crew:
            return _measured(crew, copies, setting, seconds)
    except CopyFailed as failure:
        reason = "out of GPU memory" if failure.out_of_memory else str(failure)
        return Level(copies, failure=reason)


def _measured(crew: Crew, copies: int, setting: Mapping[str, Scalar], seconds: float) -> Level:
    crew.each("prepare", dict(setting))
    paces: list[Pace] = crew.each("run", seconds)
    tensors = [pace.memory for pace in paces]
    beside = max(memory.used for memory in tensors) - sum(memory.reserved for memory in tensors)
    rate = sum(pace.steps / pace.seconds for pace in paces)
    return Level(copies, memory=beside + sum(memory.peak for memory in tensors), rate=rate)
