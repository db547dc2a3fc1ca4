"""A few real epochs of a setting on little data: what a trial of it takes of a GPU, and how fast it goes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from kdsearch.training.mps import mps_is_on

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    import torch

    from kdsearch.data.base import Batch, Split, TrainingBatches
    from kdsearch.experiment import Experiment
    from kdsearch.settings import Scalar
    from kdsearch.tasks.base import Task
    from kdsearch.training.devices import Device
    from kdsearch.training.trainer import Trainer

EPOCHS = 2
"""Epochs in which memory is measured: what remembers the epoch before is at work from the second on."""
STEPS = 3
"""Steps of each of them."""
BUDGET = 10_000
"""Epochs of the full budget as the probe sees it, so that it comes nowhere near the end of a schedule."""
EVALUATED = 8
"""Batches of a split on which each of them is evaluated."""
HARMLESS_RATE = 1e-6
"""Learning rate of the probe, with which nothing diverges; what a step costs does not depend on it."""


@dataclass(frozen=True)
class Described:
    """What a GPU is."""

    name: str
    total_memory: int
    """In bytes."""
    mps: bool
    """Whether processes share it through NVIDIA's Multi-Process Service."""


@dataclass(frozen=True)
class Occupied:
    """Memory of the device in bytes, as one of the processes on it sees it."""

    reserved: int
    """By this process's tensors, now."""
    peak: int
    """By this process's tensors, at most so far."""
    used: int
    """By everything on the device, now."""


@dataclass(frozen=True)
class Pace:
    """Steps of one process in a window of time."""

    steps: int
    seconds: float
    memory: Occupied


class Probe:
    """One copy of a trial, in a process of its own.

    Args:
        make: makes the Trainer of a setting, as a trial's process does.
        device: what it trains on.
    """

    def __init__(self, make: Callable[[Mapping[str, Scalar]], Trainer], device: Device) -> None:
        self._make = make
        self._device = device
        self._trainer: Trainer | None = None
        self._window: Window | None = None

    def describe(self) -> Described:
        return Described(self._device.name(), self._device.total_memory(), mps_is_on())

    def peak(self, setting: Mapping[str, Scalar]) -> int:
        """The most memory that a trial of the setting reserves, in bytes; nothing of it stays."""
        self._leave()
        try:
            self.prepare(setting)
            return self._device.peak_memory()
        finally:
            self._leave()

    def prepare(self, setting: Mapping[str, Scalar]) -> None:
        """Build the trial and train it for two short epochs, each with its validation on a few batches."""
        self._leave()
        trainer = self._make({**setting, "learning_rate": HARMLESS_RATE})
        trainer.task = cast("Task", BrieflyEvaluated(trainer.task))
        self._window = Window(trainer.batches, self._device)
        trainer.batches = cast("TrainingBatches", self._window)
        self._trainer = trainer
        for _ in range(EPOCHS):
            trainer.epoch()

    def run(self, seconds: float) -> Pace:
        """Train the trial that was prepared for so long, or a few steps where that takes longer."""
        assert self._trainer is not None, "prepare comes first"
        assert self._window is not None
        memory = Occupied(self._device.reserved_memory(), self._device.peak_memory(), self._device.used_memory())
        self._window.wanted = seconds
        self._trainer.epoch()
        self._window.wanted = 0.0
        return Pace(self._window.taken, self._window.seconds, memory)

    def _leave(self) -> None:
        self._trainer = self._window = None
        self._device.forget()


class Window:
    """Batches of a training for as long as a window of time is open, a few at least; then the epoch is over.

    A data set that is through before then begins anew, so that copies side by side work for equally long.
    """

    def __init__(self, batches: TrainingBatches, device: Device) -> None:
        self._batches = batches
        self._device = device
        self.wanted = 0.0
        """Seconds that the next epoch is to take."""
        self.taken = 0
        """Steps of the last epoch."""
        self.seconds = 0.0
        """What they took, until the device had done them."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._batches, name)

    def epoch(self, number: int) -> Iterator[Batch]:
        self._device.synchronise()
        started, self.taken = self._device.now(), 0
        for batch in self._endless(number):
            yield batch
            self.taken += 1
            open_for = self._device.now() - started
            if self.taken >= STEPS and open_for >= self.wanted:
                break
        self._device.synchronise()
        self.seconds = self._device.now() - started

    def _endless(self, number: int) -> Iterator[Batch]:
        while True:
            yield from self._batches.epoch(number)


class BrieflyEvaluated:
    """A task that is evaluated on the first batches of a split alone."""

    def __init__(self, task: Task) -> None:
        self._task = task

    def __getattr__(self, name: str) -> Any:
        return getattr(self._task, name)

    def evaluate(self, predict: Callable[[torch.Tensor], torch.Tensor], split: Split, device: torch.device) -> Any:
        """The metrics of a split that is through by then; of a longer one the worst value."""
        seen = 0

        def briefly(images: torch.Tensor) -> torch.Tensor:
            nonlocal seen
            if seen == EVALUATED:
                raise _Enough
            seen += 1
            return predict(images)

        try:
            return self._task.evaluate(briefly, split, device)
        except _Enough:
            return {self._task.metric: self._task.worst}


class _Enough(Exception):
    """The first batches are through."""


def far_from_its_end(experiment: Experiment) -> Experiment:
    """The experiment with a budget that a probe does not use up. Costs of a step stay what they are."""
    return experiment.model_copy(update={"training": experiment.training.model_copy(update={"epochs": BUDGET})})
