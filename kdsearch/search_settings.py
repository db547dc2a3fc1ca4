"""The sections of an experiment that say how it is searched: what is tried, and on what machines; no torch, no ray."""

from __future__ import annotations

import math
from itertools import accumulate
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from kdsearch.settings import Positive, Settings


class Phase(Settings):
    """A part of the search in which only some hyperparameters vary; the others keep the best found so far."""

    trials: Annotated[int, Field(ge=1)]
    search: Annotated[tuple[str, ...], Field(min_length=1)]


class ConfirmSettings(Settings):
    """What a search confirms by itself once it has ended, out of its budget; see `kdsearch confirm`."""

    top: Annotated[int, Field(ge=1)] = 3
    """Best settings that are trained again."""
    seeds: Annotated[int, Field(ge=2)] = 5
    """Fresh seeds that decide among them; as many others report."""


LATER_KEYS = ("confirm", "restarts", "random_fraction")
"""Keys of the search that came after runs had been begun without them."""


class SearchSettings(Settings):
    """What is tried, what is stopped, and when the search ends."""

    trials: Annotated[int, Field(ge=1)] = 32
    time: Positive | None = None
    """Wall time in seconds after which the search ends."""
    gpu_hours: Positive | None = None
    images: Annotated[int, Field(ge=1)] | None = None
    """Images seen after which the search ends: those that went through a student in training, over all trials. Each
    counts as often as the method's `forwards` says, whatever its weights: a pass without gradient a third. Validation,
    a teacher's passes and what a lost process had done since its last report do not count."""
    training_time: Positive | None = None
    """Seconds of epochs, summed over all trials, after which the search ends: training with the teacher's passes, and
    validation. Unlike `time` it stands still while nothing is trained, and goes on counting in a resumed search."""
    sampler: Literal["tpe", "random", "grid", "gp", "cmaes", "qmc"] = "tpe"
    random_fraction: Annotated[float, Field(ge=0, le=1)] = 0.25
    """Share of the settings that are drawn at random where the sampler learns from trials (tpe, gp, cmaes), so that it
    cannot stay where it was lucky (BOHB, Falkner et al. 2018, section 3.2, draws a third)."""
    scheduler: Literal["asha", "hyperband", "median", "none"] = "asha"
    grace_period: Annotated[int, Field(ge=1)] = 3
    """Epochs of the first rung."""
    reduction_factor: Annotated[int, Field(ge=2)] = 3
    restarts: bool = False
    """A trial begins anew at each rung, with a schedule of that length, so that rungs compare ends of schedules. The
    epochs of all its trainings count: 3, 9 and 27 make 39. A rung of more than 1/η of the full budget lies within the
    full training: it would cost more than it saves. Only with scheduler asha; the others have no such rungs."""
    phases: tuple[Phase, ...] = ()
    keep: Annotated[int, Field(ge=1)] = 1
    """Number of trials whose best weights stay on disk when the search ends."""
    max_parameters: Annotated[int, Field(ge=1)] | None = None
    """Parameters that a student may have: one with more is left out before the first trial."""
    max_latency: Positive | None = None
    """Seconds that a student may take for one image: the median of forward passes in eval mode on one thread of the
    CPU of the machine where the search is started. A slower one is left out before the first trial."""
    study: str | None = None
    """URL of a database that mirrors the study (the run's own study.journal is always written)."""
    confirm: ConfirmSettings | None = None
    """What is confirmed at the end; a part of the limits above is kept for it. None: nothing."""

    @model_serializer(mode="wrap")
    def _without_what_is_not_asked(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """A key of LATER_KEYS that has its default is not written: such a search reads as it did before there was the
        key, and chains and comparisons that were begun then go on."""
        content: dict[str, Any] = handler(self)
        defaults = {name: type(self).model_fields[name].default for name in LATER_KEYS}
        unasked = {name for name, default in defaults.items() if getattr(self, name) == default}
        return {key: value for key, value in content.items() if key not in unasked}

    def stages(self, epochs: int) -> list[int]:
        """The epochs of the trainings that a trial consists of, under a full budget of so many: that one alone, or
        first those of the rungs at which it begins anew."""
        anew = self.restarts and self.scheduler == "asha"
        shorter = [rung for rung in self._reached(epochs) if anew and rung * self.reduction_factor <= epochs]
        return [*shorter, epochs]

    def trial_epochs(self, epochs: int) -> int:
        """The epochs of a trial that is not stopped, under a full budget of so many."""
        return sum(self.stages(epochs))

    def rungs(self, epochs: int) -> list[int]:
        """The epochs of a trial at which successive halving compares, below the end of a full budget of so many:
        grace, grace·η, grace·η², …; after the epochs of those trainings that it has ended before."""
        shorter = self.stages(epochs)[:-1]
        within = self._reached(epochs)[len(shorter) :]
        return [*accumulate(shorter), *(sum(shorter) + rung for rung in within)]

    def _reached(self, epochs: int) -> list[int]:
        found, rung = [], self.grace_period
        while rung < epochs:
            found.append(rung)
            rung *= self.reduction_factor
        return found


def _number_or_auto(value: Any) -> Any:
    if value is None or value == "auto":
        return value
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise ValueError("must be a number, or auto") from None
    except OverflowError:
        raise ValueError("is too large") from None
    if not math.isfinite(number) or number < 0:
        raise ValueError("must be a number of at least 0, or auto")
    return number


class ResourceSettings(Settings):
    """What one trial takes of the pool."""

    cpus_per_trial: Annotated[float, Field(gt=0)] = 1
    gpus_per_trial: Annotated[float | Literal["auto"] | None, BeforeValidator(_number_or_auto)] = None
    """None: one where the pool has GPUs, else 0. Below 1 a share of a GPU; auto: the smallest that is worth it, found
    by measuring before the first trial."""
    max_concurrent: Annotated[int, Field(ge=1)] | None = None
    """Most trials at a time; None: as many as fit."""
    max_gpus: Annotated[int, Field(ge=1)] | None = None
    """Most GPUs that all trials together hold at a time, as the sum of their shares; None: all."""
    max_failures: Annotated[int, Field(ge=0)] = 3
    """How often a trial may lose its process or node, and how often it may fail by itself for different reasons."""
    address: str | None = None
    """Ray cluster to join; None: a local one for this run."""

    @property
    def gpus(self) -> float:
        """GPUs of a trial as they are known by now: 0 where it is still to be found out how many."""
        return self.gpus_per_trial if isinstance(self.gpus_per_trial, int | float) else 0.0

    @model_validator(mode="after")
    def _whole_above_one(self) -> ResourceSettings:
        gpus = self.gpus
        if gpus > 1 and gpus != int(gpus):
            raise ValueError(f"gpus_per_trial = {gpus:g}: above 1 it must be a whole number")
        return self

    @model_validator(mode="after")
    def _a_trial_fits_the_cap(self) -> ResourceSettings:
        if isinstance(self.gpus_per_trial, float) and self.max_gpus and self.gpus_per_trial > self.max_gpus:
            raise ValueError(f"gpus_per_trial = {self.gpus_per_trial:g} is more than max_gpus = {self.max_gpus}")
        return self
