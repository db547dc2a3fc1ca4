"""The multibox loss, the matching and the coding of boxes, against torchvision's own."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch.nn import functional
from torchvision.models.detection._utils import BoxCoder, SSDMatcher
from torchvision.models.detection.anchor_utils import DefaultBoxGenerator
from torchvision.models.detection.ssd import SSD
from torchvision.ops import box_iou

from kdsearch import tasks
from kdsearch.models.multibox import decode, encode, join, take_apart
from kdsearch.tasks.boxes import compact, detect, match, matched_classes, multibox_loss, overlap

CLASSES = 5
Truth = Callable[..., torch.Tensor]


def anchors() -> torch.Tensor:
    """Those of three maps of 64×64 images, [336, 4]."""
    generator = DefaultBoxGenerator([[2], [2], [2]], scales=[0.15, 0.3, 0.5, 0.8])
    boxes = generator._grid_default_boxes([[8, 8], [4, 4], [2, 2]], [64, 64]) * 64
    return torch.cat([boxes[:, :2] - boxes[:, 2:] / 2, boxes[:, :2] + boxes[:, 2:] / 2], 1)


def answer(images: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Class logits [B, A, K + 1] and offsets [B, A, 4] of some network."""
    source = torch.Generator().manual_seed(seed)
    count = len(anchors())
    logits = torch.randn(images, count, CLASSES + 1, generator=source)
    return logits, torch.randn(images, count, 4, generator=source)


def torchvisions_loss(truth: torch.Tensor, logits: torch.Tensor, offsets: torch.Tensor) -> torch.Tensor:
    """The sum of the two losses that torchvision's SSD would compute."""
    ssd = SSD(
        torch.nn.Identity(), DefaultBoxGenerator([[2]]), (64, 64), CLASSES + 1, head=torch.nn.Identity()
    )  # only its matcher, coder and loss are asked
    matcher, targets, matched = SSDMatcher(0.5), [], []
    for rows in truth:
        rows = rows[rows[:, 4] >= 0]
        targets.append({"boxes": rows[:, :4], "labels": rows[:, 4].long() + 1})
        none = torch.full((len(anchors()),), -1)
        matched.append(matcher(box_iou(rows[:, :4], anchors())) if len(rows) else none)
    found = {"cls_logits": logits, "bbox_regression": offsets}
    return sum(ssd.compute_loss(targets, found, [anchors()] * len(truth), matched).values())


@pytest.mark.parametrize("seed", range(4))
def test_the_loss_and_its_gradient_are_torchvisions(random_truth: Truth, seed: int) -> None:
    """Among the images one has no object, and the others have one to four."""
    truth = random_truth(10, seed=seed)
    logits, offsets = (part.requires_grad_() for part in answer(len(truth), seed))
    expected = torchvisions_loss(truth, logits, offsets)
    wanted = torch.autograd.grad(expected, (logits, offsets))
    loss = tasks.find("detection").loss(join(logits, offsets, anchors()), truth)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    for ours, theirs in zip(torch.autograd.grad(loss, (logits, offsets)), wanted, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-4)


def test_a_batch_without_any_object_costs_nothing_and_moves_nothing(random_truth: Truth) -> None:
    truth = random_truth(3)
    truth[..., :4], truth[..., 4] = 0, -1
    logits, offsets = (part.requires_grad_() for part in answer(3))
    loss = tasks.find("detection").loss(join(logits, offsets, anchors()), truth)
    assert loss.item() == 0
    assert all(not grad.any() for grad in torch.autograd.grad(loss, (logits, offsets)))


def test_rows_without_an_object_and_difficult_ones_change_nothing(random_truth: Truth) -> None:
    truth = random_truth(6)
    outputs = join(*answer(6), anchors())
    rows = torch.tensor([[0.0, 0, 0, 0, -1], [10.0, 10, 30, 30, -4]]).expand(6, 2, 5)
    padded = torch.cat([rows, truth, rows], 1)
    for ours, theirs in zip(multibox_loss(outputs, padded), multibox_loss(outputs, truth), strict=True):
        assert torch.equal(ours, theirs)
    assert torch.equal(matched_classes(padded, anchors()), matched_classes(truth, anchors()))


def test_a_loss_that_is_not_finite_stays_visible(random_truth: Truth) -> None:
    outputs = join(*answer(4), anchors())
    outputs[1, 0] = torch.nan
    assert not multibox_loss(outputs, random_truth(4)).loss.isfinite()


