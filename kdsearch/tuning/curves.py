"""Writes each trial's TensorBoard curves while the search runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kdsearch.results.samples import read_panels, samples_grid
from kdsearch.results.tensorboard import TrialWriter
from kdsearch.tuning.folder import trial_folder

if TYPE_CHECKING:
    from pathlib import Path

    from kdsearch.objective import Report
    from kdsearch.tuning.trials import LiveTrial


CONTROL = 1
"""The trial that is trained without distillation, where the space leaves anything to turn off."""


class Curves:
    """A watcher that writes every loss term, rate and validation metric, and the best value so far."""

    def __init__(self, trials: Path, metric: str, mode: str, epochs: int) -> None:
        self._trials = trials
        self._metric = metric
        self._epochs = epochs
        self._better = max if mode == "max" else min
        self._writers: dict[int, TrialWriter] = {}

    def trial_started(self, trial: LiveTrial) -> None:
        writer = TrialWriter(trial_folder(self._trials, trial.number), self._metric)
        writer.hyperparameters(trial.hyperparameters)
        self._writers[trial.number] = writer

    def epoch_told(self, trial: LiveTrial, report: Report) -> None:
        # After the last epoch the value of the best weights follows, which may be better than any epoch's score.
        best = self._better(trial.values.values()) if report.epoch < self._epochs else None
        values = {**report.metrics, "seconds": report.seconds}
        self._writers[trial.number].scalars(report.epoch, values, best=best)
        if report.panels:
            picture = samples_grid(report.panels, without=read_panels(trial_folder(self._trials, CONTROL)))
            self._writers[trial.number].image("samples", picture, report.epoch)

    def trial_ended(self, trial: LiveTrial, value: float | None) -> None:
        writer = self._writers.pop(trial.number)
        if value is not None and trial.state == "COMPLETE":
            writer.scalars(self._epochs, {}, best=value)
        writer.finish(trial.state)
