"""Learning rates against torch's own schedulers and values by hand."""

from __future__ import annotations

import pytest
import torch

from kdsearch.settings import TrainingSettings
from kdsearch.training.averaging import AveragedStudent, decay
from kdsearch.training.optimizer import Optimizer
from kdsearch.training.schedule import Plateau, rate_factor

STEPS = 40


def rates_of_torch(kind: str) -> list[float]:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    if kind == "cosine":
        scheduler: torch.optim.lr_scheduler.LRScheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
    else:
        scheduler = torch.optim.lr_scheduler.MultiStepLR(optimizer, [25, 30, 35], gamma=0.1)
    rates = []
    for _ in range(STEPS):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates


@pytest.mark.parametrize("kind", ["cosine", "step"])
def test_schedules_equal_torchs(kind: str) -> None:
    training = TrainingSettings(schedule=kind)  # type: ignore[arg-type]
    ours = [rate_factor(training, step / STEPS) for step in range(STEPS)]
    assert ours == pytest.approx(rates_of_torch(kind), abs=1e-9)


def test_warm_up_rises_linearly_and_the_cosine_takes_the_rest() -> None:
    training = TrainingSettings(warmup=0.2)
    assert [rate_factor(training, p) for p in (0.0, 0.05, 0.1, 0.2)] == pytest.approx([0, 0.25, 0.5, 1])
    assert rate_factor(training, 0.6) == pytest.approx(0.5)
    assert rate_factor(training, 1.0) == pytest.approx(0.0)


def test_plateau_decays_when_torch_does() -> None:
    scores = [0.1, 0.2, 0.2, 0.19, 0.2, 0.2, 0.2, 0.3, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1]
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    theirs = torch.optim.lr_scheduler.ReduceLROnPlateau(
        optimizer, mode="max", factor=0.1, patience=2, threshold=0.0, threshold_mode="abs"
    )
    ours = Plateau(patience=2, decay_factor=0.1)
    for score in scores:
        theirs.step(score)
        ours.update(score)
        assert ours.factor == pytest.approx(optimizer.param_groups[0]["lr"])
    assert ours.factor < 0.02


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw"])
def test_a_step_equals_torchs_own_optimiser_with_clipping(name: str) -> None:
    start = torch.tensor([[1.0, -2.0], [0.5, 3.0]])
    training = TrainingSettings(
        optimizer=name,  # type: ignore[arg-type]
        learning_rate=0.1,
        weight_decay=0.01,
        schedule="constant",
        gradient_clip=0.5,
    )
    ours = torch.nn.Linear(2, 2, bias=False)
    ours.weight.data.copy_(start)
    theirs = torch.nn.Parameter(start.clone())
    reference: torch.optim.Optimizer = {
        "sgd": lambda: torch.optim.SGD([theirs], lr=0.1, momentum=0.9, weight_decay=0.01),
        "adam": lambda: torch.optim.Adam([theirs], lr=0.1, weight_decay=0.01),
        "adamw": lambda: torch.optim.AdamW([theirs], lr=0.1, weight_decay=0.01),
    }[name]()
    optimizer = Optimizer(ours, training, torch.device("cpu"))
    for step in range(3):
        optimizer.step((ours.weight**3).sum(), step / 3)
        reference.zero_grad()
        (theirs**3).sum().backward()
        torch.nn.utils.clip_grad_norm_([theirs], 0.5)
        reference.step()
        assert torch.allclose(ours.weight, theirs, atol=1e-6)


def test_the_decay_is_the_measured_one_at_243_steps_and_scales_with_the_budget() -> None:
    assert decay(0, 243) == pytest.approx(0.1)
    assert decay(90, 243) == pytest.approx(91 / 100)
    late = 10**6  # where the cap holds
    assert decay(late, 243) == pytest.approx(0.97, abs=1e-4)
    assert 1 - decay(late, 2430) == pytest.approx((1 - decay(late, 243)) / 10)
    assert decay(0, 3) == 0.0


def test_the_average_follows_parameters_and_running_statistics_and_copies_counters() -> None:
    student = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.BatchNorm1d(2))
    average = AveragedStudent(student, steps=243)
    expected = {name: tensor.clone() for name, tensor in student.state_dict().items()}
    for step in range(3):
        with torch.no_grad():
            for parameter in student.parameters():
                parameter += step + 1
        student(torch.randn(4, 2))  # moves the running statistics
        average.update(step)
        keep = decay(step, 243)
        for name, tensor in student.state_dict().items():
            if tensor.is_floating_point():
                expected[name] = keep * expected[name] + (1 - keep) * tensor
            else:
                expected[name] = tensor.clone()
    for name, tensor in average.module.state_dict().items():
        assert torch.allclose(tensor.float(), expected[name].float(), atol=1e-5), name
    assert int(average.module.state_dict()["1.num_batches_tracked"]) == 3
