"""Layered self-supervised distillation: views, joint labels, snapshot and loss, against loops written out here."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import nn

from kdsearch import tasks
from kdsearch.data.base import Batch, Facts
from kdsearch.errors import InvalidSetting
from kdsearch.methods.lsskd import LSSKD, LSSKDHyperparameters

if TYPE_CHECKING:
    from conftest import StagedStudent


def build(student: nn.Module, facts: Facts, **hyperparameters: Any) -> LSSKD:
    torch.manual_seed(7)
    return LSSKD(LSSKDHyperparameters(**hyperparameters), student, None, tasks.find("classification"), facts)


def perturb(module: nn.Module) -> None:
    """What an epoch of training would do: other weights, other running statistics."""
    with torch.no_grad():
        for tensor in [*module.parameters(), *(b for b in module.buffers() if b.is_floating_point())]:
            tensor.add_(0.1 * torch.rand_like(tensor))


def softmax(logits: Sequence[float], temperature: float = 1.0) -> list[float]:
    powers = [math.exp(logit / temperature) for logit in logits]
    return [power / sum(powers) for power in powers]


def turned(image: list[list[float]], times: int) -> list[list[float]]:
    """A quarter turn counter-clockwise, so many times."""
    for _ in range(times):
        image = [list(row) for row in zip(*image, strict=True)][::-1]
    return image


def answers(student: Any, heads: nn.ModuleDict, images: torch.Tensor) -> tuple[list[torch.Tensor], torch.Tensor, Any]:
    """Features, logits and head logits of a StagedStudent, stage by stage."""
    features, feature = [], images
    for stage in (student.stage1, student.stage2, student.stage3):
        feature = stage(feature)
        features.append(feature)
    logits = student.classifier(feature.mean((2, 3)))
    return features, logits, {number: head(features[int(number) - 1]) for number, head in heads.items()}


@pytest.mark.parametrize("schedule", ["linear", "constant"])
@pytest.mark.parametrize("task_views", ["unrotated", "all"])
def test_loss_is_the_documents_formula(
    staged_student: StagedStudent,
    facts: Facts,
    make_batch: Callable[..., Batch],
    schedule: str,
    task_views: str,
) -> None:
    temperature, alpha, beta, gamma = 2.0, 0.6, 0.3, 0.7
    method = build(
        staged_student,
        facts,
        temperature=temperature,
        alpha=alpha,
        beta=beta,
        gamma=gamma,
        alpha_schedule=schedule,
        task_views=task_views,
    ).train()
    perturb(method.heads)
    before = copy.deepcopy((staged_student, method.heads))
    method.start_epoch(3)
    perturb(method.student)
    perturb(method.heads)
    batch = make_batch(samples=4)
    terms = method.losses(batch, 0.35)  # epoch 3 of 10: the linear share is 0.6·4/10

    images = torch.tensor([[turned(image[0], j)] for j in range(4) for image in batch.images.tolist()])
    features, logits, heads = answers(staged_student, method.heads, images)
    _, past_logits, past_heads = answers(before[0].eval(), before[1].eval(), images)
    share = alpha * 4 / 10 if schedule == "linear" else alpha
    labels = batch.targets.argmax(1).tolist()

    def soft_cross_entropy(answer: list[float], past: list[float], label: int) -> float:
        target = [share * p for p in softmax(past)]
        target[label] += 1 - share
        return -sum(t * math.log(q) for t, q in zip(target, softmax(answer), strict=True))

    seen = [i for j in range(4) for i in range(4) if j == 0 or task_views == "all"]
    own = [soft_cross_entropy(logits[r].tolist(), past_logits[r].tolist(), labels[i]) for r, i in enumerate(seen)]
    assert terms["cross_entropy"].item() == pytest.approx((1 - beta) * sum(own) / len(seen), rel=1e-4)
    for number in "123":
        joint = sum(
            soft_cross_entropy(heads[number][4 * j + i].tolist(), past_heads[number][4 * j + i].tolist(), 4 * y + j)
            for j in range(4)
            for i, y in enumerate(labels)
        )
        assert terms[f"head{number}"].item() == pytest.approx((1 - beta) * joint / 16, rel=1e-4)

    divergence = 0.0
    for number in "12":
        for row in range(16):
            p, q = (softmax(heads[n][row].tolist(), temperature) for n in ("3", number))
            divergence += sum(a * math.log(a / b) for a, b in zip(p, q, strict=True)) / 16
    assert terms["divergence"].item() == pytest.approx(beta * temperature**2 * divergence, rel=1e-4)

    distance = 0.0
    for number, side in (("1", 4), ("2", 2)):
        blocks = features[int(number) - 1].reshape(16, -1, 2, side, 2, side).mean((3, 5))
        weight = method.projections[number].weight.flatten(1)
        distance += ((torch.einsum("oc,bchw->bohw", weight, blocks) - features[2]) ** 2).mean().item()
    assert terms["features"].item() == pytest.approx(gamma * distance, rel=1e-4)
    assert set(terms) == {"cross_entropy", "head1", "head2", "head3", "divergence", "features"}


def test_epoch_zero_learns_the_labels_alone(
    staged_student: StagedStudent, facts: Facts, make_batch: Callable[..., Batch]
) -> None:
    batch = make_batch()
    method = build(staged_student, facts, alpha=0.9, beta=0.0, alpha_schedule="constant")
    method.start_epoch(0)
    plain = nn.functional.cross_entropy(staged_student(batch.images), batch.targets.argmax(1))
    torch.testing.assert_close(method.losses(batch, 0.0)["cross_entropy"], plain)
    method.start_epoch(1)
    assert method.losses(batch, 0.1)["cross_entropy"].item() != pytest.approx(plain.item(), rel=1e-3)


def test_the_share_of_the_past_follows_the_full_budget(staged_student: StagedStudent, facts: Facts) -> None:
    """The same epoch has the same share whatever rung ends the trial, and the first step of an epoch is its own."""
    facts = replace(facts, epochs=27)
    steps = 17
    method = build(staged_student, facts, alpha=0.8)
    for epoch in range(27):
        for step in (0, steps - 1):
            share = method._share((epoch * steps + step) / (27 * steps))
            assert share == pytest.approx(0.8 * (epoch + 1) / 27)


def test_joint_labels_tell_what_the_views_show(
    staged_student: StagedStudent, facts: Facts, make_batch: Callable[..., Batch]
) -> None:
    """A published listing stacks views view-major and labels them sample-major: 75 % of its labels are wrong.

    Here each image carries its class as the brightness of its top left corner, so that class and turn can be read off
    the very images that the student is shown.
    """
    from kdsearch.methods.transformations import joint_targets, stack_views

    classes = 8
    method = build(staged_student, facts)
    images = torch.zeros(classes, 1, 8, 8)
    images[:, 0, 0, 0] = torch.arange(1, classes + 1)
    joint = joint_targets(torch.eye(classes), 4).argmax(1).tolist()
    corners = [(0, 0), (7, 0), (7, 7), (0, 7)]  # where the corner goes with each quarter turn counter-clockwise
    shown = []
    for image in stack_views(images, method.views)[:, 0]:
        ((y, x),) = image.nonzero().tolist()
        shown.append(4 * (int(image[y, x]) - 1) + corners.index((y, x)))
    assert joint == shown
    sample_major = [4 * label + j for label in range(classes) for j in range(4)]
    right = sum(wrong == truth for wrong, truth in zip(sample_major, shown, strict=True))
    assert right <= len(shown) / 4


def test_a_mixed_label_is_the_same_mixture_of_joint_labels_under_every_view() -> None:
    from kdsearch.methods.transformations import joint_targets

    joint = joint_targets(torch.tensor([[0.7, 0.3, 0.0], [0.0, 0.0, 1.0]]), 4)
    for j in range(4):
        expected = torch.zeros(2, 12)
        expected[0, 4 * 0 + j], expected[0, 4 * 1 + j], expected[1, 4 * 2 + j] = 0.7, 0.3, 1.0
        torch.testing.assert_close(joint[2 * j : 2 * j + 2], expected)


def test_images_are_mixed_before_they_are_turned(
    staged_student: StagedStudent, facts: Facts, make_batch: Callable[..., Batch]
) -> None:
    plain = make_batch(samples=2)
    share = 0.3
    batch = replace(
        plain,
        images=share * plain.images + (1 - share) * plain.images.flip(0),
        targets=share * plain.targets + (1 - share) * plain.targets.flip(0),
    )
    method = build(staged_student, facts, beta=0.0, heads="2").train()
    terms = method.losses(batch, 0.0)
    images = torch.cat([torch.rot90(batch.images, j, (2, 3)) for j in range(4)])
    log_p = answers(staged_student, method.heads, images)[2]["2"].log_softmax(1)
    expected = 0.0
    for j in range(4):
        for i in range(2):  # image i has class i, and class 1 - i is mixed in
            row = log_p[2 * j + i]
            expected -= (share * row[4 * i + j] + (1 - share) * row[4 * (1 - i) + j]).item() / 8
    assert terms["head2"].item() == pytest.approx(expected, rel=1e-5)


def test_the_student_is_shown_all_views_in_one_pass(
    staged_student: StagedStudent, facts: Facts, make_batch: Callable[..., Batch]
) -> None:
    shown: list[torch.Tensor] = []
    method = build(staged_student, facts)
    staged_student.register_forward_pre_hook(lambda module, images: shown.append(images[0]))
    batch = make_batch(samples=3)
    method.losses(batch, 0.0)
    assert len(shown) == 1
    assert torch.equal(shown[0], torch.cat([torch.rot90(batch.images, j, (2, 3)) for j in range(4)]))


def test_channel_permutations_give_six_views_of_a_colour_image(
    staged_student: StagedStudent, facts: Facts, make_batch: Callable[..., Batch]
) -> None:
    student = type(staged_student)(channels=3)
    facts = replace(facts, channels=3, size=(8, 6))
    method = build(student, facts, transformation="channel_permutation", heads="last")
    batch = make_batch(samples=2, channels=3, size=(8, 6))
    views = torch.stack([view(batch.images) for view in method.views])
    assert torch.equal(views[0], batch.images)
    orders = [[batch.images[0].eq(channel).all((1, 2)).int().argmax().item() for channel in view[0]] for view in views]
    assert len({tuple(order) for order in orders}) == 6
    assert all(sorted(order) == [0, 1, 2] for order in orders)
    assert method.heads["3"][-1].out_features == 6 * 3
    assert torch.stack(list(method.losses(batch, 0.0).values())).isfinite().all()


@pytest.mark.parametrize(
    ("changes", "hyperparameters", "sentence"),
    [
        ({"size": (8, 12)}, {}, "images of 8×12 pixels cannot be turned by 90°"),
        ({}, {"transformation": "channel_permutation"}, "needs images of 2 or 3 channels, not 1"),
        ({}, {"heads": "1,4"}, "heads = '1,4': the student's stages are numbered 1 to 3"),
        ({}, {"heads": "0"}, "heads = '0': the student's stages are numbered 1 to 3"),
    ],
)
def test_what_images_or_student_do_not_allow_is_refused(
    staged_student: StagedStudent, facts: Facts, changes: Any, hyperparameters: Any, sentence: str
) -> None:
    with pytest.raises(InvalidSetting, match=sentence):
        build(staged_student, replace(facts, **changes), **hyperparameters)


@pytest.mark.parametrize(
    ("heads", "stages", "projected"),
    [
        ("all", "123", "12"),
        ("middle", "2", "2"),
        ("last", "3", ""),
        ("3, 1", "13", "1"),
        (2, "2", "2"),
        ("none", "", ""),
    ],
)
def test_heads_hang_where_they_are_asked_for(
    staged_student: StagedStudent,
    facts: Facts,
    make_batch: Callable[..., Batch],
    heads: Any,
    stages: str,
    projected: str,
) -> None:
    method = build(staged_student, facts, heads=heads)
    assert "".join(method.heads) == stages
    assert "".join(method.projections) == projected
    terms = method.losses(make_batch(), 0.0)
    assert {name for name in terms if name.startswith("head")} == {f"head{stage}" for stage in stages}
    assert ("divergence" in terms) == (len(stages) > 1)
    assert ("features" in terms) == bool(projected)


@pytest.mark.parametrize("heads", ["some", "1;3", "", "1,", "-1"])
def test_heads_that_mean_nothing_are_refused(heads: str) -> None:
    with pytest.raises(ValueError, match="must be all, middle, last, none, or stage numbers from 1"):
        LSSKDHyperparameters(heads=heads)


def test_deep_heads_repeat_the_stages_that_remain(
    staged_student: StagedStudent, facts: Facts, make_batch: Callable[..., Batch]
) -> None:
    method = build(staged_student, facts, head_kind="deep")
    copied = [
        [tuple(p.shape) for name, p in staged_student.named_parameters() if name[:6] in later]
        for later in ({"stage2", "stage3"}, {"stage3"}, set())
    ]
    for number, expected in zip("123", copied, strict=True):
        shapes = [tuple(parameter.shape) for parameter in method.heads[number].parameters()]
        assert shapes == [*expected, (12, 8), (12,)]
    own = {parameter.data_ptr() for parameter in staged_student.parameters()}
    assert not own & {parameter.data_ptr() for parameter in method.heads.parameters()}
    assert torch.stack(list(method.losses(make_batch(), 0.0).values())).isfinite().all()


def test_a_student_whose_stages_cannot_be_repeated_gets_no_deep_heads(
    staged_student: StagedStudent, facts: Facts
) -> None:
    class Doubling(type(staged_student)):  # type: ignore[misc]
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return self.classifier(self.stage3(2 * self.stage2(self.stage1(images))).mean((2, 3)))

    with pytest.raises(InvalidSetting, match="head_kind = 'deep': the stages of Doubling after number 1 cannot"):
        build(Doubling(), facts, head_kind="deep")
    assert "1" in build(Doubling(), facts, head_kind="light").heads


def test_the_deepest_head_teaches_and_is_not_taught(
    staged_student: StagedStudent, facts: Facts, make_batch: Callable[..., Batch]
) -> None:
    method = build(staged_student, facts)
    method.losses(make_batch(), 0.0)["divergence"].backward()
    assert all(parameter.grad is None for parameter in method.heads["3"].parameters())
    for number in "12":
        assert all(parameter.grad is not None for parameter in method.heads[number].parameters())


def test_the_final_features_teach_and_are_not_taught(
    staged_student: StagedStudent, facts: Facts, make_batch: Callable[..., Batch]
) -> None:
    method = build(staged_student, facts)
    method.losses(make_batch(), 0.0)["features"].backward()
    assert all(parameter.grad is None for parameter in staged_student.stage3.parameters())
    for part in (staged_student.stage1, staged_student.stage2, method.projections):
        assert all(parameter.grad is not None for parameter in part.parameters())


def test_the_snapshot_is_the_model_as_the_last_epoch_left_it(
    staged_student: StagedStudent, facts: Facts, make_batch: Callable[..., Batch]
) -> None:
    method = build(staged_student, facts).train()
    perturb(method.student)
    method.start_epoch(1)
    kept = {name: tensor.clone() for name, tensor in method.snapshot.state_dict().items()}
    for name, tensor in staged_student.state_dict().items():
        assert torch.equal(kept[f"student.{name}"], tensor)
    optimizer = torch.optim.SGD([p for p in method.parameters() if p.requires_grad], lr=0.1)
    sum(method.losses(make_batch(), 0.1).values()).backward()
    optimizer.step()
    for name, tensor in method.snapshot.state_dict().items():
        assert torch.equal(kept[name], tensor), f"{name} changed though nothing was remembered"
    assert not torch.equal(method.snapshot.student.classifier.weight, staged_student.classifier.weight)
    assert not any(module.training for module in method.snapshot.modules())
    assert not any(p.requires_grad or p.grad is not None for p in method.snapshot.parameters())


def test_the_memory_is_part_of_the_state(
    staged_student: StagedStudent, facts: Facts, make_batch: Callable[..., Batch]
) -> None:
    """A snapshot that differs from the student's present weights comes back with the state dict."""
    method = build(staged_student, facts)
    method.start_epoch(1)
    perturb(method.student)
    twin = build(copy.deepcopy(staged_student), facts)
    perturb(twin)
    twin.load_state_dict(method.state_dict())
    twin._remembers = True
    ours, theirs = (m.losses(make_batch(), 0.1) for m in (method, twin))
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_the_student_keeps_the_plain_networks_parameters(staged_student: StagedStudent, facts: Facts) -> None:
    names = list(staged_student.state_dict())
    build(staged_student, facts)
    assert list(staged_student.state_dict()) == names
    assert not staged_student._forward_hooks


