"""What every method owes to every kind of student, whatever it computes."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import timm
import torch
import torchvision
from timm.models.mvitv2 import MultiScaleVit, MultiScaleVitCfg
from torch import nn
from torchvision.models import vgg

from kdsearch import methods, tasks
from kdsearch.data.base import Batch, Facts
from kdsearch.methods.base import Method

FACTS = Facts(classes=3, channels=3, size=(32, 32), steps=40, epochs=10)

VIT = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 4, "num_heads": 2}
MVIT = MultiScaleVitCfg(depths=(1, 1, 1, 1), embed_dim=(8, 16, 24, 32), num_heads=(1, 1, 2, 2))
FAMILIES: dict[str, Callable[[], nn.Module]] = {
    "residual": lambda: timm.create_model("resnet18", num_classes=3, channels=(8, 8, 16, 16)),
    "vgg": lambda: nn.Sequential(
        vgg.make_layers([8, "M", 16, "M", 24, "M"], batch_norm=True),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(24, 3),
    ),
    "shufflenetv2": lambda: torchvision.models.ShuffleNetV2([1, 2, 1], [8, 16, 32, 32, 32], num_classes=3),
    "mobilenetv2": lambda: timm.create_model("mobilenetv2_035", num_classes=3),
    "vit": lambda: timm.create_model("vit_tiny_patch16_224", num_classes=3, **VIT),
    "mvitv2": lambda: MultiScaleVit(MVIT, img_size=32, num_classes=3),
}
# Those of other tasks are in tests/conformance.
NAMES = [name for name in methods.names() if "classification" in methods.find(name).tasks]
VARIANTS: list[tuple[str, dict[str, Any]]] = [
    *((name, {}) for name in NAMES),
    ("lsskd", {"head_kind": "deep", "transformation": "channel_permutation", "task_views": "all"}),
    ("ips", {"detach": False, "patches_per_side": 8}),
]


@functools.cache
def network(family: str) -> nn.Module:
    torch.manual_seed(0)
    return FAMILIES[family]()


class Teacher:
    """A frozen network, as the teacher comes to a method."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module.eval()

    @torch.no_grad()
    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        return self.module(images)  # type: ignore[no-any-return]


def build(name: str, hyperparameters: dict[str, Any], family: str) -> Method:
    kind = methods.find(name)
    torch.manual_seed(1)
    teacher = Teacher(copy.deepcopy(network(family))) if kind.needs_teacher else None
    student = copy.deepcopy(network(family))
    method = kind(kind.Hyperparameters(**hyperparameters), student, teacher, tasks.find("classification"), FACTS)
    return method.train()


def batch(seed: int = 0) -> Batch:
    source = torch.Generator().manual_seed(seed)
    return Batch(
        images=torch.randn(4, 3, 32, 32, generator=source),
        targets=nn.functional.one_hot(torch.tensor([0, 1, 2, 0]), 3).float(),
        generator=torch.Generator().manual_seed(seed + 1),
        partners=torch.randn(4, 3, 32, 32, generator=source),
        has_partner=torch.ones(4, dtype=torch.bool),
    )


def in_double_precision(batch: Batch) -> Batch:
    assert batch.partners is not None
    return replace(
        batch, images=batch.images.double(), targets=batch.targets.double(), partners=batch.partners.double()
    )


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(("name", "hyperparameters"), VARIANTS)
def test_every_trainable_parameter_learns_from_finite_terms(
    name: str, hyperparameters: dict[str, Any], family: str
) -> None:
    method = build(name, hyperparameters, family)
    plain = list(network(family).state_dict())
    for epoch in (0, 1):
        method.start_epoch(epoch)
        observed = method.diagnostics(batch(), epoch / 10)
        assert all(isinstance(value, float) and value == value for value in observed.values())
        terms = method.losses(batch(), epoch / 10)
        assert terms
        assert all(term.shape == () and term.isfinite() for term in terms.values())
        method.zero_grad()
        torch.stack(list(terms.values())).sum().backward()
        for parameter_name, parameter in method.named_parameters():
            if parameter.requires_grad:
                assert parameter.grad is not None, f"{parameter_name} learns nothing"
                assert parameter.grad.isfinite().all()
    assert list(method.student.state_dict()) == plain


@pytest.mark.parametrize(("name", "hyperparameters"), VARIANTS)
def test_equal_seeds_give_equal_losses_and_other_seeds_others(name: str, hyperparameters: dict[str, Any]) -> None:
    first, second, other = (build(name, hyperparameters, "residual").losses(batch(seed), 0.0) for seed in (3, 3, 4))
    assert all(torch.equal(first[term], second[term]) for term in first)
    assert any(not torch.equal(first[term], other[term]) for term in first)


@pytest.mark.parametrize(("name", "hyperparameters"), VARIANTS)
def test_losses_leave_pytorchs_own_random_state_alone(name: str, hyperparameters: dict[str, Any]) -> None:
    method = build(name, hyperparameters, "residual")
    before = torch.get_rng_state()
    method.start_epoch(1)
    method.losses(batch(), 0.1)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("name", NAMES)
def test_two_instances_share_nothing(name: str) -> None:
    first, second = build(name, {}, "residual"), build(name, {}, "residual")
    mine = {tensor.data_ptr() for tensor in first.state_dict().values()}
    assert not mine & {tensor.data_ptr() for tensor in second.state_dict().values()}


