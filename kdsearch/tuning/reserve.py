"""What a search keeps of its budget for the confirmation that follows it."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from kdsearch import methods
from kdsearch.errors import InvalidSetting
from kdsearch.tuning.agenda import Agenda

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from kdsearch.data.base import DataSet
    from kdsearch.experiment import Experiment
    from kdsearch.results.packing import KindDocument, PackingDocument
    from kdsearch.search_settings import SearchSettings
    from kdsearch.settings import Scalar
    from kdsearch.training.trainer import Trainer

LIMITS = {"time": "s", "gpu_hours": "gpuh", "images": "img", "training_time": "s"}
"""The limits of a search that a confirmation takes its part of, and how `--budget` writes them."""

MEASURED = frozenset({"time", "gpu_hours", "training_time"})
"""Those of them that have to be estimated, from the seconds of an epoch."""


@dataclass(frozen=True)
class Trainings:
    """How many trainings at full budget there are at most."""

    first: int
    """Of the search: the published settings and the control, which run to the end whatever comes of them."""
    deciding: int
    """Of the confirmation: on the seeds that decide among the best settings."""
    reporting: int
    """Of the confirmation: on the seeds that report winner, paper's setting and control."""


@dataclass(frozen=True)
class Epoch:
    """What an epoch costs."""

    images: int
    """That the student sees, at most."""
    seconds: float
    """Estimated; 0 where no limit asks for them."""


@dataclass(frozen=True)
class Reserve:
    """What a confirmation takes of each limit of a budget, at most, and what the first trials of its search take."""

    trainings: Trainings
    parts: Mapping[str, float]
    """By the limit's name: what the confirmation takes of it; `images` as they are counted, the others estimated."""
    first: Mapping[str, float]
    """By the limit's name: what the search cannot do without."""

    def of(self, search: SearchSettings) -> dict[str, float]:
        """What is kept of those limits that the search has."""
        return {name: part for name, part in self.parts.items() if getattr(search, name) is not None}

    def check(self, search: SearchSettings) -> None:
        """Raise InvalidSetting, with the least that would do, for a limit that leaves too little to the search."""
        for name, part in self.of(search).items():
            limit, least = getattr(search, name), part + self.first[name]
            if limit < least:
                count = self.trainings.deciding + self.trainings.reporting
                about = "an estimated " if name in MEASURED else ""
                why = (
                    f"the {count} trainings of the confirmation take {about}{written(name, part)} of it, and what is "
                    f"left does not pay for the paper's setting and the control: give at least {written(name, least)}, "
                    "or fewer --confirm-top, --confirm-seeds or --max-epochs"
                )
                raise InvalidSetting("--budget", written(name, limit), why)


def written(limit: str, amount: float) -> str:
    """An amount of a limit as `--budget` takes it, rounded up: `90s`, `1.25gpuh`, `2000000img`."""
    if limit == "gpu_hours":
        return f"{math.ceil(amount * 1000) / 1000:g}gpuh"
    return f"{math.ceil(amount)}{LIMITS[limit]}"


def within(search: SearchSettings, reserve: Mapping[str, float]) -> SearchSettings:
    """The limits of the search itself, without what is kept for the confirmation."""
    left = {name: getattr(search, name) - part for name, part in reserve.items() if getattr(search, name) is not None}
    return search.model_copy(update=left)


def trainings(experiment: Experiment, tries: Sequence[Mapping[str, Scalar]] = ()) -> Trainings:
    """What the search of this experiment and its confirmation train to the full budget, at most.

    Fewer it is where fewer settings get that far, or where the paper's setting wins.
    """
    confirm = experiment.search.confirm
    assert confirm is not None
    agenda = Agenda(experiment, tries)
    roles = [role for role, _ in agenda.planned[: agenda.trials]]
    control, papers = roles.count("control"), roles.count("paper")
    settings = agenda.trials - control
    candidates = min(confirm.top, settings)
    reported = min(2, settings) + control  # winner and paper's setting
    return Trainings(
        first=papers + control,
        deciding=candidates * confirm.seeds if candidates > 1 else 0,
        reporting=reported * confirm.seeds,
    )


