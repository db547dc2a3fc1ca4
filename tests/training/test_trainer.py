"""The Trainer alone, from Python, without Ray."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
import torch

from kdsearch import files
from kdsearch.data import load
from kdsearch.errors import Diverged
from kdsearch.experiment import Experiment
from kdsearch.settings import DataSettings
from kdsearch.training.evaluation import evaluate_export
from kdsearch.training.single import train_student
from kdsearch.training.trainer import CHECKPOINT, Trainer

if TYPE_CHECKING:
    from pathlib import Path

    from kdsearch.data.base import DataSet

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def digits() -> DataSet:
    return load(DataSettings(label_fraction=0.2))


def experiment(method: str = "ips", **changes: object) -> Experiment:
    sections: dict[str, object] = {
        "method": method,
        "training": {"epochs": 3, "batch_size": 32},
        "data": {"name": "digits", "label_fraction": 0.2},
    }
    return Experiment(**(sections | changes))


def trainer(data: DataSet, made: Experiment | None = None, **setting: float) -> Trainer:
    made = made or experiment()
    return Trainer(made, {**made.paper(), **setting}, data=data, device=CPU)


def test_a_student_learns(digits: DataSet) -> None:
    made = trainer(digits)
    values = [made.epoch().value for _ in range(3)]
    assert values[-1] > 0.5  # chance is 0.1
    assert made.finished
    assert made.best is not None
    assert made.best.value >= max(values)


def test_an_exploding_loss_is_diverged_with_its_step_and_terms(digits: DataSet) -> None:
    made = trainer(digits, learning_rate=1e8)
    with pytest.raises(Diverged) as caught:
        [made.epoch() for _ in range(3)]
    # 215 labels at batch 32: six steps an epoch.
    assert 0 < caught.value.step < 18
    assert caught.value.terms
    assert not all(abs(value) < float("inf") for value in caught.value.terms.values())
    assert f"at step {caught.value.step}" in str(caught.value)


def test_a_damaged_checkpoint_falls_back_to_the_one_before(digits: DataSet, tmp_path: Path) -> None:
    made = trainer(digits)
    made.epoch()
    made.save(tmp_path)
    made.epoch()
    made.save(tmp_path)
    content = bytearray((tmp_path / CHECKPOINT).read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / CHECKPOINT).write_bytes(content)
    again = trainer(digits)
    assert again.load(tmp_path)
    assert again.epochs_done == 1
    files.remove_checked(tmp_path / CHECKPOINT)
    assert not trainer(digits).load(tmp_path)
    assert not list(tmp_path.iterdir())


def test_the_schedule_follows_the_full_budget_whatever_ends_the_trial(digits: DataSet) -> None:
    made = trainer(digits)
    rates = [made.epoch().metrics["learning_rate"] for _ in range(2)]
    last_step = [6 * (epoch + 1) - 1 for epoch in range(2)]
    expected = [0.05 * 0.5 * (1 + torch.cos(torch.tensor(torch.pi * step / 18)).item()) for step in last_step]
    assert rates == pytest.approx(expected, rel=1e-5)


def test_the_global_generator_is_left_alone(digits: DataSet) -> None:
    torch.manual_seed(3)
    before = torch.get_rng_state()
    trainer(digits).epoch()
    assert torch.equal(before, torch.get_rng_state())


def test_an_exported_student_reproduces_its_validation_accuracy_in_a_new_process(tmp_path: Path) -> None:
    facts = train_student(experiment("ce"), tmp_path / "out")
    script = (
        "import json, sys; from kdsearch.training.evaluation import evaluate_export;"
        "print(json.dumps(evaluate_export(sys.argv[1])))"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "out")]
    answer = subprocess.run(command, capture_output=True, text=True, check=True)
    import json

    assert json.loads(answer.stdout.splitlines()[-1])["metrics"]["accuracy"] == facts["value"]


def test_every_reading_of_the_test_split_is_counted(tmp_path: Path) -> None:
    train_student(experiment("ce"), tmp_path / "out")
    assert evaluate_export(tmp_path / "out")["test_readings"] == 0
    assert evaluate_export(tmp_path / "out", "test")["test_readings"] == 1
    assert evaluate_export(tmp_path / "out", "test")["test_readings"] == 2


def test_a_method_with_a_teacher_trains_it_first_and_exports_it_beside(tmp_path: Path) -> None:
    made = experiment("kd", teacher={"name": "resnet8", "epochs": 1})
    told: list[str] = []
    train_student(made, tmp_path / "out", lambda what, report, epochs: told.append(what))
    assert told == ["teacher resnet8", "resnet8", "resnet8", "resnet8"]
    assert (tmp_path / "out" / "teacher" / "student.safetensors").is_file()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out"]


def test_a_teacher_that_is_an_earlier_export_is_taken_as_it_is(tmp_path: Path) -> None:
    train_student(experiment("ce"), tmp_path / "earlier")
    before = (tmp_path / "earlier" / "student.safetensors").read_bytes()
    told: list[str] = []
    made = experiment("kd", teacher=str(tmp_path / "earlier"))
    train_student(made, tmp_path / "out", lambda what, report, epochs: told.append(what))
    assert set(told) == {"resnet8"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["earlier", "out"]
    assert not (tmp_path / "out" / "teacher").exists()
    assert (tmp_path / "earlier" / "student.safetensors").read_bytes() == before


def test_training_imports_neither_torchs_compiler_nor_what_the_experiment_does_not_use() -> None:
    """Each of these takes seconds, in every process of a search."""
    script = (
        "import sys, torch; from kdsearch import Experiment, Trainer;"
        "made = Experiment.load('ips', {'training.epochs': 1, 'search.grace_period': 1});"
        "Trainer(made, made.paper()).epoch();"
        "print([name for name in ('torch._dynamo', 'timm', 'torchvision', 'sklearn', 'ray') if name in sys.modules])"
    )
    answer = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert answer.stdout.splitlines()[-1] == "[]"
