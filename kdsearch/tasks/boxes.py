"""Boxes of whole batches: overlap, matching with anchors, SSD's loss, and what a network has found.

Boxes are x1, y1, x2, y2 in pixels. Truths are [B, M, 5] with the class last; a row whose class is below 0 holds no
object to find. SSD: Liu et al., ECCV 2016, arXiv 1512.02325; details as in torchvision's SSD.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch.nn import functional

from kdsearch.models.multibox import decode, encode, take_apart

MATCHED = 0.5
"""Overlap from which an anchor stands for a box."""
NEGATIVES = 3
"""Anchors of the background that are learned from, for each that stands for a box: those that err most."""
LOWEST_SCORE = 0.01
CANDIDATES = 200
"""Best anchors of an image, over all classes, among which duplicates are sought."""
DUPLICATE = 0.45
"""Overlap from which the less sure of two boxes of one class is dropped."""
DETECTIONS = 100
"""Boxes an image may have in the end, as COCO counts them."""


class Sums(NamedTuple):
    """A loss before it is divided: batches of unequal size can be added up."""

    loss: torch.Tensor
    anchors: torch.Tensor
    """Number of anchors that stand for a box, int64."""


class Found(NamedTuple):
    """Detections of B images, the surest first; unused places have score 0 and label −1."""

    boxes: torch.Tensor
    """[B, D, 4], inside the image."""
    scores: torch.Tensor
    """[B, D], in (0, 1]."""
    labels: torch.Tensor
    """int64 [B, D]."""


def overlap(boxes: torch.Tensor, anchors: torch.Tensor) -> torch.Tensor:
    """Intersection over union of boxes [B, M, 4] and anchors [A, 4]: [B, M, A]; 0 for boxes without area."""
    low, high = boxes[:, :, None, :].chunk(2, -1)
    sides = [
        (torch.minimum(high[..., axis], anchors[:, 2 + axis]) - torch.maximum(low[..., axis], anchors[:, axis])).clamp(
            0
        )
        for axis in (0, 1)
    ]
    common = sides[0] * sides[1]
    union = area(boxes)[..., None] + area(anchors) - common
    return torch.where(common > 0, common / union, 0.0)


def area(boxes: torch.Tensor) -> torch.Tensor:
    """[..., 4] → [...], in pixels."""
    return (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])


def compact(truth: torch.Tensor) -> torch.Tensor:
    """The same objects in as few rows as the fullest image needs, at least one: [B, M, 5] → [B, m, 5].

    Sets are padded to their fullest image. Waits for the device once, which costs less than the overlaps of
    thousands of anchors with rows that hold nothing.
    """
    objects = truth[..., 4] >= 0
    rows = max(1, int(objects.sum(1).max()))
    first = objects.int().argsort(stable=True, dim=1, descending=True)[:, :rows]
    return truth.gather(1, first[..., None].expand(-1, -1, 5))


def match(truth: torch.Tensor, anchors: torch.Tensor) -> torch.Tensor:
    """The row of the box [B, M, 5] that each anchor [A, 4] stands for, −1 for the background: int64 [B, A].

    The box that it overlaps most, by half at least; and each box has the anchor that overlaps it most in any case (of
    several boxes the last one), as torchvision's SSDMatcher.
    """
    objects = truth[..., 4] >= 0
    overlaps = overlap(truth[..., :4], anchors).masked_fill(~objects[..., None], -1)
    most, row = overlaps.max(1)
    by_overlap = torch.where(most >= MATCHED, row, -1)
    number = torch.arange(truth.shape[1], device=truth.device).where(objects, -1)
    best_anchor = overlaps.argmax(2)
    in_any_case = torch.full_like(by_overlap, -1).scatter_reduce(1, best_anchor, number, "amax")
    return torch.where(in_any_case >= 0, in_any_case, by_overlap)


def matched_rows(truth: torch.Tensor, matched: torch.Tensor) -> torch.Tensor:
    """Of each anchor the row of its box: [B, M, 5] and int64 [B, A] → [B, A, 5]; row 0 where there is none."""
    return truth.gather(1, matched.clamp(min=0)[..., None].expand(-1, -1, 5))


def matched_classes(truth: torch.Tensor, anchors: torch.Tensor) -> torch.Tensor:
    """The class that each anchor stands for, counted from 1; 0 for the background: int64 [B, A]."""
    truth = compact(truth)
    matched = match(truth, anchors)
    return torch.where(matched >= 0, matched_rows(truth, matched)[..., 4].long() + 1, 0)


def multibox_loss(outputs: torch.Tensor, truth: torch.Tensor) -> Sums:
    """SSD's loss of outputs [B, K + 9, A] and truths [B, M, 5], as torchvision's `SSD.compute_loss`.

    Smooth L1 of the offsets of anchors that stand for a box, cross-entropy of these and of three times as many of the
    background, in each image those that err most. An image without objects contributes nothing.
    """
    logits, offsets, anchors = take_apart(outputs)
    truth = compact(truth)
    matched = match(truth, anchors)
    positive = matched >= 0
    rows = matched_rows(truth, matched)
    boxes = torch.where(positive[..., None], rows[..., :4], anchors)
    regression = functional.smooth_l1_loss(offsets, encode(boxes, anchors), reduction="none").sum(2)
    labels = torch.where(positive, rows[..., 4].long() + 1, 0)
    entropy = functional.cross_entropy(logits, labels, reduction="none")
    count = positive.sum(1, keepdim=True)
    hardest = entropy.masked_fill(positive, -torch.inf).sort(1, descending=True).values
    learned = torch.arange(positive.shape[1], device=count.device) < torch.minimum(
        NEGATIVES * count, positive.shape[1] - count
    )
    terms = (torch.where(positive, regression + entropy, 0.0), torch.where(learned, hardest, 0.0))
    return Sums(terms[0].sum() + terms[1].sum(), count.sum())


def detect(outputs: torch.Tensor, size: tuple[int, int]) -> Found:
    """What outputs [B, K + 9, A] of images of `size` (height, width) say: boxes without duplicates, cut to the image.

    At most 200 candidates and 100 detections an image, each with a score above 0.01.
    """
    from torchvision.ops import batched_nms  # type: ignore[import-untyped]

    logits, offsets, anchors = take_apart(outputs)
    scores, place = logits.softmax(1)[:, 1:].flatten(1).topk(min(CANDIDATES, (logits.shape[1] - 1) * len(anchors)))
    labels, place = place // len(anchors), place % len(anchors)
    limits = anchors.new_tensor([size[1], size[0], size[1], size[0]])
    boxes = decode(offsets, anchors).gather(1, place[..., None].expand(-1, -1, 4))
    boxes = torch.minimum(boxes.clamp(min=0), limits)
    found = Found(
        boxes.new_zeros(len(boxes), DETECTIONS, 4),
        scores.new_zeros(len(boxes), DETECTIONS),
        labels.new_full((len(boxes), DETECTIONS), -1),
    )
    for image, likely in enumerate((scores > LOWEST_SCORE).sum(1).tolist()):
        own = (boxes[image, :likely], scores[image, :likely], labels[image, :likely])
        kept = batched_nms(*own, DUPLICATE)[:DETECTIONS]
        for target, values in zip(found, own, strict=True):
            target[image, : len(kept)] = values[kept]
    return found
