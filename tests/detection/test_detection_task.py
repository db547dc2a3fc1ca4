"""Detection as a task: what happens to boxes under a patch swap, metrics, panels, and training with it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from safetensors.torch import load as load_tensors
from torch.nn import functional

from kdsearch import data as data_sets
from kdsearch import tasks
from kdsearch.data import Batching
from kdsearch.data.base import Batch, DataSet
from kdsearch.data.dense.splits import DenseMemorySplit
from kdsearch.errors import BadData
from kdsearch.experiment import Experiment
from kdsearch.methods.ips import swap_mask
from kdsearch.models.multibox import encode, join
from kdsearch.settings import AugmentationSettings, DataSettings
from kdsearch.tasks.boxes import match, matched_classes
from kdsearch.training.trainer import Trainer

CPU = torch.device("cpu")
SIDE = 64
Truth = Callable[..., torch.Tensor]


def pair(targets: torch.Tensor, partner_targets: torch.Tensor, has_partner: torch.Tensor | None = None) -> Batch:
    images = torch.zeros(len(targets), 3, SIDE, SIDE)
    return Batch(images, targets, torch.Generator(), images, has_partner, partner_targets)


def objects(truth: torch.Tensor) -> Counter[tuple[float, ...]]:
    """The multiset of the boxes of one image, with their classes."""
    return Counter(tuple(row) for row in truth[truth[:, 4] != -1].tolist())


@st.composite
def swaps(draw: st.DrawFn) -> tuple[Batch, torch.Tensor]:
    """Two pairs of images with up to four boxes each, on a grid of half pixels, and any patch mask."""
    edge = st.integers(0, 2 * SIDE - 1)
    row = st.tuples(edge, edge, edge, edge, st.integers(-4, 3))

    def boxes() -> list[list[float]]:
        made = []
        for x1, y1, width, height, label in draw(st.lists(row, min_size=4, max_size=4)):
            if label == -1:
                made.append([0.0, 0, 0, 0, -1])
            else:
                x2, y2 = min(x1 + width + 1, 2 * SIDE), min(y1 + height + 1, 2 * SIDE)
                made.append([x1 / 2, y1 / 2, x2 / 2, y2 / 2, label])
        return made

    images, partners = (torch.tensor([boxes(), boxes()], dtype=torch.float32) for _ in range(2))
    side = draw(st.sampled_from([2, 3, 4, 8]))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 1000)))
    mask = swap_mask(torch.zeros(2, 3, SIDE, SIDE), side, 1.0, generator)
    return pair(images, partners), mask


def shown(row: list[float], mask: torch.Tensor) -> float:
    """Area of a box within a mask [H, W], counted on quarters of pixels."""
    fine = mask.repeat_interleave(2, 0).repeat_interleave(2, 1)
    x1, y1, x2, y2 = (round(2 * edge) for edge in row[:4])
    return float(fine[y1:y2, x1:x2].sum()) / 4


@settings(max_examples=60, deadline=None)
@given(swaps())
def test_every_box_is_in_exactly_the_view_that_shows_more_of_it(case: tuple[Batch, torch.Tensor]) -> None:
    batch, mask = case
    view_a, view_b = tasks.find("detection").swap(batch, mask)
    assert batch.partner_targets is not None
    for index in range(2):
        expected_a: Counter[tuple[float, ...]] = Counter()
        expected_b: Counter[tuple[float, ...]] = Counter()
        for row in batch.targets[index].tolist():
            if row[4] != -1:
                inside, whole = shown(row, mask[index, 0]), (row[2] - row[0]) * (row[3] - row[1])
                (expected_b if inside > whole / 2 else expected_a)[tuple(row)] += 1
        for row in batch.partner_targets[index].tolist():
            if row[4] != -1:
                inside, whole = shown(row, mask[index, 0]), (row[2] - row[0]) * (row[3] - row[1])
                (expected_a if inside > whole / 2 else expected_b)[tuple(row)] += 1
        assert objects(view_a[index]) == expected_a
        assert objects(view_b[index]) == expected_b
        assert expected_a + expected_b == objects(batch.targets[index]) + objects(batch.partner_targets[index])


def test_no_patch_swapped_leaves_the_boxes_and_all_swapped_exchange_them(random_truth: Truth) -> None:
    batch = pair(random_truth(5, seed=1), random_truth(5, seed=2))
    assert batch.partner_targets is not None
    nothing = torch.zeros(5, 1, SIDE, SIDE, dtype=torch.bool)
    for mask, (first, second) in (
        (nothing, (batch.targets, batch.partner_targets)),
        (~nothing, (batch.partner_targets, batch.targets)),
    ):
        view_a, view_b = tasks.find("detection").swap(batch, mask)
        for index in range(5):
            assert objects(view_a[index]) == objects(first[index])
            assert objects(view_b[index]) == objects(second[index])


def test_a_box_cut_in_half_stays_with_its_own_image() -> None:
    own, other = torch.tensor([[[10.0, 10, 50, 20, 1]]]), torch.tensor([[[12.0, 40, 48, 61, 1]]])
    mask = torch.zeros(1, 1, SIDE, SIDE, dtype=torch.bool)
    mask[..., 30:] = True
    view_a, view_b = tasks.find("detection").swap(pair(own, other), mask)
    assert objects(view_a[0]) == objects(own[0])
    assert objects(view_b[0]) == objects(other[0])
    mask[..., 29] = True
    view_a, view_b = tasks.find("detection").swap(pair(own, other), mask)
    assert objects(view_a[0]) == objects(other[0])
    assert objects(view_b[0]) == objects(own[0])


def test_the_swap_is_the_same_under_autocast(random_truth: Truth) -> None:
    batch = pair(random_truth(5, seed=1), random_truth(5, seed=2))
    mask = swap_mask(batch.images, 4, 1.0, torch.Generator().manual_seed(0))
    expected = tasks.find("detection").swap(batch, mask)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        views = tasks.find("detection").swap(batch, mask)
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(views, expected, strict=True))


def some_anchors() -> torch.Tensor:
    """Squares of 16 pixels at every 8 pixels: [49, 4]."""
    corner = torch.cartesian_prod(torch.arange(0, 49, 8), torch.arange(0, 49, 8)).float().flip(1)
    return torch.cat([corner, corner + 16], 1)


def network_output(images: int, classes: int = 4) -> torch.Tensor:
    anchors = some_anchors()
    source = torch.Generator().manual_seed(3)
    logits = torch.randn(images, len(anchors), classes + 1, generator=source)
    return join(logits, torch.zeros(images, len(anchors), 4), anchors)


def test_views_agree_at_the_anchors_of_one_class_in_both() -> None:
    """One box of class 2 in the same place of both views, one of classes 1 and 3 in another, one in view a alone."""
    rows_a = torch.tensor([[0.0, 0, 16, 16, 2], [32, 32, 48, 48, 1], [0, 48, 16, 64, 0]])
    rows_b = torch.tensor([[0.0, 0, 16, 16, 2], [32, 32, 48, 48, 3], [0, 0, 0, 0, -1]])
    outputs = network_output(2)
    empty = torch.tensor([[0.0, 0, 0, 0, -1]]).expand(3, 5)
    targets_a, targets_b = torch.stack([rows_a, rows_a]), torch.stack([rows_b, empty])
    weights = tasks.find("detection").agreement(outputs, targets_a, targets_b, pair(targets_a, targets_b))
    assert weights is not None
    classes = matched_classes(targets_a, some_anchors())[0]
    expected = (matched_classes(targets_b, some_anchors())[0] == 3) & (classes == 3)
    assert expected.any()
    assert torch.equal(weights[0] > 0, expected)
    assert not weights[1].any()
    # The mean over all positions is the mean over those that agree.
    values = torch.randn(weights.shape)
    assert (values * weights).mean() == pytest.approx(values[0][expected].mean().item(), abs=1e-5)


def test_no_agreement_gives_zero_and_an_image_alone_in_its_class_has_none(random_truth: Truth) -> None:
    outputs, truth = network_output(3), random_truth(3, classes=4)
    truth[0] = truth[2]
    task = tasks.find("detection")
    alone = task.agreement(outputs, truth, truth, pair(truth, truth, torch.tensor([True, False, True])))
    assert alone is not None
    assert alone[0].any()
    assert not alone[1].any()
    nothing = truth.clone()
    nothing[..., :4], nothing[..., 4] = 0, -1
    weights = task.agreement(outputs, truth, nothing, pair(truth, nothing))
    assert weights is not None
    assert weights.sum() == 0


@pytest.fixture(scope="module")
def scenes() -> DataSet:
    """48 training and 24 validation scenes."""
    data = data_sets.load(DataSettings(name="drawn_boxes", samples=48), "detection")
    return replace(data, validation=part(data.validation, 24))


def part(split: object, count: int) -> DenseMemorySplit:
    assert isinstance(split, DenseMemorySplit)
    return DenseMemorySplit(split.images[:count], split.truths[:count], split.targets[:count])


def perfect(truths: torch.Tensor, classes: int = 5) -> Callable[[torch.Tensor], torch.Tensor]:
    """A network that knows the truth of a split, asked for the whole of it in order."""
    corner = torch.cartesian_prod(torch.arange(0, 57, 4), torch.arange(0, 57, 4)).float().flip(1)
    anchors = torch.cat([torch.cat([corner - side / 2, corner + side / 2], 1) for side in (12, 20, 30)])
    place = 0

    def predict(images: torch.Tensor) -> torch.Tensor:
        nonlocal place
        truth = truths[place : place + len(images)]
        place = (place + len(images)) % len(truths)
        matched = match(truth, anchors)
        logits = 15 * functional.one_hot(matched_classes(truth, anchors), classes + 1).float()
        boxes = truth.gather(1, matched.clamp(min=0)[..., None].expand(-1, -1, 5))[..., :4]
        return join(logits, encode(torch.where(matched[..., None] >= 0, boxes, anchors), anchors), anchors)

    return predict


def blind(images: torch.Tensor) -> torch.Tensor:
    """A network that sees background everywhere."""
    outputs = network_output(len(images), classes=5)
    outputs[:, 0] = 99
    return outputs


def test_a_perfect_network_has_a_precision_of_one_and_a_blind_one_of_zero(scenes: DataSet) -> None:
    task = tasks.find("detection")
    split = scenes.validation
    assert isinstance(split, DenseMemorySplit)
    best = task.evaluate(perfect(split.truths), split, CPU)
    assert best["map"] == best["map50"] == 1
    assert best["loss"] < 1e-3
    worst = task.evaluate(blind, split, CPU)
    assert worst["map"] == worst["map50"] == task.worst
    assert np.isfinite(worst["loss"])


def test_a_split_without_objects_is_measured_as_zero(scenes: DataSet) -> None:
    assert isinstance(scenes.validation, DenseMemorySplit)
    empty = torch.zeros_like(scenes.validation.truths)
    empty[..., 4] = -1
    split = DenseMemorySplit(scenes.validation.images, empty, scenes.validation.targets)
    assert set(tasks.find("detection").evaluate(perfect(scenes.validation.truths), split, CPU).values()) == {0.0}


def test_the_evidence_names_the_precision_of_each_class(scenes: DataSet) -> None:
    assert isinstance(scenes.validation, DenseMemorySplit)
    truths = scenes.validation.truths.clone()
    truths[..., :4][truths[..., 4] == 2] = 0
    truths[..., 4][truths[..., 4] == 2] = -1
    data = replace(scenes, validation=DenseMemorySplit(scenes.validation.images, truths, scenes.validation.targets))
    facts = tasks.find("detection").evidence(perfect(truths), data, CPU).facts
    assert facts["per_class_ap"] == {"disc": 1, "square": 1, "triangle": None, "cross": 1, "crescent": 1}


def test_panels_show_the_same_images_with_the_true_and_the_found_boxes(scenes: DataSet) -> None:
    assert isinstance(scenes.validation, DenseMemorySplit)
    data = replace(scenes, validation=part(scenes.validation, 4))
    truths = scenes.validation.truths[:4]
    panels = tasks.find("detection").panels(perfect(truths), data, CPU, teacher=blind)
    assert list(panels) == ["input", "target", "teacher", "student"]
    for index in range(4):
        image = scenes.validation.images[index].numpy()
        assert np.array_equal(panels["input"][index], image)
        assert np.array_equal(panels["teacher"][index], image)
        assert np.array_equal(panels["student"][index], panels["target"][index])
        changed = (panels["target"][index] != image).any(0)
        for x1, y1, x2, y2, _ in truths[index][truths[index, :, 4] >= 0].long().tolist():
            assert changed[[y1, y2 - 1], x1:x2].mean() > 0.9
            assert changed[y1:y2, [x1, x2 - 1]].mean() > 0.9
    assert list(tasks.find("detection").panels(blind, data, CPU)) == ["input", "target", "student"]


def test_a_training_set_without_any_object_is_refused(scenes: DataSet) -> None:
    assert isinstance(scenes.train, DenseMemorySplit)
    empty = torch.zeros_like(scenes.train.truths)
    empty[..., 4] = -1
    data = replace(scenes, train=DenseMemorySplit(scenes.train.images, empty, scenes.train.targets))
    with pytest.raises(BadData, match="no training image of 'drawn_boxes' has an object"):
        tasks.find("detection").batches(data, Batching(4, AugmentationSettings(), seed=0, device=CPU))


def trainer(method: str, data: DataSet, **setting: float) -> Trainer:
    made = Experiment(
        method=method,
        task="detection",
        data={"name": "drawn_boxes"},
        student={"name": "ssd", "arguments": {"width": 8}},
        training={"epochs": 3, "batch_size": 8},
        search={"grace_period": 1},
    )
    return Trainer(made, {**made.paper(), **setting}, data=data, device=CPU)


@pytest.mark.parametrize("method", ["ips", "supervised"])
def test_saved_loaded_and_gone_on_equals_not_interrupted(method: str, scenes: DataSet, tmp_path: Path) -> None:
    whole = trainer(method, scenes)
    for _ in range(3):
        whole.epoch()
    begun = trainer(method, scenes)
    begun.epoch()
    begun.save(tmp_path)
    resumed = trainer(method, scenes)
    assert resumed.load(tmp_path)
    while not resumed.finished:
        resumed.epoch()
    for key in ("method", "average"):
        first, second = whole.state_dict()[key], resumed.state_dict()[key]
        assert all(torch.equal(first[name], second[name]) for name in first)
    assert [report.metrics for report in whole.history[1:]] == [report.metrics for report in resumed.history[1:]]
    assert whole.student_bytes() == resumed.student_bytes()


def test_the_exported_student_loads_strictly_and_gives_the_same_metrics(scenes: DataSet) -> None:
    made = trainer("ips", scenes, learning_rate=0.02)
    for _ in range(3):
        made.epoch()
    assert made.best is not None
    again = tasks.find("detection").build(made.experiment.student, scenes)
    again.load_state_dict(load_tensors(made.student_bytes()), strict=True)
    made.student.load_state_dict(made.best.state)
    made.student.to(memory_format=torch.contiguous_format)  # as the other: layouts differ in the order of sums
    images = torch.randn(2, 3, SIDE, SIDE)
    assert torch.equal(again.eval()(images), made.student.eval()(images))


def test_images_without_objects_are_trained_on_beside_others(scenes: DataSet) -> None:
    assert isinstance(scenes.train, DenseMemorySplit)
    truths, labels = scenes.train.truths.clone(), scenes.train.targets.clone()
    truths[::2, :, :4], truths[::2, :, 4], labels[::2] = 0, -1, 5
    data = replace(scenes, train=DenseMemorySplit(scenes.train.images, truths, labels))
    report = trainer("ips", data).epoch()
    assert all(np.isfinite(value) for value in report.metrics.values())
    assert report.metrics["loss/cross_entropy"] > 0


@pytest.mark.slow
def test_a_student_learns_to_find_objects() -> None:
    data = data_sets.load(DataSettings(name="drawn_boxes"), "detection")
    made = Experiment(
        method="supervised",
        task="detection",
        data={"name": "drawn_boxes"},
        student="ssd",
        training={"epochs": 4, "batch_size": 16},
        search={"grace_period": 1},
    )
    found = Trainer(made, {**made.paper(), "optimizer": "sgd", "learning_rate": 0.02}, data=data, device=CPU)
    before = found.validate()[1]["validation/map"]
    values = [found.epoch().value for _ in range(4)]
    assert before < 0.01
    assert values[-1] > 0.08
