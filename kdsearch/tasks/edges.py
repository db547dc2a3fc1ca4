"""Whether an edge runs through each pixel."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.nn import functional

from kdsearch.data.dense.batches import DenseBatches
from kdsearch.data.dense.edge_maps import counted, marked, unpack
from kdsearch.data.dense.moves import move_map
from kdsearch.data.dense.source import OUTSIDE_EDGES
from kdsearch.data.dense.splits import DenseSplit, dense_batches, refuse_without
from kdsearch.data.splits import evenly_spaced
from kdsearch.tasks.base import Task
from kdsearch.tasks.boundaries import count, f_measures

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from kdsearch.data.base import Batching, DataSet, Split
    from kdsearch.data.draws import ViewDraws
    from kdsearch.tasks.base import Panels, Predict

BATCH = 32
SHOWN = 4
POS_WEIGHT = 10.0
"""How much more an edge pixel counts than another in the loss of a training without distillation."""


class Edges(Task):
    """Binary cross-entropy for training, the Dice coefficient as the metric, ODS and OIS of a finished student.

    A pixel is an edge where any annotator marks one: the union keeps the weak edges that only some of them see. Their
    share would be a softer target, but how many annotators looked is not known: one who marks nothing leaves no trace.

    Dice is 2·|P ∩ Y| / (|P| + |Y|) of each image, 1 where both are empty, and then the mean over images: P are the
    pixels with a probability of at least 1/2, Y the edges, both counted whole, without softening or smoothing.
    """

    name = "edges"
    metric = "dice"
    mode = "max"
    worst = 0.0
    data = "drawn_edges"
    student = "unet"

    def loss(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Binary cross-entropy of logits [B, 1, H, W] with bits int16 [B, H, W], edges counting 10 times."""
        return edge_loss(outputs, targets, POS_WEIGHT)

    def outputs(self, data: DataSet) -> int:
        """1, the logit of an edge."""
        return 1

    def shape(self, data: DataSet) -> tuple[int | None, ...]:
        """(1, H, W)."""
        return (1, *data.size)

    def batches(self, data: DataSet, batching: Batching) -> DenseBatches:
        """Images with the bits of their edges; what comes in at the border of a crop does not count.

        Raises BadData where no training image has an edge.
        """
        refuse_without(data, marked, "an edge")
        return DenseBatches(data, _move, batching)

    @torch.no_grad()
    def evaluate(self, predict: Predict, split: Split, device: torch.device) -> dict[str, float]:
        """`dice`, the mean over images, and `loss`, that of a training without distillation over all that count."""
        assert isinstance(split, DenseSplit)
        dice, loss, pixels = (torch.zeros((), dtype=torch.float64, device=device) for _ in range(3))
        for images, truths in dense_batches(split, BATCH, device):
            logits = predict(images).float()
            inside = counted(truths)
            dice += dice_coefficients((logits >= 0) & inside, marked(truths) & inside).sum()
            loss += _weighted(logits, truths, POS_WEIGHT).sum()
            pixels += inside.sum()
        return {"dice": float(dice) / len(split), "loss": float(loss / pixels.clamp(min=1))}

    @torch.no_grad()
    def final_metrics(self, predict: Predict, split: Split, device: torch.device) -> dict[str, float]:
        """`ods` and `ois`, F-measures in [0, 1] (`kdsearch.tasks.boundaries`); `ods_threshold`, the probability."""
        assert isinstance(split, DenseSplit)
        counts = []
        for images, truths in dense_batches(split, BATCH, device):
            probabilities = predict(images).float().sigmoid()[:, 0].cpu().numpy()
            inside = counted(truths)[:, 0].cpu().numpy()
            annotators = map(unpack, truths.cpu().numpy())
            counts += [count(*image) for image in zip(probabilities, annotators, inside, strict=True)]
        measures = f_measures(counts)
        return {"ods": measures.ods, "ois": measures.ois, "ods_threshold": measures.threshold}

    @torch.no_grad()
    def panels(self, predict: Predict, data: DataSet, device: torch.device, teacher: Predict | None = None) -> Panels:
        """Up to 4 images, what any annotator marks in them, and probabilities, the whiter the higher."""
        assert isinstance(data.validation, DenseSplit)
        images, truths = next(data.validation.fetch_pairs([evenly_spaced(len(data.validation), SHOWN)]))
        answers = {"teacher": teacher, "student": predict}
        return {
            "input": list(images.cpu().numpy()),
            "target": _grey((marked(truths) & counted(truths)).float()),
            **{name: _grey(ask(images.to(device)).sigmoid()) for name, ask in answers.items() if ask is not None},
        }


def edge_loss(logits: torch.Tensor, truth: torch.Tensor, pos_weight: float | torch.Tensor) -> torch.Tensor:
    """−[w·y·log σ(z) + (1 − y)·log(1 − σ(z))], a mean over the pixels of the batch that count: a scalar; 0 without any.

    Args:
        logits: z, [B, 1, H, W].
        truth: bits int16 [B, H, W]; y is 1 where any annotator marks an edge.
        pos_weight: w ≥ 0, a number or a tensor.
    """
    return _weighted(logits.float(), truth, pos_weight).sum() / counted(truth).sum().clamp(min=1)


def dice_coefficients(predicted: torch.Tensor, edges: torch.Tensor) -> torch.Tensor:
    """2·|P ∩ Y| / (|P| + |Y|) of each image of two masks bool [B, 1, H, W], 1 where both are empty: float64 [B]."""
    shared = (predicted & edges).flatten(1).sum(1).double()
    total = predicted.flatten(1).sum(1) + edges.flatten(1).sum(1)
    return torch.where(total > 0, 2 * shared / total.clamp(min=1), 1.0)


def _weighted(logits: torch.Tensor, truth: torch.Tensor, pos_weight: float | torch.Tensor) -> torch.Tensor:
    """The loss of each pixel [B, 1, H, W], 0 where it does not count."""
    edges = marked(truth)
    losses = functional.binary_cross_entropy_with_logits(logits, edges.to(logits.dtype), reduction="none")
    return losses * torch.where(edges, pos_weight, 1.0) * counted(truth)


def _move(truth: torch.Tensor, draws: ViewDraws, padding: int) -> torch.Tensor:
    return move_map(truth, draws, padding, OUTSIDE_EDGES)


def _grey(probabilities: torch.Tensor) -> list[NDArray[np.uint8]]:
    """[N, 1, H, W] in [0, 1] → pictures uint8 [1, H, W]."""
    return list((probabilities.float() * 255).round().to(torch.uint8).cpu().numpy())
