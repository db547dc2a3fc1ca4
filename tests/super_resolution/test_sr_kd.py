"""Super-resolution distillation: each term by hand, limit cases, what a term that is off costs, and resuming."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

from kdsearch import tasks
from kdsearch.data.base import Batch, DataSet, Facts
from kdsearch.errors import BadWeights, InvalidSetting, UserError
from kdsearch.experiment import Experiment
from kdsearch.methods.perceptual import Perceptual, vgg19_file
from kdsearch.methods.sr_kd import SRKD, SRKDHyperparameters
from kdsearch.models.own.attention_sr import AttentionSR, attention_sr
from kdsearch.training.teacher import load_teacher
from kdsearch.training.trainer import Trainer
from tests.super_resolution.random_vgg import write_random_vgg19

CPU = torch.device("cpu")
FACTS = Facts(classes=0, channels=3, size=(8, 8), steps=40, epochs=10)
TASK = tasks.find("super_resolution")


class Teaching:
    """A teacher that counts how often it is asked."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module.eval().requires_grad_(False)
        self.asked = 0

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        self.asked += 1
        with torch.no_grad():
            return self.module(images)  # type: ignore[no-any-return]


def network(width: int, seed: int, scale: int = 2) -> AttentionSR:
    torch.manual_seed(seed)
    made = attention_sr(scale, width=width, blocks=1)
    nn.init.normal_(made.tail.weight, std=0.1)
    return made


def build(student: nn.Module, teacher: Teaching | None = None, **weights: float) -> SRKD:
    given = {"feature_weight": 0.0, "perceptual_weight": 0.0, "output_weight": 0.0, **weights}
    return SRKD(SRKDHyperparameters(**given), student, teacher or Teaching(network(12, 1)), TASK, FACTS)


@pytest.fixture
def batch() -> Batch:
    source = torch.Generator().manual_seed(3)
    images, targets = torch.rand(2, 3, 8, 8, generator=source), torch.rand(2, 3, 16, 16, generator=source)
    return Batch(images, targets, torch.Generator().manual_seed(4))


