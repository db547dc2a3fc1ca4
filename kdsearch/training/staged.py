"""A trial that begins anew at each rung: trainings whose full budgets grow, each with a complete schedule."""

from __future__ import annotations

from dataclasses import asdict, replace
from itertools import accumulate
from typing import TYPE_CHECKING

from kdsearch.objective import Report
from kdsearch.training.trainer import read_state, write_state

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from kdsearch.experiment import Experiment
    from kdsearch.training.trainer import Trainer


def with_epochs(experiment: Experiment, epochs: int) -> Experiment:
    """The same with a full budget of so many epochs, which schedules and the method's progress follow.

    In a shorter one the weights are not averaged: at the end of a schedule those as they are rank settings better (see
    benchmarks/README, search cost), and there is one validation less.
    """
    shorter = epochs < experiment.training.epochs
    changed = {"epochs": epochs, "averaging": experiment.training.averaging and not shorter}
    return experiment.model_copy(update={"training": experiment.training.model_copy(update=changed)})


class StagedTraining:
    """The trainings of one setting, epoch by epoch, as if they were one; the last one's student is the trial's.

    What a rung compares is the end of a schedule, not a point of a longer one at which the rate is still high. Its
    price are the epochs of the earlier trainings, which are spent again.

    Args:
        make: the trainer of a full budget of so many epochs.
        stages: the budgets, one after the other.
    """

    def __init__(self, make: Callable[[int], Trainer], stages: Sequence[int]) -> None:
        self._make = make
        self._stages = stages
        self._earlier: list[Report] = []
        """Of the trainings before this one."""
        self.trainer = make(stages[0])
        """Of this training."""

    @property
    def history(self) -> list[Report]:
        return [*self._earlier, *map(self._counted_on, self.trainer.history)]

    def epoch(self) -> Report:
        """One more epoch of this training, or the first of the next. Raises Diverged."""
        if self.trainer.finished:
            self._earlier = self.history
            self.trainer = self._make(self._stages[self._stage])
        return self._counted_on(self.trainer.epoch())

    @property
    def _stage(self) -> int:
        """The place among the stages of the training that follows the earlier ones."""
        return [0, *accumulate(self._stages)].index(len(self._earlier))

    def _counted_on(self, report: Report) -> Report:
        return replace(report, epoch=len(self._earlier) + report.epoch)

    def save(self, folder: Path) -> None:
        """Write the state into `folder`, whole or not at all; the checkpoint before stays as a fallback."""
        earlier = [asdict(replace(report, panels={})) for report in self._earlier]
        write_state(folder, {"earlier": earlier, "trainer": self.trainer.state_dict()})

    def load(self, folder: Path) -> bool:
        """Take up the state in `folder`; False when there is none."""
        state = read_state(folder, self.trainer.device)
        if state is None:
            return False
        self._earlier = [Report(**report) for report in state["earlier"]]
        if self._earlier:
            self.trainer = self._make(self._stages[self._stage])
        self.trainer.load_state_dict(state["trainer"])
        return True
