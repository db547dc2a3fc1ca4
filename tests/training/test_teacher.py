"""The teacher: its own normalisation, trained once, told apart by what determines it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from torch import nn

from kdsearch.data import load
from kdsearch.experiment import Experiment
from kdsearch.results.documents import read_json
from kdsearch.settings import DataSettings
from kdsearch.training.teacher import Teacher, fingerprint, load_teacher, train_teacher

if TYPE_CHECKING:
    from pathlib import Path

    from kdsearch.data.base import DataSet

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def digits() -> DataSet:
    return load(DataSettings(label_fraction=0.2))


def experiment(**changes: object) -> Experiment:
    sections: dict[str, object] = {
        "method": "kd",
        "teacher": {"name": "resnet8", "epochs": 2, "learning_rate": 0.05},
        "training": {"epochs": 3},
        "data": {"name": "digits", "label_fraction": 0.2},
    }
    return Experiment(**(sections | changes))


class Recorder(nn.Module):
    """Remembers what it was fed."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.fed = images
        return images.flatten(1)[:, :10]


def test_a_teacher_is_fed_its_own_normalisation(digits: DataSet) -> None:
    module = Recorder()
    teacher = Teacher(module, digits, (8, 8), ((0.485,), (0.229,)), CPU)
    image = torch.rand(5, 1, 8, 8)
    mean, std = torch.tensor(digits.mean).view(1, 1, 1, 1), torch.tensor(digits.std).view(1, 1, 1, 1)
    teacher((image - mean) / std)
    assert torch.allclose(module.fed, (image - 0.485) / 0.229, atol=1e-5)


def test_without_a_normalisation_of_its_own_the_images_reach_it_untouched(digits: DataSet) -> None:
    module = Recorder()
    images = torch.randn(2, 1, 8, 8)
    Teacher(module, digits, (8, 8), None, CPU)(images)
    assert module.fed is images


def test_a_teacher_of_another_input_size_gets_resized_images(digits: DataSet) -> None:
    module = Recorder()
    Teacher(module, digits, (32, 32), None, CPU)(torch.randn(2, 1, 8, 8))
    assert module.fed.shape == (2, 1, 32, 32)


def test_a_trained_teacher_is_exported_loads_and_teaches_what_it_validated(digits: DataSet, tmp_path: Path) -> None:
    made = experiment()
    reports = list(train_teacher(made, digits, tmp_path / "teacher", CPU))
    assert [report.epoch for report in reports] == [1, 2]
    weights = made.teacher.model_copy(update={"weights": str(tmp_path / "teacher")})  # type: ignore[union-attr]
    teacher = load_teacher(made.model_copy(update={"teacher": weights}), digits, CPU)
    (images,) = digits.validation.fetch([torch.arange(len(digits.validation))])
    mean, std = torch.tensor(digits.mean).view(1, 1, 1, 1), torch.tensor(digits.std).view(1, 1, 1, 1)
    right = (teacher((images / 255 - mean) / std).argmax(1) == digits.validation.targets).float().mean()
    assert float(right) == pytest.approx(read_json(tmp_path / "teacher" / "metrics.json")["value"], abs=1e-6)
    assert not list(tmp_path.glob(".*"))


def test_a_teachers_interrupted_training_goes_on_and_ends_the_same(digits: DataSet, tmp_path: Path) -> None:
    whole = list(train_teacher(experiment(), digits, tmp_path / "whole", CPU))
    interrupted = train_teacher(experiment(), digits, tmp_path / "parts", CPU)
    next(interrupted)
    next(interrupted)  # asked for the second report, it has saved the first epoch
    interrupted.close()
    again = list(train_teacher(experiment(), digits, tmp_path / "parts", CPU))
    assert [report.value for report in again] == [whole[1].value]
    assert (tmp_path / "parts" / "student.safetensors").read_bytes() == (
        tmp_path / "whole" / "student.safetensors"
    ).read_bytes()


def test_the_teacher_takes_its_own_rates_not_the_methods() -> None:
    from kdsearch.training.teacher import teacher_experiment

    own = teacher_experiment(experiment())
    assert (own.training.learning_rate, own.training.epochs, own.student.name) == (0.05, 2, "resnet8")


def test_what_does_not_determine_a_teacher_leaves_its_fingerprint() -> None:
    first = fingerprint(experiment())
    assert fingerprint(experiment(search={"trials": 3, "grace_period": 1}, student="resnet20")) == first
    others = [
        experiment(data="digits"),
        experiment(seed=5),
        experiment(teacher={"name": "resnet14", "epochs": 2, "learning_rate": 0.05}),
        experiment(teacher={"name": "resnet8", "epochs": 3, "learning_rate": 0.05}),
        experiment(augmentation={"flip": True}),
    ]
    assert len({first, *map(fingerprint, others)}) == 6