def reserve(
    experiment: Experiment,
    tries: Sequence[Mapping[str, Scalar]],
    epoch: Epoch,
    *,
    slots: int,
    gpus: float,
) -> Reserve:
    """The reserve for the confirmation of this experiment.

    Args:
        experiment: with `search.confirm`.
        tries: settings that its search tries first.
        epoch: what one costs.
        slots: trainings at a time.
        gpus: of each.
    """
    count, epochs = trainings(experiment, tries), experiment.training.epochs
    seconds = epoch.seconds * epochs
    each: dict[str, float] = {
        "images": epoch.images * epochs,
        "training_time": seconds,
        "gpu_hours": seconds * gpus / 3600,
    }
    stages = _rounds(count.deciding, slots) + _rounds(count.reporting, slots)
    parts = {name: cost * (count.deciding + count.reporting) for name, cost in each.items()}
    # What a trial of the search takes, where a training of the confirmation is 1.
    trial = experiment.search.trial_epochs(epochs) / epochs
    first = {name: cost * trial * count.first for name, cost in each.items()}
    return Reserve(
        trainings=count,
        parts=parts | {"time": stages * seconds},
        first=first | {"time": _rounds(count.first, slots) * trial * seconds},
    )


def _rounds(count: int, slots: int) -> int:
    """How often all slots are taken by so many trainings, of which the last may leave some empty."""
    return math.ceil(count / slots)


def cost_of_an_epoch(experiment: Experiment, trainer: Trainer, data: DataSet) -> Epoch:
    """What an epoch of this experiment costs; `trainer` is that of the paper's setting, on its data.

    Seconds are measured over a few steps on this machine, and only where a limit of the search asks for them.
    """
    asked = any(getattr(experiment.search, name) is not None for name in MEASURED)
    return Epoch(images_of_an_epoch(experiment, trainer), _seconds(experiment, data) if asked else 0.0)


def images_of_an_epoch(experiment: Experiment, trainer: Trainer) -> int:
    """Images that a student sees in an epoch, at most; just that many where no setting has its own batch size.

    Of another batch size the last, incomplete batch that is left out is another. Of several methods, that which looks
    most often counts.
    """
    forwards = max(methods.find(name).forwards for name in experiment.methods)
    steps, batch = trainer.batches.steps, trainer.batches.batch_size
    if "batch_size" in experiment.dimensions or len(experiment.methods) > 1:
        return round(((steps + 1) * batch - 1) * forwards)
    return round(steps * batch * forwards)


def sharing(epoch: Epoch, packing: PackingDocument) -> Epoch:
    """What an epoch costs where as many share a GPU as were found to be worth it: it takes longer than alone."""
    return replace(epoch, seconds=epoch.seconds * max(map(_slowdown, packing["kinds"]), default=1.0))


def _slowdown(kind: KindDocument) -> float:
    """How many times longer a step takes beside its neighbours; 1 where that was not measured."""
    rates = {level["copies"]: level["rate"] for level in kind["levels"]}
    alone, together = rates.get(1), rates.get(kind["copies"])
    return kind["copies"] * alone / together if alone and together else 1.0


def _seconds(experiment: Experiment, data: DataSet) -> float:
    """Seconds of an epoch of the paper's setting, with as many threads as a training on the pool has."""
    import torch

    from kdsearch.training.rehearsal import measure
    from kdsearch.training.teacher import load_teacher

    teacher = load_teacher(experiment, data) if experiment.needs_teacher else None
    before = torch.get_num_threads()
    torch.set_num_threads(max(1, int(experiment.resources.cpus_per_trial)))
    try:
        return measure(experiment, data, teacher).seconds_per_epoch
    finally:
        torch.set_num_threads(before)
