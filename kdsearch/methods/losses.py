"""What the methods share: pure functions of logits and targets, without state and without randomness.

Classes lie on dimension 1 of logits [B, K] or [B, K, ...]; every further position (a pixel) counts like a sample.
Any weight or temperature may be a number or a tensor.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch.nn import functional

if TYPE_CHECKING:
    import torch


def cross_entropy(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """−Σ_k targets_k · log softmax(logits)_k, averaged over samples: a scalar.

    Args:
        logits: [B, K, ...].
        targets: distributions of the same shape (one-hot, smoothed, or mixed by CutMix or Mixup).
    """
    return functional.cross_entropy(accurate(logits), targets)


def smooth_labels(targets: torch.Tensor, amount: float | torch.Tensor) -> torch.Tensor:
    """(1 − ε)·targets + ε/K with ε = `amount` ∈ [0, 1] (Szegedy et al., CVPR 2016, arXiv 1512.00567)."""
    return (1 - amount) * targets + amount / targets.shape[1]


def kl_divergence(
    teacher_logits: torch.Tensor,
    student_logits: torch.Tensor,
    temperature: float | torch.Tensor = 1.0,
    scale_by_t2: bool = True,
    where: torch.Tensor | None = None,
) -> torch.Tensor:
    """T²·KL(p_teacher ‖ p_student) with p = softmax(logits / T), summed over classes, averaged over samples: a scalar.

    The factor T² keeps the gradient's size when T changes (Hinton, Vinyals, Dean, Distilling the Knowledge in a
    Neural Network, 2015, arXiv 1503.02531). Gradient flows into both arguments: detach the one that teaches.

    Args:
        teacher_logits: [B, K, ...].
        student_logits: of the same shape.
        temperature: T > 0.
        scale_by_t2: False leaves the factor T² away.
        where: weights [B, ...], or bool: what has 0 contributes nothing, yet stays in the denominator.
    """
    student = functional.log_softmax(accurate(student_logits) / temperature, dim=1)
    teacher = functional.log_softmax(accurate(teacher_logits) / temperature, dim=1)
    divergence = functional.kl_div(student, teacher, reduction="none", log_target=True).sum(1)
    if where is not None:
        divergence = divergence * where
    mean = divergence.mean()
    return mean * temperature**2 if scale_by_t2 else mean


def accurate(logits: torch.Tensor) -> torch.Tensor:
    """Half-precision logits as float32: dividing by T and exponentiating would lose what little they hold."""
    return logits.float() if logits.itemsize < 4 else logits
