"""Hinton's knowledge distillation: the student imitates a teacher's softened outputs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import torch
from pydantic import Field
from torch.nn import functional

from kdsearch.errors import InvalidSetting
from kdsearch.methods.base import Hyperparameters, Method
from kdsearch.methods.losses import accurate, kl_divergence

if TYPE_CHECKING:
    from torch import nn

    from kdsearch.data.base import Batch, Facts
    from kdsearch.methods.base import Teacher
    from kdsearch.tasks.base import Task


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
    form: Literal["pixel", "channel"] = Field(
        "pixel",
        description="segmentation: p is a softmax over the classes of each pixel, or over the pixels of each class "
        "(channel-wise distillation); labels of whole images have the first alone",
    )


class KD(Method):
    """L = α·T²·KL(p_teacher ‖ p_student) + (1 − α)·CE on the logits [B, K] or [B, K, H, W] of one batch.

    Raises InvalidSetting for the channel form where logits have no pixels.
    """

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
        "Segmentation, form pixel: the same KL at every pixel that counts, a mean over those of the batch [ours].",
        "Segmentation, form channel (C. Shu, Y. Liu, J. Gao, Z. Yan, C. Shen: Channel-wise Knowledge Distillation for "
        "Dense Prediction, ICCV 2021, arXiv 2011.13256): p is a softmax over the pixels of each class map and the term "
        "T²/C·Σ_c Σ_i p_t·log(p_t / p_s), averaged over images, with T = 4 on logits [doc].",
        "That paper adds its term to the cross-entropy with a weight of 3; here α and 1 − α share as above [ours].",
        "Pixels that do not count are left out of the channel form's softmax, which the paper takes over all [ours].",
        "The control, trial 1, is α = 0: plain cross-entropy [ours].",
        "Searched in T ∈ [1, 20] (log) and α ∈ [0.1, 0.99] (linear) [ref].",
    )
    tasks = ("classification", "segmentation")
    needs_teacher = True
    paper_training = {"optimizer": "sgd", "learning_rate": 0.1, "momentum": 0.9, "weight_decay": 5e-4}
    forwards = 1.0
    Hyperparameters = KDHyperparameters

    hyperparameters: KDHyperparameters

    def __init__(
        self, hyperparameters: KDHyperparameters, student: nn.Module, teacher: Teacher | None, task: Task, facts: Facts
    ) -> None:
        super().__init__(hyperparameters, student, teacher, task, facts)
        if hyperparameters.form == "channel" and task.name == "classification":
            raise InvalidSetting("form", "channel", "is for segmentation: the logits of classification have no pixels")

    def losses(self, batch: Batch, progress: float) -> dict[str, torch.Tensor]:
        h = self.hyperparameters
        logits, taught = self.student(batch.images), self.taught(batch)
        # Teacher and student are two views of one truth: they agree wherever it counts.
        where = self.task.agreement(logits, batch.targets, batch.targets, batch)
        divergence = (kl_divergence if h.form == "pixel" else channel_divergence)(
            taught, logits, h.temperature, where=where
        )
        return {
            "cross_entropy": (1 - h.alpha) * self.task.loss(logits, batch.targets),
            "divergence": h.alpha * divergence,
        }


def channel_divergence(
    teacher_logits: torch.Tensor,
    student_logits: torch.Tensor,
    temperature: float | torch.Tensor,
    where: torch.Tensor | None = None,
) -> torch.Tensor:
    """T²/C·Σ_c KL(p_teacher ‖ p_student), p = softmax over the pixels of class c, averaged over images: a scalar.

    Shu et al., Channel-wise Knowledge Distillation for Dense Prediction, ICCV 2021, arXiv 2011.13256, equations 4, 5.

    Args:
        teacher_logits: [B, C, H, W].
        student_logits: of the same shape.
        temperature: T > 0.
        where: [B, H, W]; pixels at 0 are left out of the softmax. An image that has no others contributes 0.
    """

    def log_softmax(logits: torch.Tensor) -> torch.Tensor:
        scaled = accurate(logits) / temperature
        if where is not None:  # the lowest number and not −∞: an image without pixels must not become NaN
            scaled = scaled.masked_fill(where[:, None] == 0, torch.finfo(scaled.dtype).min)
        return functional.log_softmax(scaled.flatten(2), dim=2)

    student, teacher = log_softmax(student_logits), log_softmax(teacher_logits)
    divergence = functional.kl_div(student, teacher, reduction="none", log_target=True).sum(2)
    return divergence.mean() * temperature**2
