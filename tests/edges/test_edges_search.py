"""Edge distillation as a person runs it: interrupted and resumed, through the command line, evaluated again."""

from __future__ import annotations

import io
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from PIL import Image

from kdsearch import data as data_sets
from kdsearch import tasks
from kdsearch.cli import main
from kdsearch.data.dense.splits import DenseMemorySplit
from kdsearch.experiment import Experiment
from kdsearch.training.trainer import Trainer, predictor

if TYPE_CHECKING:
    from kdsearch.data.base import DataSet
    from tests.conftest import Cli

CPU = torch.device("cpu")
SMALL = {"name": "drawn_edges", "samples": 16}
TINY = {"name": "unet", "arguments": {"width": 2, "depth": 1}}


@pytest.fixture(scope="module")
def drawn() -> DataSet:
    return data_sets.load(experiment().data, "edges")


def experiment(**changes: object) -> Experiment:
    sections: dict[str, object] = {
        "method": "edge_kd",
        "task": "edges",
        "data": SMALL,
        "student": TINY,
        "teacher": {"name": "unet", "arguments": {"width": 3, "depth": 1}},
        "training": {"epochs": 4, "batch_size": 4, "learning_rate": 0.01},
        "search": {"grace_period": 1},
    }
    return Experiment(**(sections | changes))


def trainer(data: DataSet) -> Trainer:
    made = experiment()
    torch.manual_seed(0)
    assert made.teacher is not None
    teacher = tasks.find("edges").build(made.teacher, data).eval().requires_grad_(False)
    return Trainer(made, made.paper(), data=data, teacher=teacher, device=CPU)


def test_a_training_that_is_interrupted_ends_as_one_that_is_not(drawn: DataSet, tmp_path: Path) -> None:
    """With the report's plateau, whose decay depends on the results of earlier epochs."""
    whole, begun, resumed = trainer(drawn), trainer(drawn), trainer(drawn)
    assert whole.training.schedule == "plateau"
    while not whole.finished:
        whole.epoch()
    begun.epoch()
    begun.epoch()
    begun.save(tmp_path)
    assert resumed.load(tmp_path)
    while not resumed.finished:
        resumed.epoch()
    assert resumed.student_bytes() == whole.student_bytes()
    for one, other in zip(resumed.history, whole.history, strict=True):
        assert one.metrics == other.metrics
    for one, other in zip(resumed.student.parameters(), whole.student.parameters(), strict=True):
        assert torch.equal(one, other)


def rectangles(count: int, seed: int) -> DenseMemorySplit:
    """Bright rectangles 24×24 on dark ground, whose outline one annotator marks."""
    random = np.random.default_rng(seed)
    images, truths = np.full((count, 3, 24, 24), 40, dtype=np.uint8), np.zeros((count, 24, 24), dtype=np.int16)
    for image, truth in zip(images, truths, strict=True):
        (top, left), (high, wide) = random.integers(2, 10, 2), random.integers(6, 12, 2)
        image[:, top : top + high, left : left + wide] = 200
        truth[top : top + high, left : left + wide] = 1
        truth[top + 1 : top + high - 1, left + 1 : left + wide - 1] = 0
    return DenseMemorySplit.of_arrays(images, truths, np.zeros(count, dtype=np.int64))


def test_a_student_learns_to_see_edges(drawn: DataSet) -> None:
    train, validation = rectangles(48, 0), rectangles(12, 1)
    data = replace(drawn, train=train, validation=validation, test=validation, size=(24, 24))
    made = experiment(
        student={"name": "unet", "arguments": {"width": 4, "depth": 1}},
        method="supervised",
        teacher=None,
        training={"epochs": 12, "batch_size": 8, "learning_rate": 0.02},
    )
    student = Trainer(made, made.paper(), data=data, device=CPU)
    while not student.finished:
        student.epoch()
    assert student.best is not None
    assert student.best.value > 0.8  # all white has 0.15
    found = student.task.final_metrics(predictor(student.student, data, student.size), validation, CPU)
    assert min(found["ods"], found["ois"]) > 0.8


@pytest.mark.slow
def test_a_search_leaves_a_student_that_reproduces_its_measures(cli: Cli, tmp_path: Path) -> None:
    changes = {
        "data.samples": 16,
        "search.grace_period": 1,
        "student.arguments.width": 2,
        "teacher.arguments.width": 4,
        "teacher.epochs": 2,
        "training.epochs": 2,
    }
    given = [word for key, value in changes.items() for word in ("--set", f"{key}={value}")]
    searched = cli("search", "edge_kd", "--trials", "3", "--name", "edges", *given, cwd=tmp_path)
    assert searched.returncode == 0, searched.stderr
    best = tmp_path / "runs" / "edges" / "best"
    facts = json.loads((best / "metrics.json").read_text())
    assert facts["task"] == "edges"
    assert facts["metric"] == "dice"
    assert facts["validation"]["dice"] == facts["value"]
    assert all(0 <= facts["validation"][name] <= 1 for name in ("ods", "ois", "ods_threshold"))
    status = json.loads(cli("status", "edges", "--json", cwd=tmp_path).stdout)
    assert {trial["state"] for trial in status["trials"]} <= {"COMPLETE", "PRUNED"}
    assert len(status["trials"]) == 3
    again = json.loads(cli("evaluate", str(best), "--json", cwd=tmp_path).stdout)["metrics"]
    assert again == pytest.approx({key: facts["validation"][key] for key in again}, abs=1e-6)
    assert set(again) == {"dice", "loss", "ods", "ois", "ods_threshold"}
    test = json.loads(cli("evaluate", str(best), "--split", "test", "--json", cwd=tmp_path).stdout)
    assert test["test_readings"] == 1
    assert set(test["metrics"]) == set(again)
    assert _coloured_columns(best) >= 4


def _coloured_columns(best: Path) -> int:
    """How many pictures beside one another the grid of samples has: it is wider than so many of 96 pixels."""
    with Image.open(io.BytesIO((best / "samples.png").read_bytes())) as picture:
        assert np.asarray(picture).std() > 10
        return picture.width // 96


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--task", "segmentation"], "method 'edge_kd' is for edges"),
        (["--set", "space.imitation=kl"], "space.imitation = 'kl'"),
        (["--student", "smp:unet:resnet35"], "unknown encoder of segmentation-models-pytorch 'resnet35'"),
        (["--data", "bsds500"], "data.root"),
        (["--set", "space.alpha.high=2"], "space.alpha.high = 2"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_mistake_gets_one_sentence_and_writes_nothing(
    arguments: list[str],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr(sys, "argv", ["kdsearch", "search", "edge_kd", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    told = capsys.readouterr().err
    assert ended.value.code == 2
    assert said in told
    assert len(told.strip().splitlines()) == 1
    assert not list(tmp_path.iterdir())
