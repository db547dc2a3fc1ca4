"""Segmentation through the Trainer: it learns, and stopped and resumed it ends where it would have ended."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from kdsearch import data as data_sets
from kdsearch.data.base import DataSet
from kdsearch.data.dense.splits import DenseMemorySplit
from kdsearch.errors import BadWeights, InvalidSetting
from kdsearch.experiment import Experiment
from kdsearch.settings import DataSettings
from kdsearch.training.evaluation import evaluate_export
from kdsearch.training.single import train_student
from kdsearch.training.teacher import load_teacher
from kdsearch.training.teaching import compute_outputs, keeps_outputs
from kdsearch.training.trainer import Trainer
from tests.segmentation.trees import masks_tree

CPU = torch.device("cpu")
METHODS = ["supervised", "ips", "kd", "kd channel"]
DATA = {"name": "scenes", "samples": 24}


@pytest.fixture(scope="module")
def scenes() -> DataSet:
    """With few images to validate on: here no number has to be precise."""
    data = data_sets.load(DataSettings(**DATA), "segmentation")  # type: ignore[arg-type]
    ((images, truths),) = data.validation.fetch_pairs([torch.arange(8)])  # type: ignore[attr-defined]
    return replace(data, validation=DenseMemorySplit(images, truths, data.validation.targets[:8]))


def experiment(method: str, **changes: Any) -> Experiment:
    name, _, form = method.partition(" ")
    sections: dict[str, Any] = {
        "method": name,
        "task": "segmentation",
        "data": DATA,
        "student": {"name": "unet", "arguments": {"width": 4, "depth": 2}},
        "teacher": {"name": "unet", "arguments": {"width": 8, "depth": 2}} if name == "kd" else None,
        "training": {"epochs": 3, "batch_size": 8, "optimizer": "sgd", "learning_rate": 0.1},
        "augmentation": {"crop": 4, "flip": True, "color_jitter": 0.2},
        "space": {"form": form} if form else {},
        "search": {"grace_period": 1},
    }
    return Experiment(**sections | changes)


def trainer(method: str, data: DataSet, **changes: Any) -> Trainer:
    made = experiment(method, **changes)
    torch.manual_seed(0)  # the teacher's random weights
    teacher = load_teacher(made, data, CPU) if made.teacher else None
    return Trainer(made, {**made.paper(), "learning_rate": 0.1}, data=data, teacher=teacher, device=CPU)


@pytest.mark.parametrize("method", METHODS)
def test_interrupted_is_uninterrupted(method: str, scenes: DataSet, tmp_path: Path) -> None:
    whole = trainer(method, scenes)
    reports = [whole.epoch() for _ in range(3)]
    for done in (1, 2):
        first = trainer(method, scenes)
        for _ in range(done):
            first.epoch()
        first.save(tmp_path / str(done))
        second = trainer(method, scenes)
        assert second.load(tmp_path / str(done))
        while not second.finished:
            second.epoch()
        assert [report.value for report in second.history] == [report.value for report in reports]
        ended = second.method.state_dict()
        assert all(torch.equal(tensor, ended[name]) for name, tensor in whole.method.state_dict().items())
        assert second.student_bytes() == whole.student_bytes()


@pytest.mark.parametrize("method", METHODS)
def test_each_epoch_reports_finite_terms_metrics_and_pictures(method: str, scenes: DataSet) -> None:
    made = trainer(method, scenes)
    report = made.epoch()
    assert {"validation/miou", "validation/pixel_accuracy", "validation/loss"} <= set(report.metrics)
    assert all(torch.tensor(value).isfinite() for value in report.metrics.values())
    assert report.value == report.metrics["validation_averaged/miou"]
    expected = {"input", "target", "student"} | ({"teacher"} if method.startswith("kd") else set())
    assert set(report.panels) == expected
    assert all(picture.shape == (3, 48, 48) for column in report.panels.values() for picture in column)


def test_a_student_learns_and_its_export_says_what_it_can(tmp_path: Path) -> None:
    """Boxes whose class is their colour, of one's own files: more than the background alone, which has IoU 1 / 4."""
    masks_tree(tmp_path / "own", 40)
    made = experiment(
        "supervised",
        data={"name": "masks", "root": str(tmp_path / "own"), "image_size": 32},
        training={"epochs": 8, "batch_size": 4, "optimizer": "adam", "learning_rate": 0.01},
        augmentation={"crop": 0},
    )
    facts = train_student(made, tmp_path / "best")
    result = evaluate_export(tmp_path / "best", "val", str(tmp_path / "own"))
    assert result["metrics"]["miou"] > 0.5
    assert facts["value"] == pytest.approx(result["metrics"]["miou"], abs=1e-6)
    scores = [score for score in facts["per_class_iou"].values() if score is not None]
    assert set(facts["per_class_iou"]) == {"0", "1", "2", "3"}
    assert sum(scores) / len(scores) == pytest.approx(facts["value"], abs=1e-6)


def test_deeplab_trains_on_batches_of_two_and_pairs(scenes: DataSet) -> None:
    """Its pooled branch normalises over one value an image: a batch of one image would have no variance."""
    network = {"name": "torchvision:deeplabv3_mobilenet_v3_large"}
    data = data_sets.load(DataSettings(name="scenes", samples=10, label_fraction=0.4), "segmentation")
    made = trainer("ips", data, student=network, training={"epochs": 1, "batch_size": 2})
    batch = next(iter(made.batches.epoch(0)))
    terms = made.method.train().losses(batch, 0.0)
    torch.stack(list(terms.values())).sum().backward()
    assert all(term.isfinite() for term in terms.values())


@pytest.mark.parametrize("setting", ["cutout", "cutmix", "mixup"])
def test_augmentation_without_a_rule_is_refused(setting: str, scenes: DataSet) -> None:
    with pytest.raises(InvalidSetting, match=rf"augmentation\.{setting}"):
        trainer("supervised", scenes, augmentation={setting: 1})


def test_a_teacher_of_other_classes_is_refused(scenes: DataSet, tmp_path: Path) -> None:
    masks_tree(tmp_path / "own", 12)
    made = experiment(
        "supervised",
        data={"name": "masks", "root": str(tmp_path / "own"), "image_size": 48},
        training={"epochs": 1, "batch_size": 4},
    )
    train_student(made, tmp_path / "teacher")
    network = {"name": "unet", "arguments": {"width": 4, "depth": 2}, "weights": str(tmp_path / "teacher")}
    with pytest.raises(BadWeights, match=r"head\.weight 4×4×1×1 instead of 6×4×1×1"):
        trainer("kd", scenes, teacher=network)


def test_a_training_with_the_teachers_outputs_kept_is_the_one_that_asks_it(scenes: DataSet) -> None:
    made = experiment("kd channel", augmentation={"crop": 0, "flip": False, "color_jitter": 0.0})
    torch.manual_seed(0)
    teacher = load_teacher(made, scenes, CPU)
    assert keeps_outputs(made, scenes)
    found = []
    for taught in (None, compute_outputs(made, scenes, teacher, CPU)):
        training = Trainer(made, made.paper(), data=scenes, teacher=teacher, taught=taught, device=CPU)
        found.append([(report.value, report.metrics) for report in (training.epoch(), training.epoch())])
    assert found[0] == found[1]
