"""Objects found and named: a box and one class out of K for each."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch

from kdsearch.data.dense.batches import DenseBatches
from kdsearch.data.dense.moves import move_boxes
from kdsearch.data.dense.splits import DenseSplit, dense_batches, refuse_without
from kdsearch.data.splits import evenly_spaced
from kdsearch.models.multibox import BESIDE_CLASSES, take_apart
from kdsearch.tasks.average_precision import average_precision, mean_or_zero
from kdsearch.tasks.base import Evidence, Task
from kdsearch.tasks.box_pictures import draw_boxes
from kdsearch.tasks.boxes import Found, Sums, area, detect, matched_classes, multibox_loss

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from kdsearch.data.base import Batch, Batching, DataSet, Split
    from kdsearch.tasks.base import Panels, Predict

BATCH = 64
SHOWN = 4
SHOWN_SCORE = 0.3
"""Score from which a detection is drawn into a panel."""


class Detection(Task):
    """SSD's multibox loss for training, COCO's mean average precision as the metric.

    Networks give [B, K + 9, A] (`kdsearch.models.multibox`). Truths are [B, M, 5]: x1, y1, x2, y2 in pixels and the
    class; −1 fills rows up, and c < −1 is a difficult object of class −2 − c, which nobody is trained to find, and
    which is neither missed nor falsely found.
    """

    name = "detection"
    metric = "map"
    mode = "max"
    worst = 0.0
    data = "drawn_boxes"
    student = "ssd"
    # With so few images a detector learns by its number of steps: batches of 64 find half as much in as many epochs.
    training = {"batch_size": 16, "epochs": 18}
    search = {"trials": 16, "grace_period": 2}

    def loss(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """The multibox loss of outputs [B, K + 9, A] and truths [B, M, 5], a mean over the matched anchors."""
        return _mean(multibox_loss(outputs, targets))

    def outputs(self, data: DataSet) -> int:
        """K + 9: classes, background, four offsets and four coordinates of the anchor."""
        return len(data.classes) + BESIDE_CLASSES

    def shape(self, data: DataSet) -> tuple[int | None, ...]:
        """(K + 9, A), with any number of anchors."""
        return (self.outputs(data), None)

    def batches(self, data: DataSet, batching: Batching) -> DenseBatches:
        """Images with their boxes, which move along. Raises BadData where no training image has an object."""
        refuse_without(data, lambda boxes: boxes[..., 4] >= 0, "an object")
        return DenseBatches(data, partial(move_boxes, size=data.size), batching)

    def logits(self, outputs: torch.Tensor) -> torch.Tensor:
        """[B, K + 1, A], the background first."""
        return take_apart(outputs).logits

    def swap(self, batch: Batch, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Each box goes to the view that shows more of it, and stays with its own image on a tie; it is not cut.

        Targets [B, M + M', 5] of both views: every box of image and partner is in exactly one of them.
        """
        assert batch.partner_targets is not None, "the batch brings no partners"
        image, partner = batch.targets, batch.partner_targets
        image_moves, partner_moves = _mostly_within(image, mask), _mostly_within(partner, mask)
        view_a = torch.cat([_without(image, image_moves), _without(partner, ~partner_moves)], 1)
        view_b = torch.cat([_without(partner, partner_moves), _without(image, ~image_moves)], 1)
        return view_a, view_b

    def agreement(
        self, outputs: torch.Tensor, targets_a: torch.Tensor, targets_b: torch.Tensor, batch: Batch
    ) -> torch.Tensor:
        """[B, A]: only anchors that stand for one and the same class in both views count, each equally.

        Scaled so that the mean over all anchors is that over these; 0 where there are none, and for images that are
        alone in their class.
        """
        anchors = take_apart(outputs).anchors
        class_a, class_b = (matched_classes(targets, anchors) for targets in (targets_a, targets_b))
        agreed = (class_a == class_b) & (class_a > 0)
        if batch.has_partner is not None:
            agreed &= batch.has_partner[:, None]
        return agreed * (agreed.numel() / agreed.sum().clamp(min=1))

    def evaluate(self, predict: Predict, split: Split, device: torch.device) -> dict[str, float]:
        """`map`, COCO's mean average precision at overlaps 0.50 to 0.95; `map50`, at 0.50; `loss`, over all anchors."""
        seen = _look(predict, split, device)
        precision = seen.precision()
        return {
            "map": mean_or_zero(precision),
            "map50": mean_or_zero(precision[0]),
            "loss": float(_mean(seen.loss)),
        }

    def evidence(self, predict: Predict, data: DataSet, device: torch.device) -> Evidence:
        """`per_class_ap`: average precision of each class over overlaps 0.50 to 0.95, None without an object of it."""
        per_class = _look(predict, data.validation, device).precision().mean(0).tolist()
        named = zip(data.classes, per_class, strict=True)
        return Evidence({"per_class_ap": {name: None if value != value else value for name, value in named}})

    @torch.no_grad()
    def panels(self, predict: Predict, data: DataSet, device: torch.device, teacher: Predict | None = None) -> Panels:
        """Four validation images: as they are, with the true boxes, and with what the networks found."""
        images, truth = next(_dense(data.validation).fetch_pairs([evenly_spaced(len(data.validation), SHOWN)]))
        pictures = images.cpu().numpy()
        true = truth.cpu().numpy()
        panels = {
            "input": [draw_boxes(picture, true[0, :0], true[0, :0, 4].astype(np.int64)) for picture in pictures],
            "target": [
                draw_boxes(picture, rows[rows[:, 4] >= 0, :4], rows[rows[:, 4] >= 0, 4].astype(np.int64))
                for picture, rows in zip(pictures, true, strict=True)
            ],
        }
        for column, network in (("teacher", teacher), ("student", predict)):
            if network is not None:
                panels[column] = _drawn(pictures, detect(network(images.to(device)), data.size))
        return panels