def test_building_disturbs_neither_statistics_nor_modes(facts: Facts) -> None:
    student = nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(4, 3),
    ).train()
    before = {name: tensor.clone() for name, tensor in student.state_dict().items()}
    build(student, facts)
    assert all(module.training for module in student.modules())
    assert all(torch.equal(tensor, before[name]) for name, tensor in student.state_dict().items())


def test_the_control_is_plain_cross_entropy_of_one_plain_pass(
    staged_student: StagedStudent, facts: Facts, make_batch: Callable[..., Batch]
) -> None:
    shown: list[int] = []
    batch = make_batch()
    method = build(staged_student, replace(facts, size=(8, 12)), **LSSKD.control())
    batch = make_batch(size=(8, 12))
    staged_student.register_forward_pre_hook(lambda module, images: shown.append(len(images[0])))
    for epoch in (0, 1):
        method.start_epoch(epoch)
        terms = method.losses(batch, epoch / 10)
        assert set(terms) == {"cross_entropy"}
        plain = nn.functional.cross_entropy(staged_student(batch.images), batch.targets.argmax(1))
        torch.testing.assert_close(terms["cross_entropy"], plain)
    assert shown == [len(batch.images)] * 4


def test_each_heads_cost_is_its_share_of_the_students_multiply_adds(
    staged_student: StagedStudent, facts: Facts, make_batch: Callable[..., Batch]
) -> None:
    method = build(staged_student, facts, heads="1,3")
    observed = method.diagnostics(make_batch(), 0.0)
    student = 64 * 9 * 1 * 4 + 16 * 9 * 4 * 6 + 4 * 9 * 6 * 8 + 8 * 3
    head1 = 64 * 4 * 8 + 8 * 12 + 4 * 4 * 8  # 1×1 convolution on 8×8, linear, projection on 2×2
    head3 = 4 * 8 * 8 + 8 * 12
    assert observed["head1_cost"] == pytest.approx(head1 / student)
    assert observed["head3_cost"] == pytest.approx(head3 / student)
    assert set(observed) == {"head1_cost", "head3_cost", "head1_gain", "head3_gain"}


