"""Plain cross-entropy with label smoothing: what every distillation has to beat."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from kdsearch.methods.base import Hyperparameters, Method
from kdsearch.methods.losses import smooth_labels

if TYPE_CHECKING:
    import torch

    from kdsearch.data.base import Batch


class CrossEntropyHyperparameters(Hyperparameters):
    """L = CE(p(x), (1 − ε)·y + ε/K)."""

    label_smoothing: float = Field(
        0.1,
        ge=0,
        lt=1,
        description="ε, the share of each label that is spread over all K classes",
        json_schema_extra={"weight": True},
    )


class CrossEntropy(Method):
    """Cross-entropy of the student's logits [B, K] with smoothed labels (Szegedy et al. 2016)."""

    name = "ce"
    title = "Cross-entropy with label smoothing"
    citation = (
        "C. Szegedy, V. Vanhoucke, S. Ioffe, J. Shlens, Z. Wojna: Rethinking the Inception Architecture for Computer "
        "Vision, CVPR 2016, arXiv 1512.00567"
    )
    notes = (
        "A control without any distillation, mandatory beside every method [ref].",
        "Label smoothing 0.1, searched in [0, 0.3] on a linear scale: values of public reference runs [ref].",
        "Trial 0 smooths by 0.1; trial 1, the control, is cross-entropy with unsmoothed labels [ours].",
        "Under CutMix and Mixup the mixed label is smoothed: (1 − ε)·(λ·y_a + (1 − λ)·y_b) + ε/K [ours].",
        "Learning rate, momentum and weight decay are those of the common protocol of the teacher-free methods [ref].",
    )
    paper_training = {"optimizer": "sgd", "learning_rate": 0.05, "momentum": 0.9, "weight_decay": 5e-4}
    forwards = 1.0
    Hyperparameters = CrossEntropyHyperparameters

    hyperparameters: CrossEntropyHyperparameters

    def losses(self, batch: Batch, progress: float) -> dict[str, torch.Tensor]:
        targets = smooth_labels(batch.targets, self.hyperparameters.label_smoothing)
        return {"cross_entropy": self.task.loss(self.student(batch.images), targets)}