class _Seen(NamedTuple):
    """All that a network found in a split, on the CPU, and its loss."""

    found: Found
    truth: torch.Tensor
    classes: int
    loss: Sums

    def precision(self) -> NDArray[np.float64]:
        """Average precision [10, K]."""
        boxes, scores, labels = (part.numpy() for part in self.found)
        return average_precision(boxes, scores, labels, self.truth.numpy(), self.classes)


@torch.no_grad()
def _look(predict: Predict, split: Split, device: torch.device) -> _Seen:
    found, truths, losses, classes = [], [], [], 0
    for images, truth in dense_batches(_dense(split), BATCH, device):
        outputs = predict(images)
        classes = outputs.shape[1] - BESIDE_CLASSES
        losses.append(multibox_loss(outputs, truth))
        found.append([part.cpu() for part in detect(outputs, (images.shape[2], images.shape[3]))])
        truths.append(truth.cpu())
    boxes, scores, labels = (torch.cat(parts) for parts in zip(*found, strict=True))
    loss, anchors = (torch.stack(parts).sum() for parts in zip(*losses, strict=True))
    return _Seen(Found(boxes, scores, labels), torch.cat(truths), classes, Sums(loss, anchors))


def _dense(split: Split) -> DenseSplit:
    assert isinstance(split, DenseSplit), "detection needs a split with boxes"
    return split


def _mean(sums: Sums) -> torch.Tensor:
    return sums.loss / sums.anchors.clamp(min=1)


def _mostly_within(truth: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Which boxes [B, M, 5] have more of their area inside the mask [B, 1, H, W] than outside of it: bool [B, M]."""
    height, width = mask.shape[-2:]
    x1, y1, x2, y2, _ = truth.float().unbind(-1)
    with torch.autocast(mask.device.type, enabled=False):  # half precision would not tell halves apart
        rows, columns = _covered(y1, y2, height), _covered(x1, x2, width)
        inside = (torch.bmm(rows, mask[:, 0].float()) * columns).sum(2)
    whole = area(truth)
    return inside * 2 > whole * (1 + 1e-5)


def _covered(low: torch.Tensor, high: torch.Tensor, pixels: int) -> torch.Tensor:
    """How much of each pixel of a row lies between low and high [B, M]: [B, M, pixels], in [0, 1]."""
    edge = torch.arange(pixels, device=low.device)
    return (torch.minimum(high[..., None], edge + 1) - torch.maximum(low[..., None], edge)).clamp(0, 1)


def _without(truth: torch.Tensor, gone: torch.Tensor) -> torch.Tensor:
    """The boxes [B, M, 5] with those marked [B, M] turned into rows without a box."""
    empty = truth.new_tensor([0.0, 0.0, 0.0, 0.0, -1.0])
    return torch.where(gone[..., None], empty, truth)


def _drawn(pictures: NDArray[np.uint8], found: Found) -> list[NDArray[np.uint8]]:
    boxes, scores, labels = (part.cpu().numpy() for part in found)
    sure = (labels >= 0) & (scores >= SHOWN_SCORE)
    return [
        draw_boxes(picture, own[likely], names[likely])
        for picture, own, names, likely in zip(pictures, boxes, labels, sure, strict=True)
    ]
