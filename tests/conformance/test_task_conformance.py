"""What every method must keep on every task that it is for, beside classification."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from kdsearch import tasks
from kdsearch.data.base import DataSet
from kdsearch.training.trainer import default_device
from tests.conformance.dense_cases import CASES, EPOCHS, small_data, trainer
from tests.conformance.test_conformance import equal, without_times
from tests.super_resolution.random_vgg import write_random_vgg19

every_case = pytest.mark.parametrize(("method", "task"), CASES, ids=["-".join(case) for case in CASES])


@pytest.fixture(scope="module")
def device() -> torch.device:
    return default_device()


@pytest.fixture(scope="module", autouse=True)
def random_perception(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The perceptual term of super-resolution has weights to work with."""
    home = tmp_path_factory.mktemp("torch_home")
    write_random_vgg19(home)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TORCH_HOME", str(home))
        yield


@pytest.fixture(scope="module")
def sets() -> dict[str, DataSet]:
    return {task: small_data(task) for task in sorted({task for _, task in CASES})}


def test_every_task_but_classification_has_a_method() -> None:
    assert {task for _, task in CASES} == set(tasks.names()) - {"classification"}


@every_case
def test_an_epoch_is_finite_its_terms_add_up_and_every_parameter_learns(
    method: str, task: str, sets: dict[str, DataSet], device: torch.device
) -> None:
    made = trainer(method, task, sets[task], device)
    before = {name: tensor.clone() for name, tensor in made.student.named_parameters()}
    made.epoch()
    report = made.epoch()
    assert all(math.isfinite(value) for value in report.metrics.values())
    terms = [value for name, value in report.metrics.items() if name.startswith("loss/") and name != "loss/total"]
    assert report.metrics["loss/total"] == pytest.approx(sum(terms), abs=1e-5)
    still = [name for name, tensor in made.student.named_parameters() if torch.equal(tensor, before[name])]
    assert not still


@every_case
def test_saved_loaded_and_gone_on_equals_not_interrupted(
    method: str, task: str, sets: dict[str, DataSet], device: torch.device, tmp_path: Path
) -> None:
    if device.type != "cpu":
        pytest.skip("bit-equality is promised on CPUs")
    whole = trainer(method, task, sets[task], device)
    for _ in range(EPOCHS):
        whole.epoch()
    begun = trainer(method, task, sets[task], device)
    begun.epoch()
    begun.save(tmp_path)
    resumed = trainer(method, task, sets[task], device)
    assert resumed.load(tmp_path)
    torch.rand(17)  # whatever happens to the global generator between must not matter
    while not resumed.finished:
        resumed.epoch()
    assert equal(without_times(whole.state_dict()), without_times(resumed.state_dict()))


@every_case
def test_the_control_and_the_export_are_the_plain_student(
    method: str, task: str, sets: dict[str, DataSet], device: torch.device
) -> None:
    from safetensors.torch import load

    made = trainer(method, task, sets[task], device)
    made.experiment.resolve(made.experiment.control())
    made.epoch()
    plain = made._build_student()
    exported = load(made.student_bytes())
    plain.load_state_dict(exported, strict=True)
    assert equal(exported, dict(plain.state_dict()))


@every_case
def test_panels_are_columns_of_the_same_pictures(
    method: str, task: str, sets: dict[str, DataSet], device: torch.device
) -> None:
    made = trainer(method, task, sets[task], device)
    panels = made.panels(made.student)
    assert {"input", "target", "student"} <= set(panels)
    assert ("teacher" in panels) == made.experiment.method_class.needs_teacher
    assert list(panels)[-1] == "student"
    lengths = {len(column) for column in panels.values()}
    assert len(lengths) == 1
    for pictures in zip(*panels.values(), strict=True):
        assert {picture.dtype.name for picture in pictures} == {"uint8"}
        assert len({picture.shape[1:] for picture in pictures}) == 1
