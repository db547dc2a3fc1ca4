"""`--dry-run`: what a search would take, from a few real steps. Writes nothing."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from kdsearch.cli.output import duration, say
from kdsearch.results.progress import LIMITS, amount_in_words
from kdsearch.results.students import milliseconds

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from kdsearch.data.base import DataSet
    from kdsearch.experiment import Experiment
    from kdsearch.results.packing import PackingDocument
    from kdsearch.results.students import MeasuredStudent
    from kdsearch.settings import Scalar
    from kdsearch.training.rehearsal import Rehearsal
    from kdsearch.tuning.reserve import Reserve


@dataclass(frozen=True)
class Estimate:
    """What a search would take."""

    rehearsal: Rehearsal
    slots: int
    epochs_low: int
    """Epochs when every rung stops as many trials as it can."""
    epochs_high: int
    """Epochs when no trial is stopped."""
    disk_bytes: int
    gpus_per_trial: float
    packing: PackingDocument | None = None
    """How many trials share a GPU, where they do or it was asked."""
    reserve: Reserve | None = None
    """What a confirmation will take, where one was asked for."""
    students: tuple[MeasuredStudent, ...] = ()
    """What each costs, where there are several or limits."""

    def seconds(self, epochs: int) -> float:
        return epochs * self.rehearsal.seconds_per_epoch / self.slots


def estimate(
    experiment: Experiment, storage: Path | None = None, tries: Sequence[Mapping[str, Scalar]] = ()
) -> Estimate:
    """Check everything that a search checks, train a few steps, and extrapolate.

    `tries` are settings that it begins with. How trials share a GPU is taken from what earlier searches measured in
    this storage, or measured now.
    """
    from kdsearch import data as data_sets
    from kdsearch.training.limits import within_limits
    from kdsearch.training.rehearsal import measure, rehearse
    from kdsearch.training.teacher import load_teacher
    from kdsearch.tuning.pool import gpus_per_trial, pool, shares, slots
    from kdsearch.tuning.reserve import cost_of_an_epoch, reserve, sharing

    resources = experiment.resources
    with pool(resources) as wait_for_ray:
        data = data_sets.load(experiment.data, experiment.task)
        experiment, students = within_limits(experiment, data, lambda sentence: None)
        trainer = rehearse(experiment, data)
        teacher = load_teacher(experiment, data) if experiment.needs_teacher else None
        wait_for_ray()
        gpus, packing = gpus_per_trial(resources), None
        if shares(resources):
            packing = _packing(experiment, data, storage)
            gpus = packing["gpus_per_trial"]
        measured = measure(experiment, data, teacher)
        room = slots(resources.cpus_per_trial, gpus, resources.max_concurrent, resources.max_gpus)
    kept = None
    if experiment.search.confirm is not None:
        epoch = cost_of_an_epoch(experiment, trainer, data)
        if not epoch.seconds:  # no limit asks for them, but the person does
            epoch = replace(epoch, seconds=measured.seconds_per_epoch)
        epoch = epoch if packing is None else sharing(epoch, packing)
        kept = reserve(experiment, tries, epoch, slots=room, gpus=gpus)
        kept.check(experiment.search)
    trials = experiment.search.trials
    # Checkpoints of running trials (two each), kept students, and the curves.
    disk = 2 * room * measured.checkpoint_bytes + (experiment.search.keep + 1) * measured.parameters * 4
    return Estimate(
        rehearsal=measured,
        slots=room,
        epochs_low=_fewest_epochs(experiment),
        epochs_high=trials * experiment.search.trial_epochs(experiment.training.epochs),
        disk_bytes=disk + trials * 50_000,
        gpus_per_trial=gpus,
        packing=packing,
        reserve=kept,
        students=tuple(students["students"]) if students is not None else (),
    )


def _packing(experiment: Experiment, data: DataSet, storage: Path | None) -> PackingDocument:
    from kdsearch.tuning.objective import TrainerObjectives
    from kdsearch.tuning.packing import find_packing

    objectives = TrainerObjectives(experiment, data, threads=max(1, int(experiment.resources.cpus_per_trial)))
    return find_packing(experiment.resources, objectives, (), storage, lambda sentence: None, remember=False)


def _fewest_epochs(experiment: Experiment) -> int:
    """Epochs of successive halving at its ideal: each rung lets one in `reduction_factor` pass; 2 run to the end."""
    search, epochs = experiment.search, experiment.search.trial_epochs(experiment.training.epochs)
    protected = min(2, search.trials)
    if search.scheduler in ("none", "median"):
        return search.trials * epochs
    total, left, done = protected * epochs, float(search.trials - protected), 0
    for rung in search.rungs(experiment.training.epochs):
        total += round(left * (rung - done))
        left, done = left / search.reduction_factor, rung
    return total + round(left * (epochs - done))


def show_estimate(experiment: Experiment, found: Estimate) -> None:
    """The estimate in a few lines."""
    measured = found.rehearsal
    several = [student["name"] for student in found.students if student["refused"] is None]
    name = ", ".join(several) or experiment.student.name
    say(f"{experiment.method} · {name} · {experiment.data.name}: everything fits", "bold")
    for student in found.students:
        costs = f"{student['parameters']:,} parameters, {milliseconds(student['latency'])}"
        say(f"student     {student['name']}: {student['refused'] or costs}")
    if not found.students:
        say(f"student     {measured.parameters:,} parameters")
    trials = f"trials      {experiment.search.trials}, {found.slots} at a time"
    say(f"{trials}, {found.epochs_low:,} to {found.epochs_high:,} epochs ({experiment.search.scheduler})")
    slowest = ", of the slowest student" if len(several) > 1 else ""
    say(f"epoch       {duration(measured.seconds_per_epoch)} measured over a few steps on this machine{slowest}")
    low, high = found.seconds(found.epochs_low), found.seconds(found.epochs_high)
    say(f"time        {duration(low)} to {duration(high)}, start-up and the teacher's training apart")
    gpus = found.gpus_per_trial
    if gpus:
        say(f"GPU hours   {low * found.slots * gpus / 3600:.1f} to {high * found.slots * gpus / 3600:.1f}")
    if found.packing is not None:
        from kdsearch.cli.packing import show_packing

        show_packing(found.packing, label="GPUs        ")
    if measured.memory_bytes is not None:
        say(f"GPU memory  {measured.memory_bytes / 2**30:.2f} GiB a trial")
    say(f"disk        about {found.disk_bytes / 2**20:.0f} MiB")
    for line in _budget(experiment, found.reserve):
        say(line)
    say("Nothing was written.", "dim")


def _budget(experiment: Experiment, reserve: Reserve | None) -> Iterator[str]:
    """What ends the search, and what a confirmation then takes."""
    search = experiment.search
    if reserve is None:
        stated = {name: getattr(search, name) for name in LIMITS}
        limits = [amount_in_words(name, limit) for name, limit in stated.items() if limit is not None]
        if limits:
            yield f"budget      ends after {' or '.join(limits)} at the latest"
        return
    from kdsearch.tuning.reserve import MEASURED, within

    count, kept = reserve.trainings, reserve.of(search)
    yield f"confirm     {count.deciding} trainings decide and {count.reporting} report, at most"
    left = within(search, kept)
    for name, part in kept.items():
        whole, searched, rest = (amount_in_words(name, x) for x in (getattr(search, name), getattr(left, name), part))
        how = "estimated" if name in MEASURED else "at most"
        yield f"budget      {whole}: {searched} for the search, {rest} for the confirmation ({how})"
    if not kept:
        yield f"            about {duration(reserve.parts['time'])}, after the search"