def test_each_heads_gain_is_the_cosine_of_its_gradient_with_the_tasks(
    staged_student: StagedStudent, facts: Facts, make_batch: Callable[..., Batch]
) -> None:
    batch = make_batch()
    method = build(staged_student, facts, beta=0.0, alpha=0.0, gamma=0.0, heads="1").train()
    observed = method.diagnostics(batch, 0.0)["head1_gain"]
    gradients = []
    for name in ("cross_entropy", "head1"):
        method.zero_grad()
        method.losses(batch, 0.0)[name].backward()
        gradients.append([x for p in staged_student.stage1.parameters() for x in p.grad.flatten().tolist()])
    task, head = gradients
    dot = sum(a * b for a, b in zip(task, head, strict=True))
    expected = dot / math.sqrt(sum(a * a for a in task) * sum(b * b for b in head))
    assert observed == pytest.approx(expected, rel=1e-3)


def test_diagnostics_leave_no_trace(facts: Facts, make_batch: Callable[..., Batch]) -> None:
    student = nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Dropout(0.5),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(4, 3),
    )
    method = build(student, facts).train()
    batch = make_batch()
    before = {name: tensor.clone() for name, tensor in method.state_dict().items()}
    random, own = torch.get_rng_state(), batch.generator.get_state()
    assert method.diagnostics(batch, 0.0)
    assert torch.equal(torch.get_rng_state(), random)
    assert torch.equal(batch.generator.get_state(), own)
    assert all(torch.equal(tensor, before[name]) for name, tensor in method.state_dict().items())
    assert all(parameter.grad is None for parameter in method.parameters())