def test_offsets_and_boxes_are_coded_as_torchvision_does(random_truth: Truth) -> None:
    boxes = random_truth(1, 4, seed=3)[0].new_tensor([[1.0, 2, 9, 30]]).expand(len(anchors()), 4) + torch.rand(
        len(anchors()), 4
    )
    coder = BoxCoder((10.0, 10.0, 5.0, 5.0))
    offsets = encode(boxes, anchors())
    torch.testing.assert_close(offsets, coder.encode_single(boxes, anchors()), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(decode(offsets, anchors()), boxes, atol=1e-4, rtol=1e-4)
    wild = 50 * torch.randn(len(anchors()), 4, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(decode(wild, anchors()), coder.decode_single(wild, anchors()), atol=1e-2, rtol=1e-4)


@pytest.mark.parametrize("seed", range(5))
def test_anchors_are_matched_as_torchvision_does(random_truth: Truth, seed: int) -> None:
    truth = random_truth(8, rows=6, seed=seed)
    ours = match(truth, anchors())
    for rows, matched in zip(truth, ours, strict=True):
        there = torch.nonzero(rows[:, 4] >= 0)[:, 0]
        if not len(there):
            assert (matched == -1).all()
            continue
        overlaps = box_iou(rows[there, :4], anchors())
        torch.testing.assert_close(overlap(rows[None, there, :4], anchors())[0], overlaps)
        expected = SSDMatcher(0.5)(overlaps)
        assert torch.equal(matched, torch.where(expected >= 0, there[expected.clamp(min=0)], -1))


def test_every_box_has_an_anchor_even_where_it_overlaps_none() -> None:
    truth = torch.tensor([[[200.0, 200, 210, 210, 2], [5.0, 5, 14, 14, 1]]])
    classes = matched_classes(truth, anchors())
    assert (classes == 3).sum() == 1
    assert (classes == 2).sum() >= 1


def test_compact_keeps_the_objects_and_their_order(random_truth: Truth) -> None:
    truth = random_truth(9, rows=7)[:6]
    small = compact(truth)
    assert small.shape == (6, 5, 5)
    for before, after in zip(truth, small, strict=True):
        assert torch.equal(before[before[:, 4] >= 0], after[after[:, 4] >= 0])
    assert compact(torch.full((2, 3, 5), -1.0)).shape == (2, 1, 5)


def test_the_output_is_one_float32_tensor_that_comes_apart_again() -> None:
    logits, offsets = answer(3)
    outputs = join(logits.bfloat16(), offsets.bfloat16(), anchors())
    assert outputs.shape == (3, CLASSES + 9, len(anchors()))
    assert outputs.dtype == torch.float32
    parts = take_apart(outputs)
    assert torch.equal(parts.anchors, anchors())
    assert torch.equal(parts.logits, logits.bfloat16().float().transpose(1, 2))
    assert torch.equal(parts.offsets, offsets.bfloat16().float())


def test_detections_are_torchvisions_but_for_their_number(random_truth: Truth) -> None:
    """torchvision takes 400 candidates of each class: with few likely ones the answers are the same."""
    logits, offsets = answer(3, seed=5)
    logits[..., 0] += 9
    logits[:, ::9, 1:] *= 5
    ssd = SSD(torch.nn.Identity(), DefaultBoxGenerator([[2]]), (64, 64), CLASSES + 1, head=torch.nn.Identity())
    expected = ssd.postprocess_detections(
        {"cls_logits": logits, "bbox_regression": offsets}, [anchors()] * 3, [(64, 64)] * 3
    )
    found = detect(join(logits, offsets, anchors()), (64, 64))
    for image, theirs in enumerate(expected):
        count = len(theirs["scores"])
        assert 10 < count < 100
        assert int((found.labels[image] >= 0).sum()) == count
        torch.testing.assert_close(found.boxes[image, :count], theirs["boxes"])
        torch.testing.assert_close(found.scores[image, :count], theirs["scores"])
        assert torch.equal(found.labels[image, :count] + 1, theirs["labels"])


def test_a_network_that_is_sure_of_the_background_finds_nothing() -> None:
    logits, offsets = answer(2)
    logits[..., 0] = 50
    found = detect(join(logits, offsets, anchors()), (64, 64))
    assert not found.scores.any()
    assert (found.labels == -1).all()


def test_a_perfect_answer_finds_every_object_and_no_other(random_truth: Truth) -> None:
    truth = random_truth(5)
    matched = match(truth, anchors())
    classes = matched_classes(truth, anchors())
    logits = 20 * functional.one_hot(classes, CLASSES + 1).float()
    boxes = truth.gather(1, matched.clamp(min=0)[..., None].expand(-1, -1, 5))[..., :4]
    offsets = encode(torch.where(matched[..., None] >= 0, boxes, anchors()), anchors())
    outputs = join(logits, offsets, anchors())
    found = detect(outputs, (64, 64))
    for rows, own, labels in zip(truth, found.boxes, found.labels, strict=True):
        rows = rows[rows[:, 4] >= 0]
        assert sorted(labels[labels >= 0].tolist()) == sorted(rows[:, 4].long().tolist())
        if len(rows):
            assert (box_iou(rows[:, :4], own[labels >= 0]).max(1).values > 0.999).all()
    sums = multibox_loss(outputs, truth)
    assert float(sums.loss / sums.anchors) < 1e-3
