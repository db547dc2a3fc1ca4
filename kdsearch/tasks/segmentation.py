"""One label out of K for each pixel."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch.nn import functional

from kdsearch.data.dense.batches import DenseBatches
from kdsearch.data.dense.moves import move_map
from kdsearch.data.dense.source import OUTSIDE_MASK
from kdsearch.data.dense.splits import DenseSplit, dense_batches, refuse_without
from kdsearch.data.splits import evenly_spaced
from kdsearch.tasks.base import Evidence, Task

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from kdsearch.data.base import Batch, Batching, DataSet, Split
    from kdsearch.data.draws import ViewDraws
    from kdsearch.tasks.base import Panels, Predict

BATCH = 32
SHOWN = 4
OUTSIDE_COLOUR = (224, 224, 224)
"""Of pixels that do not count: light grey, which no class has."""


class Segmentation(Task):
    """Cross-entropy over the pixels that count (those not 255); the metric is the mean intersection over union.

    mIoU is the mean over classes, background included, of intersection / union, both pooled over all pixels of a split
    that count; a class that neither the truth nor the prediction has is left out of the mean.
    """

    name = "segmentation"
    metric = "miou"
    mode = "max"
    worst = 0.0
    data = "scenes"
    student = "unet"
    student_arguments = {"width": 4, "depth": 2}
    teacher = {
        "name": "unet",
        "arguments": {"width": 12, "depth": 3},
        "epochs": 12,
        "optimizer": "sgd",
        "learning_rate": 0.2,
        "weight_decay": 5e-4,
    }
    training = {"epochs": 12, "batch_size": 8}
    search = {"trials": 12, "grace_period": 4}

    def loss(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Cross-entropy of logits [B, K, H, W] with classes uint8 [B, H, W], a mean over all pixels of the batch that
        count; 0 where none does."""
        return _summed(outputs, targets) / (targets != OUTSIDE_MASK).sum().clamp(min=1)

    def outputs(self, data: DataSet) -> int:
        """K, one logit a class."""
        return len(data.classes)

    def shape(self, data: DataSet) -> tuple[int | None, ...]:
        """(K, H, W)."""
        return (self.outputs(data), *data.size)

    def batches(self, data: DataSet, batching: Batching) -> DenseBatches:
        """Images with the class of every pixel; what comes in at the border of a crop does not count.

        Raises BadData where no pixel of the training images counts.
        """
        refuse_without(data, lambda masks: masks != OUTSIDE_MASK, "a pixel that counts")
        return DenseBatches(data, _move, batching)

    def swap(self, batch: Batch, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The masks, exchanged with the pixels: each pixel keeps its label in whichever view it comes to lie."""
        assert batch.partner_targets is not None, "the batch brings no partners, though needs_partners is set"
        exchanged = mask[:, 0]
        return (
            torch.where(exchanged, batch.partner_targets, batch.targets),
            torch.where(exchanged, batch.targets, batch.partner_targets),
        )

    def agreement(
        self, outputs: torch.Tensor, targets_a: torch.Tensor, targets_b: torch.Tensor, batch: Batch
    ) -> torch.Tensor | None:
        """Float [B, H, W]: alike where both targets have the same class that counts, 0 elsewhere, 1 in the mean.

        So the divergence is averaged over the pixels that agree. Images without a partner have none.
        """
        agrees = (targets_a == targets_b) & (targets_a != OUTSIDE_MASK)
        if batch.has_partner is not None:
            agrees = agrees & batch.has_partner[:, None, None]
        return agrees * (agrees.numel() / agrees.sum().clamp(min=1))

    def evaluate(self, predict: Predict, split: Split, device: torch.device) -> dict[str, float]:
        """`miou`; `pixel_accuracy`, the share of pixels that are right, and `loss`, both over all that count."""
        result = _measure(predict, split, device)
        scores = [score for score in class_iou(result.confusion) if score is not None]
        pixels = max(1, int(result.confusion.sum()))
        return {
            "miou": sum(scores) / max(1, len(scores)),
            "pixel_accuracy": int(result.confusion.diagonal().sum()) / pixels,
            "loss": result.loss / pixels,
        }

    def evidence(self, predict: Predict, data: DataSet, device: torch.device) -> Evidence:
        """`per_class_iou`: that of each class of the validation split, None where it does not occur."""
        confusion = _measure(predict, data.validation, device).confusion
        return Evidence({"per_class_iou": dict(zip(data.classes, class_iou(confusion), strict=True))})

    def panels(self, predict: Predict, data: DataSet, device: torch.device, teacher: Predict | None = None) -> Panels:
        """Up to 4 images, and their classes as colours: those of VOC, light grey where pixels do not count."""
        assert isinstance(data.validation, DenseSplit)
        images, truths = next(data.validation.fetch_pairs([evenly_spaced(len(data.validation), SHOWN)]))
        answers = {"teacher": teacher, "student": predict}
        return {
            "input": list(images.cpu().numpy()),
            "target": _in_colour(truths),
            **{name: _in_colour(ask(images.to(device)).argmax(1)) for name, ask in answers.items() if ask is not None},
        }


def class_iou(confusion: torch.Tensor) -> list[float | None]:
    """Intersection / union of each class of a confusion matrix int64 [K, K]; None for a class that does not occur."""
    intersection = confusion.diagonal()
    union = confusion.sum(0) + confusion.sum(1) - intersection
    return [
        shared / whole if whole else None for shared, whole in zip(intersection.tolist(), union.tolist(), strict=True)
    ]


def palette() -> NDArray[np.uint8]:
    """The colours of Pascal VOC, [256, 3]: the bits of a class, spread over red, green and blue; 255 is light grey."""
    classes = np.arange(256)[:, None]
    colours = np.zeros((256, 3), dtype=np.uint8)
    for place in range(3):
        bits = classes >> (3 * place) & np.array([1, 2, 4]) != 0
        colours |= (bits * (128 >> place)).astype(np.uint8)
    colours[OUTSIDE_MASK] = OUTSIDE_COLOUR
    return colours


class _Measured(NamedTuple):
    confusion: torch.Tensor
    """How many pixels of class i were taken for class j: int64 [K, K], on the CPU."""
    loss: float
    """Cross-entropy, summed over the pixels that count."""


@torch.no_grad()
def _measure(predict: Predict, split: Split, device: torch.device) -> _Measured:
    assert isinstance(split, DenseSplit)
    confusion = torch.zeros((), dtype=torch.int64, device=device)
    loss = torch.zeros((), dtype=torch.float64, device=device)  # of up to 1e8 pixels
    for images, truths in dense_batches(split, BATCH, device):
        logits = predict(images)
        classes = logits.shape[1]
        # One more row takes the pixels that do not count: no look at how many there are, which would wait for a GPU.
        rows = torch.where(truths == OUTSIDE_MASK, classes, truths.long())
        pairs = (rows * classes + logits.argmax(1)).flatten()
        confusion = confusion + pairs.bincount(minlength=(classes + 1) * classes)
        loss += _summed(logits, truths)
    counts = confusion.cpu()
    classes = logits.shape[1]
    return _Measured(counts.view(classes + 1, classes)[:classes], float(loss))


def _summed(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return functional.cross_entropy(logits.float(), targets.long(), ignore_index=OUTSIDE_MASK, reduction="sum")


def _move(truth: torch.Tensor, draws: ViewDraws, padding: int) -> torch.Tensor:
    return move_map(truth, draws, padding, OUTSIDE_MASK)


def _in_colour(classes: torch.Tensor) -> list[NDArray[np.uint8]]:
    """Classes [N, H, W] → pictures uint8 [3, H, W]."""
    colours: NDArray[np.uint8] = palette()[classes.cpu().numpy()]
    return list(colours.transpose(0, 3, 1, 2))