@pytest.mark.parametrize("family", ["residual", "vit"])
def test_the_teacher_stays_as_it_was(family: str) -> None:
    method = build("kd", {}, family)
    teacher = method.teacher
    assert isinstance(teacher, Teacher)
    before = {name: tensor.clone() for name, tensor in teacher.module.state_dict().items()}
    optimizer = torch.optim.SGD(method.parameters(), lr=0.1)
    for _ in range(2):
        optimizer.zero_grad()
        torch.stack(list(method.losses(batch(), 0.0).values())).sum().backward()
        optimizer.step()
    assert all(torch.equal(tensor, before[name]) for name, tensor in teacher.module.state_dict().items())
    assert not any(module.training for module in teacher.module.modules())
    assert all(parameter.grad is None for parameter in teacher.module.parameters())


class Step(nn.Module):
    """One step as a function of weights and hyperparameters, as a batched search would run it."""

    def __init__(self, method: Method) -> None:
        super().__init__()
        self.method = method
        self.fixed = method.hyperparameters

    def forward(self, values: dict[str, torch.Tensor]) -> torch.Tensor:
        self.method.hyperparameters = self.fixed.model_copy(update=values)
        return torch.stack(list(self.method.losses(in_double_precision(batch()), 0.35).values()))


STACKED = {
    "ce": {"label_smoothing": (0.0, 0.1, 0.3)},
    "kd": {"temperature": (1.0, 4.0, 20.0), "alpha": (0.1, 0.9, 0.0)},
    "ips": {
        "temperature": (1.0, 4.0, 8.0),
        "alpha": (0.3, 1.0, 0.0),
        "gamma": (1.0, 2.0, 0.5),
        "swap_probability": (0.1, 0.9, 0.0),
    },
    "lsskd": {
        "temperature": (1.0, 3.0, 8.0),
        "alpha": (0.0, 0.8, 0.5),
        "beta": (0.0, 0.1, 0.5),
        "gamma": (1.0, 0.1, 0.0),
    },
}


@pytest.mark.parametrize("name", NAMES)
def test_several_trials_can_be_computed_as_one(name: str) -> None:
    """Hyperparameters may be tensors: three trials in one vmapped step give the losses and gradients of three steps."""
    method = build(name, {}, "vgg").double()
    if method.needs_teacher:
        method.teacher.module.double()  # type: ignore[attr-defined]
    method.start_epoch(1)
    step = Step(method)
    parameters = {key: tensor for key, tensor in step.named_parameters() if tensor.requires_grad}
    buffers = dict(step.named_buffers())

    def total(weights: dict[str, torch.Tensor], state: dict[str, torch.Tensor], values: dict[str, torch.Tensor]) -> Any:
        terms = torch.func.functional_call(step, {**weights, **state}, (values,))
        return terms.sum(), terms

    stacked_weights = {key: torch.stack([tensor.detach()] * 3) for key, tensor in parameters.items()}
    stacked_buffers = {key: torch.stack([tensor] * 3) for key, tensor in buffers.items()}
    together = torch.vmap(torch.func.grad(total, has_aux=True), randomness="same")
    stacked_values = {key: torch.tensor(trials, dtype=torch.float64) for key, trials in STACKED[name].items()}
    gradients, terms = together(stacked_weights, stacked_buffers, stacked_values)
    for index in range(3):
        values = {key: trials[index] for key, trials in STACKED[name].items()}
        copies = {key: tensor.clone() for key, tensor in buffers.items()}
        alone = {key: tensor.detach() for key, tensor in parameters.items()}
        expected, by_itself = torch.func.grad(total, has_aux=True)(alone, copies, values)
        torch.testing.assert_close(terms[index], by_itself, rtol=1e-9, atol=1e-9)
        for key, gradient in expected.items():
            torch.testing.assert_close(gradients[key][index], gradient, rtol=1e-7, atol=1e-9)


@pytest.mark.needs_gpu
@pytest.mark.parametrize(("name", "hyperparameters"), VARIANTS)
def test_a_step_runs_on_a_gpu_in_half_precision_without_waiting_for_it(
    name: str, hyperparameters: dict[str, Any]
) -> None:
    device = torch.device("cuda")
    on_cpu = batch()
    on_gpu = replace(
        on_cpu,
        images=on_cpu.images.to(device),
        targets=on_cpu.targets.to(device),
        generator=torch.Generator(device).manual_seed(1),
        partners=on_cpu.partners.to(device),  # type: ignore[union-attr]
        has_partner=on_cpu.has_partner.to(device),  # type: ignore[union-attr]
    )
    method = build(name, hyperparameters, "residual").to(device)
    if method.needs_teacher:
        method.teacher.module.to(device)  # type: ignore[attr-defined]
    method.start_epoch(1)
    with torch.autocast("cuda", torch.bfloat16):
        method.losses(on_gpu, 0.1)
        torch.cuda.set_sync_debug_mode("error")
        try:
            terms = method.losses(on_gpu, 0.1)
        finally:
            torch.cuda.set_sync_debug_mode("default")
    assert all(term.dtype is torch.float32 and term.isfinite() for term in terms.values())
