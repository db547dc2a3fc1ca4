"""Segmentation from the command line, on a real local Ray, and what a person is told of bad input."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from PIL import Image

from kdsearch.cli import main
from kdsearch.experiment import Experiment
from tests.segmentation.trees import masks_tree, voc_tree

if TYPE_CHECKING:
    from tests.conftest import Cli

BEST = ("metrics.json", "student.safetensors", "hyperparameters.yaml")


@pytest.mark.slow
def test_a_search_on_drawn_scenes_leaves_a_student_that_reproduces_its_miou(cli: Cli, tmp_path: Path) -> None:
    """The command of the README, cut down."""
    searched = cli(
        "search", "ips", "--task", "segmentation", "--trials", "3", "--max-epochs", "2", "--name", "run",
        "--set", "data.samples=40", "--set", "search.grace_period=1", cwd=tmp_path,
    )  # fmt: skip
    assert searched.returncode == 0, searched.stderr
    best = tmp_path / "runs" / "run" / "best"
    assert all((best / name).is_file() for name in BEST)
    facts = json.loads((best / "metrics.json").read_text())
    assert (facts["task"], facts["metric"]) == ("segmentation", "miou")
    assert (facts["student"]["name"], facts["student"]["outputs"]) == ("unet", 6)
    assert set(facts["per_class_iou"]) == {"background", "disc", "ring", "square", "triangle", "cross"}
    scores = [score for score in facts["per_class_iou"].values() if score is not None]
    assert sum(scores) / len(scores) == pytest.approx(facts["value"], abs=1e-6)
    again = json.loads(cli("evaluate", str(best), "--json", cwd=tmp_path).stdout)
    assert again["metrics"]["miou"] == pytest.approx(facts["value"], abs=1e-6)
    tested = json.loads(cli("evaluate", str(best), "--split", "test", "--json", cwd=tmp_path).stdout)
    assert 0 < tested["metrics"]["miou"] < 1
    status = json.loads(cli("status", "run", "--json", cwd=tmp_path).stdout)
    assert status["trials"][1]["hyperparameters"]["alpha"] == 0  # the control


@pytest.mark.slow
def test_deeplab_is_searched_on_a_tree_of_voc2012(cli: Cli, tmp_path: Path) -> None:
    """The command of the issue, with a few small pictures in VOC's own layout."""
    voc_tree(tmp_path / "voc", train=8, val=4)
    searched = cli(
        "search", "ips", "--task", "segmentation", "--data", "voc2012", "--data-root", "voc",
        "--student", "torchvision:deeplabv3_mobilenet_v3_large", "--trials", "2", "--max-epochs", "1", "--name", "run",
        "--set", "data.image_size=48", "--set", "training.batch_size=2", "--set", "search.grace_period=1",
        cwd=tmp_path,
    )  # fmt: skip
    assert searched.returncode == 0, searched.stderr
    facts = json.loads((tmp_path / "runs" / "run" / "best" / "metrics.json").read_text())
    assert (facts["student"]["outputs"], facts["student"]["size"]) == (21, [48, 48])
    assert len(facts["per_class_iou"]) == 21
    again = cli("evaluate", "runs/run/best", "--data-root", "voc", "--split", "test", "--json", cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    assert 0 <= json.loads(again.stdout)["metrics"]["miou"] <= 1


@pytest.mark.slow
def test_kd_trains_its_teacher_and_distils_per_pixel_and_per_channel(cli: Cli, tmp_path: Path) -> None:
    searched = cli(
        "search", "kd", "--task", "segmentation", "--trials", "2", "--max-epochs", "1", "--name", "run",
        "--set", "data.samples=40", "--set", "teacher.epochs=1", "--set", "search.grace_period=1",
        "--set", "space.form={choices: [pixel, channel]}", cwd=tmp_path,
    )  # fmt: skip
    assert searched.returncode == 0, searched.stderr
    assert "training the teacher unet once, 1 epoch" in searched.stdout
    facts = json.loads((tmp_path / "runs" / "run" / "best" / "metrics.json").read_text())
    assert facts["hyperparameters"]["form"] in ("pixel", "channel")


@pytest.mark.parametrize("method", ["ips", "kd", "supervised"])
def test_a_task_alone_names_data_networks_and_a_budget(method: str) -> None:
    from kdsearch.cli.options import load_experiment

    made = load_experiment(method, {"task": "segmentation"}, None, None, None, None)
    assert isinstance(made, Experiment)
    assert (made.data.name, made.student.name, dict(made.student.arguments)) == (
        "scenes",
        "unet",
        {"width": 4, "depth": 2},
    )
    assert (made.training.epochs, made.training.batch_size, made.search.trials) == (12, 8, 12)
    assert (made.teacher is None) == (method != "kd")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--data", "voc2012"], "data.root"),
        (["--data", "voc2012", "--data-root", "nowhere"], "nowhere"),
        (["--data", "masks", "--data-root", "own"], "own/masks/3.png is in colour"),
        (["--data", "digits"], "digits"),
        (["--data", "scene"], "did you mean 'scenes'"),
        (["--student", "torchvision:deeplabv3_resnet5"], "did you mean 'deeplabv3_resnet50'"),
        (["--student", "resnet8"], "resnet8 gives"),
        (["--set", "augmentation.cutmix=0.5"], "augmentation.cutmix"),
        (["--set", "space.patches_per_side=64"], "patches_per_side"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_input_gets_one_sentence_and_exit_code_2(
    arguments: list[str],
    sentence: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    masks_tree(tmp_path / "own", 6)
    Image.new("RGB", (40, 30)).save(tmp_path / "own" / "masks" / "3.png")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr(sys, "argv", ["kdsearch", "search", "ips", "--task", "segmentation", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    said = capsys.readouterr().err
    assert ended.value.code == 2, said
    assert sentence in said
    assert len(said.strip().splitlines()) == 1, said
    assert not (tmp_path / "runs").exists()
