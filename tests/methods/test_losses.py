"""The shared loss functions against numbers worked out by hand and against limits known from theory."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional

from kdsearch.methods.losses import cross_entropy, kl_divergence, smooth_labels


def softmax(logits: list[float], temperature: float = 1.0) -> list[float]:
    powers = [math.exp(logit / temperature) for logit in logits]
    return [power / sum(powers) for power in powers]


def kl(p: list[float], q: list[float]) -> float:
    return sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))


def test_cross_entropy_of_a_mixed_label_is_the_mixture_of_both() -> None:
    logits, targets = [1.0, 2.0, 0.5], [0.7, 0.3, 0.0]
    expected = -sum(t * math.log(p) for t, p in zip(targets, softmax(logits), strict=True))
    assert cross_entropy(torch.tensor([logits]), torch.tensor([targets])).item() == pytest.approx(expected, rel=1e-6)


def test_cross_entropy_averages_over_samples_and_pixels() -> None:
    logits = torch.randn(2, 3, 4, 5)
    labels = torch.randint(0, 3, (2, 4, 5))
    targets = functional.one_hot(labels, 3).movedim(-1, 1).float()
    one_by_one = [
        functional.cross_entropy(logits[i : i + 1, :, y, x], labels[i : i + 1, y, x])
        for i in range(2)
        for y in range(4)
        for x in range(5)
    ]
    torch.testing.assert_close(cross_entropy(logits, targets), torch.stack(one_by_one).mean())


def test_smoothing_spreads_its_share_over_all_classes() -> None:
    smoothed = smooth_labels(torch.tensor([[0.0, 1.0, 0.0, 0.0]]), 0.2)
    torch.testing.assert_close(smoothed, torch.tensor([[0.05, 0.85, 0.05, 0.05]]))


def test_smoothing_agrees_with_pytorchs_own() -> None:
    logits, labels = torch.randn(5, 4), torch.tensor([0, 1, 2, 3, 1])
    ours = cross_entropy(logits, smooth_labels(functional.one_hot(labels, 4).float(), 0.1))
    torch.testing.assert_close(ours, functional.cross_entropy(logits, labels, label_smoothing=0.1))


def test_divergence_is_summed_over_classes_and_averaged_over_samples() -> None:
    teacher, student = [[2.0, 0.0, -1.0], [0.0, 1.0, 0.0]], [[0.0, 0.0, 0.0], [1.0, 1.0, -2.0]]
    temperature = 2.0
    each = [kl(softmax(t, temperature), softmax(s, temperature)) for t, s in zip(teacher, student, strict=True)]
    scaled = kl_divergence(torch.tensor(teacher), torch.tensor(student), temperature)
    plain = kl_divergence(torch.tensor(teacher), torch.tensor(student), temperature, scale_by_t2=False)
    assert scaled.item() == pytest.approx(4 * sum(each) / 2, rel=1e-5)
    assert plain.item() == pytest.approx(sum(each) / 2, rel=1e-5)


def test_divergence_points_from_teacher_to_student() -> None:
    teacher, student = torch.tensor([[3.0, 0.0]]), torch.tensor([[0.0, 0.5]])
    forwards, backwards = kl_divergence(teacher, student).item(), kl_divergence(student, teacher).item()
    assert forwards == pytest.approx(kl(softmax([3.0, 0.0]), softmax([0.0, 0.5])), rel=1e-5)
    assert backwards == pytest.approx(kl(softmax([0.0, 0.5]), softmax([3.0, 0.0])), rel=1e-5)
    assert forwards != pytest.approx(backwards, rel=0.01)


def test_divergence_of_pixels_is_averaged_over_them() -> None:
    teacher, student = torch.randn(2, 3, 4, 4), torch.randn(2, 3, 4, 4)
    as_samples = [logits.movedim(1, -1).reshape(-1, 3) for logits in (teacher, student)]
    torch.testing.assert_close(kl_divergence(teacher, student, 3.0), kl_divergence(*as_samples, 3.0))


def test_samples_left_out_contribute_nothing_but_stay_in_the_mean() -> None:
    teacher, student = torch.randn(4, 3), torch.randn(4, 3)
    counted = kl_divergence(teacher, student, where=torch.tensor([True, False, True, False]))
    torch.testing.assert_close(counted, kl_divergence(teacher[::2], student[::2]) * 2 / 4)


def test_equal_logits_diverge_by_nothing() -> None:
    logits = torch.randn(4, 5, requires_grad=True)
    divergence = kl_divergence(logits.detach(), logits, 4.0)
    divergence.backward()
    assert divergence.item() == 0
    assert logits.grad is not None
    assert logits.grad.abs().max().item() < 1e-7


def test_high_temperature_turns_distillation_into_logit_matching() -> None:
    """T → ∞: the gradient of T²·KL is (centred student logits − centred teacher logits) / K (Hinton et al. 2015)."""
    teacher, student = torch.randn(1, 5, dtype=torch.float64), torch.randn(1, 5, dtype=torch.float64)
    student.requires_grad_()
    kl_divergence(teacher, student, 1e6).backward()
    matching = ((student - student.mean()) - (teacher - teacher.mean())).detach() / 5
    torch.testing.assert_close(student.grad, matching, rtol=0, atol=2e-5)  # the next term is of z²/T: |z| is below 4


def test_extreme_logits_stay_finite_where_a_divergence_of_probabilities_does_not() -> None:
    """A published listing hands log-probabilities where probabilities belong and the other way round: NaN at step 1."""
    teacher, student = torch.tensor([[300.0, 0.0, -300.0]]), torch.tensor([[-300.0, 0.0, 300.0]], requires_grad=True)
    as_published = functional.kl_div(student.softmax(1), teacher.log_softmax(1), reduction="batchmean")
    assert as_published.isnan()
    divergence = kl_divergence(teacher, student)
    divergence.backward()
    assert divergence.item() == pytest.approx(600.0)
    assert student.grad is not None
    assert student.grad.isfinite().all()


def test_half_precision_logits_are_computed_in_single_precision() -> None:
    teacher, student = torch.randn(4, 10).bfloat16(), torch.randn(4, 10).bfloat16()
    assert kl_divergence(teacher, student, 3.0).dtype is torch.float32
    torch.testing.assert_close(
        kl_divergence(teacher, student, 3.0), kl_divergence(teacher.float(), student.float(), 3.0), rtol=0, atol=0
    )


def test_gradients_agree_with_finite_differences() -> None:
    teacher, student = (torch.randn(3, 4, dtype=torch.float64, requires_grad=True) for _ in range(2))
    temperature = torch.tensor(2.5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(kl_divergence, (teacher, student, temperature))
