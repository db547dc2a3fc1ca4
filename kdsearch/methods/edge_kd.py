"""Edge detection taught by a larger network: its edge probabilities are imitated beside the annotated edges."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field
from torch.nn import functional

from kdsearch.data.dense.edge_maps import counted
from kdsearch.methods.base import Hyperparameters, Method
from kdsearch.tasks.edges import edge_loss

if TYPE_CHECKING:
    import torch

    from kdsearch.data.base import Batch


class EdgeKDHyperparameters(Hyperparameters):
    """L = (1 − α)·BCE(s, y; w) + α·I(σ(s), σ(t)), s and t the logits of student and teacher."""

    alpha: float = Field(
        0.5,
        ge=0,
        le=1,
        description="α, weight of the imitation I(σ(s), σ(t)); the annotated edges have the rest, 1 − α",
        json_schema_extra={"weight": True},
    )
    pos_weight: float = Field(
        10.0, gt=0, le=1000, description="w, how many times a pixel with an edge counts in BCE(s, y; w)"
    )
    imitation: Literal["mse", "bce"] = Field(
        "mse",
        description="I: mse is the mean of (σ(s) − σ(t))², bce the mean of −σ(t)·log σ(s) − (1 − σ(t))·log(1 − σ(s))",
    )


class EdgeKD(Method):
    """L = (1 − α)·BCE(s, y; w) + α·I(σ(s), σ(t)) on the logits [B, 1, H, W] of one batch, means over what counts."""

    name = "edge_kd"
    title = "Edge detection with imitation of a teacher's probabilities"
    citation = (
        "A project report on distilling U-Net/ResNet34 into U-Net/MobileNetV2 for edges on BSDS500; the idea is from "
        "G. Hinton, O. Vinyals, J. Dean: Distilling the Knowledge in a Neural Network, 2015, arXiv 1503.02531"
    )
    notes = (
        "L = (1 − α)·BCE(s, y; w) + α·mean((σ(s) − σ(t))²) with α = 0.5 and pos_weight w = 10 [doc].",
        "In place of the squares the imitation may be the binary cross-entropy of the two probabilities [doc].",
        "A pixel's target y is 1 where any annotator marks an edge [ours].",
        "Pixels beyond the picture in its frame, or brought in by a crop, count in neither term [ours].",
        "Trained with Adam 3e-4, no weight decay, the rate divided by 10 after 2 epochs without progress, 15 epochs, "
        "batch 16 [doc].",
        "That factor and the absence of weight decay are the optimisers' own defaults: the document states neither "
        "[ours].",
        "Reported for U-Net/ResNet34 (24,436,369 parameters) to U-Net/MobileNetV2 (6,628,945) on BSDS500 at 256×256: "
        "Dice of the teacher 0.7270, from scratch 0.7047, distilled 0.7226 [doc].",
        "At epoch 10 of 15 scratch led by 0.7076 to 0.6773: a rung that compares too early ends the later winner "
        "[doc].",
        "So the first rung of the shipped search lies at two thirds of the budget [ours].",
        "How the document's Dice is formed is not stated: compare figures of one program only [ours].",
        "Dice at 1/2 also follows pos_weight, which moves all probabilities: compare methods at their own best weight, "
        "or by ODS, which chooses its threshold [ours].",
        "The control, trial 1, is α = 0: weighted cross-entropy alone [ours].",
        "Searched in α ∈ [0.1, 0.9] (linear) and pos_weight ∈ [1, 30] (log) [doc].",
    )
    tasks = ("edges",)
    needs_teacher = True
    paper_training = {
        "optimizer": "adam",
        "learning_rate": 3e-4,
        "momentum": 0.9,
        "weight_decay": 0.0,
        "schedule": "plateau",
        "decay_factor": 0.1,
        "patience": 2,
        "batch_size": 16,
    }
    forwards = 1.0
    Hyperparameters = EdgeKDHyperparameters

    hyperparameters: EdgeKDHyperparameters

    def losses(self, batch: Batch, progress: float) -> dict[str, torch.Tensor]:
        h = self.hyperparameters
        logits = self.student(batch.images).float()
        taught = self.taught(batch).float()
        imitated = imitation(logits, taught, h.imitation) * counted(batch.targets)
        return {
            "cross_entropy": (1 - h.alpha) * edge_loss(logits, batch.targets, h.pos_weight),
            "imitation": h.alpha * imitated.sum() / counted(batch.targets).sum().clamp(min=1),
        }


def imitation(logits: torch.Tensor, taught: torch.Tensor, kind: Literal["mse", "bce"]) -> torch.Tensor:
    """(σ(s) − σ(t))² or −σ(t)·log σ(s) − (1 − σ(t))·log(1 − σ(s)) of each pixel of logits s and t [B, 1, H, W]."""
    if kind == "mse":
        return (logits.sigmoid() - taught.sigmoid()).square()
    return functional.binary_cross_entropy_with_logits(logits, taught.sigmoid(), reduction="none")