@pytest.fixture(scope="session")
def vgg_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as torchvision keeps its weights, with random ones of VGG19."""
    home = tmp_path_factory.mktemp("torch")
    write_random_vgg19(home)
    return home


def low_features(module: AttentionSR, images: torch.Tensor) -> torch.Tensor:
    head = module.head(images)
    return head + module.body(head)  # type: ignore[no-any-return]


def test_every_term_is_the_documents_formula(batch: Batch) -> None:
    student, teacher = network(8, 0), Teaching(network(12, 1))
    method = build(student, teacher, feature_weight=0.3, output_weight=0.7)
    terms = method.losses(batch, 0.0)
    assert set(terms) == {"pixel", "features", "output"}

    pictures, taught = student(batch.images), teacher(batch.images)
    absolute = [
        abs(one - other)
        for one, other in zip(pictures.flatten().tolist(), batch.targets.flatten().tolist(), strict=True)
    ]
    assert terms["pixel"].item() == pytest.approx(sum(absolute) / len(absolute), rel=1e-4)
    imitated = [
        abs(one - other) for one, other in zip(pictures.flatten().tolist(), taught.flatten().tolist(), strict=True)
    ]
    assert terms["output"].item() == pytest.approx(0.7 * sum(imitated) / len(imitated), rel=1e-4)

    weight, bias = method.connector.weight[:, :, 0, 0], method.connector.bias
    own, wanted = low_features(student, batch.images), low_features(teacher.module, batch.images)  # type: ignore[arg-type]
    total = 0.0
    for image in range(2):
        for row in range(8):
            for column in range(8):
                connected = [
                    sum(w * f for w, f in zip(line, own[image, :, row, column].tolist(), strict=True)) + shift
                    for line, shift in zip(weight.tolist(), bias.tolist(), strict=True)  # type: ignore[union-attr]
                ]
                pairs = zip(connected, wanted[image, :, row, column].tolist(), strict=True)
                total += sum((one - other) ** 2 for one, other in pairs)
    assert terms["features"].item() == pytest.approx(0.3 * total / (2 * 12 * 8 * 8), rel=1e-4)


def test_with_every_weight_0_it_is_l1_alone_and_the_teacher_is_never_asked(batch: Batch) -> None:
    student, teacher = network(8, 0), Teaching(network(12, 1))
    method = build(student, teacher, **SRKD.control())
    terms = method.losses(batch, 0.0)
    assert set(terms) == {"pixel"}
    torch.testing.assert_close(terms["pixel"], functional.l1_loss(student(batch.images), batch.targets))
    assert teacher.asked == 0
    assert {name.split(".")[0] for name in method.state_dict()} == {"student"}
    assert not student._forward_pre_hooks


def test_a_student_that_is_its_teacher_reaches_0(batch: Batch) -> None:
    student = network(8, 0)
    method = build(student, Teaching(network(8, 0)), feature_weight=1.0, output_weight=1.0)
    with torch.no_grad():
        method.connector.weight.copy_(torch.eye(8).view(8, 8, 1, 1))
        method.connector.bias.zero_()  # type: ignore[union-attr]
    terms = method.losses(batch, 0.0)
    assert terms["features"].item() == 0
    assert terms["output"].item() == 0
    assert terms["pixel"].item() > 0


def test_the_connector_learns_and_the_teacher_does_not(batch: Batch) -> None:
    student, teacher = network(8, 0), Teaching(network(12, 1))
    method = build(student, teacher, feature_weight=1.0)
    assert {name.split(".")[0] for name in method.state_dict()} == {"student", "connector"}
    optimizer = torch.optim.Adam(method.parameters(), 0.01)
    values = []
    for _ in range(60):
        optimizer.zero_grad()
        terms = method.losses(batch, 0.0)
        sum(terms.values()).backward()  # type: ignore[union-attr]
        optimizer.step()
        values.append(terms["features"].item())
    assert values[-1] < 0.5 * values[0]
    assert all(parameter.grad is None for parameter in teacher.module.parameters())


def test_the_feature_term_has_no_gradient_in_the_upsampler(batch: Batch) -> None:
    student = network(8, 0)
    build(student, feature_weight=1.0).losses(batch, 0.0)["features"].backward()
    assert student.head.weight.grad is not None
    assert student.tail.weight.grad is None


def test_features_of_different_sizes_are_refused() -> None:
    from spandrel.architectures.SwinIR import SwinIR

    teacher = Teaching(SwinIR(img_size=12, window_size=6, embed_dim=12, depths=[2], num_heads=[2], upscale=2,
                              upsampler="pixelshuffle"))  # fmt: skip
    with pytest.raises(UserError, match=r"patches of 8×8 pixels .* are 8×8 and the teacher's 12×12: take another data"):
        build(network(8, 0), teacher, feature_weight=1.0)
    build(network(8, 0), teacher, output_weight=1.0)  # pictures have one size whatever is padded inside


def test_a_student_without_an_upsampler_can_imitate_but_not_match(batch: Batch) -> None:
    student = nn.Sequential(nn.Upsample(scale_factor=2), nn.Conv2d(3, 3, 3, padding=1))
    with pytest.raises(UserError, match="set feature_weight to 0"):
        build(student, feature_weight=1.0)
    assert set(build(student, output_weight=1.0).losses(batch, 0.0)) == {"pixel", "output"}


def test_without_vggs_weights_a_perceptual_weight_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    assert vgg19_file() == tmp_path / "hub" / "checkpoints" / "vgg19-dcbb9e9d.pth"
    with pytest.raises(BadWeights, match=r"vgg19-dcbb9e9d\.pth': hold perceptual_weight at 0, or fetch them"):
        build(network(8, 0), perceptual_weight=0.5)
    vgg19_file().parent.mkdir(parents=True)
    vgg19_file().write_bytes(b"damaged")
    with pytest.raises(BadWeights, match="is damaged"):
        build(network(8, 0), perceptual_weight=0.5)
    torch.save({"features.0.weight": torch.zeros(64, 3, 3, 3)}, vgg19_file())
    with pytest.raises(BadWeights, match=r"they lack 0\.bias"):
        build(network(8, 0), perceptual_weight=0.5)


def test_the_perceptual_term_is_vggs_features_compared(
    batch: Batch, vgg_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torchvision.models import vgg19

    monkeypatch.setenv("TORCH_HOME", str(vgg_home))
    student = network(8, 0)
    method = build(student, perceptual_weight=0.4)
    term = method.losses(batch, 0.0)["perceptual"]

    reference = vgg19(weights=None).features[:35].eval()
    saved = torch.load(vgg19_file(), weights_only=True)
    reference.load_state_dict({name: saved[f"features.{name}"].float() for name in reference.state_dict()})
    assert isinstance(reference[-1], nn.Conv2d)
    mean, std = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1), torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
    own, true = (reference((pictures - mean) / std) for pictures in (student(batch.images), batch.targets))
    torch.testing.assert_close(term, 0.4 * (own - true).abs().mean())
    assert term.item() > 0

    term.backward()
    assert student.head.weight.grad is not None
    assert {name.split(".")[0] for name in method.state_dict()} == {"student"}
    assert all(not name.startswith("_perceptual") for name, _ in method.named_parameters())


def test_equal_pictures_have_no_perceptual_distance(vgg_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(vgg_home))
    pictures = torch.rand(1, 3, 32, 32)
    assert Perceptual()(pictures, pictures.clone()).item() == 0


def experiment(**sections: Any) -> Experiment:
    given: dict[str, Any] = {
        "method": "sr_kd",
        "task": "super_resolution",
        "data": {"name": "photographs", "scale": 2, "patch_size": 16, "samples": 12},
        "student": {"name": "attention_sr", "arguments": {"width": 6, "blocks": 1}},
        "teacher": {"name": "attention_sr", "arguments": {"width": 8, "blocks": 1}},
        "space": {"perceptual_weight": 0.0, "learning_rate": 0.002},
        "training": {"epochs": 4, "batch_size": 4},
        "search": {"grace_period": 1},
    }
    return Experiment(**(given | sections))


def trainer(data: DataSet, made: Experiment, **setting: float) -> Trainer:
    torch.manual_seed(7)  # the teacher's random weights
    teacher = load_teacher(made, data, CPU)
    return Trainer(made, {**made.paper(), **setting}, data=data, teacher=teacher, device=CPU)


def same(one: object, other: object) -> bool:
    if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one if key != "seconds")
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(same(*pair) for pair in zip(one, other, strict=True))
    return one == other


@pytest.mark.parametrize("perceptual_weight", [0.0, 0.1], ids=["without VGG", "with VGG"])
def test_a_training_that_was_interrupted_ends_as_one_that_was_not(
    perceptual_weight: float,
    small_set: Callable[..., DataSet],
    vgg_home: Path,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(vgg_home))
    data, made = small_set(noise=2.0, samples=12), experiment()
    weights = {"feature_weight": 0.5, "output_weight": 0.5, "perceptual_weight": perceptual_weight}
    whole = trainer(data, made, **weights)
    for _ in range(4):
        whole.epoch()
    first = trainer(data, made, **weights)
    first.epoch()
    first.epoch()
    first.save(tmp_path)
    second = trainer(data, made, **weights)
    assert second.load(tmp_path)
    second.epoch()
    second.epoch()
    assert same(whole.state_dict(), second.state_dict())
    expected = {"pixel", "features", "output", "total"} | ({"perceptual"} if perceptual_weight else set())
    terms = {name.removeprefix("loss/") for name in whole.history[-1].metrics if name.startswith("loss/")}
    assert terms == expected


def test_a_student_learns_more_than_bicubic_interpolation(small_set: Callable[..., DataSet]) -> None:
    data = small_set(samples=96, blur=1.5)
    made = trainer(data, experiment(training={"epochs": 6, "batch_size": 4}), learning_rate=0.005)
    values = [made.epoch().value for _ in range(6)]
    bicubic = TASK.evidence(lambda images: images, data, CPU).facts["bicubic"]["psnr"]
    assert values[-1] > bicubic + 0.5


def test_the_shipped_space_leaves_the_perceptual_term_out_and_its_control_is_l1() -> None:
    made = Experiment.load("sr_kd")
    paper = made.paper()
    assert [paper[name] for name in ("feature_weight", "perceptual_weight", "output_weight")] == [1.0, 0.0, 0.0]
    assert [paper[name] for name in ("optimizer", "learning_rate", "weight_decay")] == ["adam", 0.001, 0.0]
    assert SRKD.control() == {"feature_weight": 0.0, "perceptual_weight": 0.0, "output_weight": 0.0}
    assert SRKDHyperparameters().perceptual_weight == 1.0


def test_the_method_is_for_super_resolution_alone() -> None:
    with pytest.raises(InvalidSetting, match="for super_resolution"):
        experiment(task="classification", data="digits", student="resnet8", teacher="resnet8")
