"""Whom the display names as the best while a search runs."""

from __future__ import annotations

import pytest

from kdsearch.cli.display import Display
from kdsearch.experiment import Experiment
from kdsearch.objective import Report
from kdsearch.tuning.trials import LiveTrial


def trial(number: int) -> LiveTrial:
    return LiveTrial(number, "search", {}, trial_id=number)


def test_the_best_is_the_best_complete_trial_whatever_another_showed_on_its_way(
    capsys: pytest.CaptureFixture[str],
) -> None:
    display = Display(Experiment.load("ips"))

    def told(trial: LiveTrial, *values: float) -> None:
        for value in values:
            trial.values[len(trial.values) + 1] = value
            display.epoch_told(trial, Report(epoch=len(trial.values), value=value, metrics={}, seconds=1.0))

    def ended(trial: LiveTrial, state: str, value: float) -> str:
        trial.state = state
        display.trial_ended(trial, value)
        return "".join(capsys.readouterr()).strip().splitlines()[-1]

    lucky, stopped, winner = trial(0), trial(1), trial(2)
    told(stopped, 1.0)
    told(lucky, 0.5, 0.8)
    assert "best 1.0000 (trial 1)" not in ended(stopped, "PRUNED", 1.0)
    told(lucky, 0.99)
    assert "best 0.9700 (trial 0)" in ended(lucky, "COMPLETE", 0.97)
    told(winner, 0.9)
    assert "best 0.9800 (trial 2)" in ended(winner, "COMPLETE", 0.98)
