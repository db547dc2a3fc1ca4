"""A process trains trial after trial: whatever a Trainer held is free as soon as the trial is over."""

from __future__ import annotations

import gc
import weakref

import pytest

from kdsearch.data import load
from kdsearch.experiment import Experiment
from kdsearch.training.trainer import Trainer
from kdsearch.tuning.objective import TrainerObjectives


@pytest.mark.parametrize("method", ["ce", "kd", "ips", "lsskd"])
def test_nothing_of_a_trial_waits_for_the_garbage_collector(method: str) -> None:
    """Cycles would keep a student and its optimiser on the GPU until Python happens to look for them."""
    teacher = {"teacher": "resnet8"} if method == "kd" else {}
    data = {"name": "digits", "label_fraction": 0.1}
    made = Experiment(method=method, training={"epochs": 2}, search={"grace_period": 1}, data=data, **teacher)
    objectives = TrainerObjectives(made, load(made.data), threads=1)
    objective = objectives(made.paper())
    gc.disable()
    try:
        objective.epoch()
        trainer = objective._training
        assert isinstance(trainer, Trainer)
        held = [weakref.ref(part) for part in (trainer, trainer.student, trainer.method, trainer.optimizer)]
        del objective, trainer
        assert [part() is None for part in held] == [True] * 4
    finally:
        gc.enable()
