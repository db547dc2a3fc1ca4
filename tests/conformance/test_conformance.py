"""What every method must keep on every family of networks."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch

from kdsearch import methods
from kdsearch.space import check_space
from kdsearch.training.trainer import default_device
from tests.conformance.cases import EPOCHS, FAMILIES, METHODS, small_data, trainer

if TYPE_CHECKING:
    from kdsearch.data.base import DataSet
    from kdsearch.training.trainer import Trainer

CASES = [(method, family) for method in METHODS for family in FAMILIES]
every_case = pytest.mark.parametrize(("method", "family"), CASES, ids=["-".join(case) for case in CASES])


@pytest.fixture(scope="module")
def data() -> DataSet:
    return small_data()


@pytest.fixture(scope="module")
def device() -> torch.device:
    return default_device()


def equal(one: object, other: object) -> bool:
    """Whether two nested states are the same, bit for bit."""
    if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(equal(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(equal(*pair) for pair in zip(one, other, strict=True))
    return one == other


def without_times(state: dict[str, object]) -> dict[str, object]:
    history = [{**report, "seconds": 0} for report in state["history"]]  # type: ignore[attr-defined]
    return {**state, "history": history}


@every_case
def test_steps_are_finite_every_parameter_gets_a_gradient_and_the_teacher_stays(
    method: str, family: str, data: DataSet, device: torch.device
) -> None:
    made = trainer(method, family, data, device)
    teacher = made.method._teacher[0]
    before = [tensor.clone() for tensor in teacher.module.state_dict().values()] if teacher is not None else []
    made.epoch()
    report = made.epoch()  # a second one: a previous epoch has something to teach now
    assert all(math.isfinite(value) for value in report.metrics.values())
    without = [name for name, p in made.method.named_parameters() if p.requires_grad and p.grad is None]
    assert not without
    dead = [name for name, p in made.method.named_parameters() if p.requires_grad and not p.grad.abs().sum() > 0]
    assert not [name for name in dead if not is_shift_before_norm(name, made)]
    if teacher is not None:
        after = list(teacher.module.state_dict().values())
        assert all(torch.equal(*pair) for pair in zip(before, after, strict=True))
        assert not teacher.module.training
        assert all(p.grad is None and not p.requires_grad for p in teacher.module.parameters())


def is_shift_before_norm(name: str, made: Trainer) -> bool:
    """A bias in front of a batch norm (torchvision's VGG has them) has a gradient of 0 but for rounding; attention's
    key bias likewise shifts all scores alike."""
    return name.endswith("bias") and any(part in name for part in ("features", "qkv", "head"))


@every_case
def test_the_loss_is_the_sum_of_the_terms_that_are_logged(
    method: str, family: str, data: DataSet, device: torch.device
) -> None:
    report = trainer(method, family, data, device).epoch()
    terms = [value for name, value in report.metrics.items() if name.startswith("loss/") and name != "loss/total"]
    assert terms
    assert report.metrics["loss/total"] == pytest.approx(sum(terms), abs=1e-6)


@every_case
def test_two_epochs_saved_loaded_and_two_more_equal_four(
    method: str, family: str, data: DataSet, device: torch.device, tmp_path: Path
) -> None:
    if device.type != "cpu":
        pytest.skip("bit-equality is promised on CPUs")
    whole = trainer(method, family, data, device)
    for _ in range(EPOCHS):
        whole.epoch()
    first = trainer(method, family, data, device)
    first.epoch()
    first.epoch()
    first.save(tmp_path)
    second = trainer(method, family, data, device)
    assert second.load(tmp_path)
    torch.rand(17)  # whatever happens to the global generator between must not matter
    second.epoch()
    second.epoch()
    assert equal(without_times(whole.state_dict()), without_times(second.state_dict()))


@every_case
def test_two_instances_share_nothing(method: str, family: str, data: DataSet, device: torch.device) -> None:
    one, other = trainer(method, family, data, device), trainer(method, family, data, device)
    before = {name: tensor.clone() for name, tensor in other.method.state_dict().items()}
    one.epoch()
    one.epoch()
    assert equal(before, dict(other.method.state_dict()))
    storages = {p.data_ptr() for p in one.method.parameters() if p.numel()}
    assert not storages & {p.data_ptr() for p in other.method.parameters() if p.numel()}


@every_case
def test_the_exported_student_has_the_plain_networks_tensors_and_no_more(
    method: str, family: str, data: DataSet, device: torch.device
) -> None:
    from safetensors.torch import load

    made = trainer(method, family, data, device)
    plain = made._build_student()
    made.epoch()
    exported = load(made.student_bytes())
    assert {name: tensor.shape for name, tensor in exported.items()} == {
        name: tensor.shape for name, tensor in plain.state_dict().items()
    }
    plain.load_state_dict(exported, strict=True)


def test_the_same_seed_gives_the_same_losses_in_another_process(data: DataSet) -> None:
    here = losses(data)
    script = "import json; from tests.conformance.test_conformance import *; print(json.dumps(losses(small_data())))"
    root = Path(__file__).parents[2]
    answer = subprocess.run([sys.executable, "-c", script], cwd=root, capture_output=True, text=True, check=True)
    assert json.loads(answer.stdout.splitlines()[-1]) == here


def losses(data: DataSet) -> dict[str, list[float]]:
    """The losses of the first two epochs of every method, on one network each and all networks of one method."""
    cases = [(method, "residual") for method in METHODS] + [("lsskd", family) for family in FAMILIES[1:]]
    found = {}
    for method, family in cases:
        made = trainer(method, family, data, torch.device("cpu"))
        found[f"{method}-{family}"] = [made.epoch().metrics["loss/total"] for _ in range(2)]
    return found


@pytest.mark.parametrize("method", methods.names())
def test_the_shipped_space_names_fields_of_the_method_and_holds_the_papers_values(method: str) -> None:
    from kdsearch.experiment import Experiment
    from kdsearch.settings import Range

    made = Experiment.load(method)
    check_space(made.space, made.method_class)
    paper = made.paper()
    for name, dimension in made.dimensions.items():
        if isinstance(dimension, Range):
            assert dimension.low <= paper[name] <= dimension.high or (dimension.or_zero and paper[name] == 0), name
        else:
            assert paper[name] in dimension.choices, name
