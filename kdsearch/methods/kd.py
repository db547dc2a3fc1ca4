"""Hinton's knowledge distillation: the student imitates a teacher's softened outputs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from kdsearch.methods.base import Hyperparameters, Method
from kdsearch.methods.losses import kl_divergence

if TYPE_CHECKING:
    import torch

    from kdsearch.data.base import Batch


class KDHyperparameters(Hyperparameters):
    """L = α·T²·KL(p_teacher ‖ p_student) + (1 − α)·CE, p = softmax(z / T)."""

    temperature: float = Field(4.0, gt=0, le=100, description="T, divides the logits z of teacher and student")
    alpha: float = Field(
        0.9,
        ge=0,
        le=1,
        description="α, weight of T²·KL(p_teacher ‖ p_student); the cross-entropy has the rest, 1 − α",
        json_schema_extra={"weight": True},
    )


class KD(Method):
    """L = α·T²·KL(p_teacher ‖ p_student) + (1 − α)·CE on the logits [B, K] of one batch."""

    name = "kd"
    title = "Knowledge distillation from a teacher's logits"
    citation = (
        "G. Hinton, O. Vinyals, J. Dean: Distilling the Knowledge in a Neural Network, NeurIPS Deep Learning Workshop "
        "2014, arXiv 1503.02531"
    )
    notes = (
        "L = α·T²·KL(p_teacher ‖ p_student) + (1 − α)·CE with T = 4 and α = 0.9 [doc].",
        "The KL divergence is summed over classes and averaged over samples [ours].",
        "Trained with SGD 0.1, momentum 0.9, weight decay 5e-4, cosine, 200 epochs and batch 128 on CIFAR-100 [doc].",
        "Under CutMix and Mixup teacher and student see the same mixed image [doc].",
        "The cross-entropy then takes the mixed label, and the teacher's answer to the mixed image stays as it is "
        "[ours].",
        "Reported for ResNet101 → MobileNetV2 on CIFAR-100: teacher 79.91, scratch 61.03, distilled 69.02 [doc].",
        "Public scratch runs of MobileNetV2 reach 68.1 to 68.4 there: compare with a scratch control of equal budget "
        "[ref].",
        "The control, trial 1, is α = 0: plain cross-entropy [ours].",
        "Searched in T ∈ [1, 20] (log) and α ∈ [0.1, 0.99] (linear) [ref].",
    )
    needs_teacher = True
    paper_training = {"optimizer": "sgd", "learning_rate": 0.1, "momentum": 0.9, "weight_decay": 5e-4}
    forwards = 1.0
    Hyperparameters = KDHyperparameters

    hyperparameters: KDHyperparameters

    def losses(self, batch: Batch, progress: float) -> dict[str, torch.Tensor]:
        h = self.hyperparameters
        logits = self.student(batch.images)
        divergence = kl_divergence(self.teacher(batch.images), logits, h.temperature)
        return {
            "cross_entropy": (1 - h.alpha) * self.task.loss(logits, batch.targets),
            "divergence": h.alpha * divergence,
        }
