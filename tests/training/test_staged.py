"""A trial that begins anew at each rung is the trainings that it consists of, one after the other."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch

from kdsearch.data import load
from kdsearch.experiment import Experiment
from kdsearch.settings import DataSettings
from kdsearch.training.staged import StagedTraining, with_epochs
from kdsearch.training.trainer import Trainer

if TYPE_CHECKING:
    from pathlib import Path

    from kdsearch.data.base import DataSet
    from kdsearch.objective import Report

STAGES = (1, 2, 3)


@pytest.fixture(scope="module")
def digits() -> DataSet:
    return load(DataSettings(label_fraction=0.1))


def trainer(data: DataSet, epochs: int) -> Trainer:
    made = Experiment(
        method="lsskd",
        data={"name": "digits", "label_fraction": 0.1},
        student={"name": "resnet8", "arguments": {"width": 0.25}},
        training={"epochs": 3, "batch_size": 32},
        search={"grace_period": 1},
    )
    made = with_epochs(made, epochs)
    return Trainer(made, made.paper(), data=data, device=torch.device("cpu"))


def staged(data: DataSet) -> StagedTraining:
    return StagedTraining(lambda epochs: trainer(data, epochs), STAGES)


def seen(reports: list[Report]) -> list[tuple[int, float, float]]:
    return [(report.epoch, report.value, report.metrics["loss/total"]) for report in reports]


def alone(data: DataSet, epochs: int) -> Trainer:
    made = trainer(data, epochs)
    while not made.finished:
        made.epoch()
    return made


def test_its_epochs_are_those_of_trainings_of_each_rungs_length_counted_on(digits: DataSet) -> None:
    training = staged(digits)
    for _ in range(sum(STAGES)):
        training.epoch()
    apart = [alone(digits, epochs) for epochs in STAGES]
    one_after_the_other = [(report[1:]) for made in apart for report in seen(made.history)]
    assert seen(training.history) == [(epoch, *rest) for epoch, rest in enumerate(one_after_the_other, 1)]
    assert training.trainer.finished
    assert training.trainer.student_bytes() == apart[-1].student_bytes()


def test_only_the_full_training_averages_its_weights(digits: DataSet) -> None:
    training = staged(digits)
    averaged = ["validation_averaged/accuracy" in training.epoch().metrics for _ in range(sum(STAGES))]
    assert averaged == [False] * 3 + [True] * 3
    first, *_ = training.history
    assert first.value == first.metrics["validation/accuracy"]
    assert training.history[-1].value == training.history[-1].metrics["validation_averaged/accuracy"]


@pytest.mark.parametrize("stopped", [1, 2, 3, 5])
def test_stopped_anywhere_and_resumed_it_ends_bit_equal(digits: DataSet, tmp_path: Path, stopped: int) -> None:
    whole, begun = staged(digits), staged(digits)
    for _ in range(sum(STAGES)):
        whole.epoch()
    for _ in range(stopped):
        begun.epoch()
    begun.save(tmp_path)
    again = staged(digits)
    assert again.load(tmp_path)
    assert seen(again.history) == seen(begun.history)
    for _ in range(sum(STAGES) - stopped):
        again.epoch()
    assert seen(again.history) == seen(whole.history)
    assert again.trainer.student_bytes() == whole.trainer.student_bytes()


def test_without_a_checkpoint_it_begins(digits: DataSet, tmp_path: Path) -> None:
    assert not staged(digits).load(tmp_path)
