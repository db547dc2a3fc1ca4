"""`kdsearch search … --task detection` as a person types it, on a real local Ray."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import VOCTree

    from tests.conftest import Cli


@pytest.mark.slow
def test_a_search_on_drawn_scenes_leaves_a_student_that_reproduces_its_precision(cli: Cli, tmp_path: Path) -> None:
    """The built-in search, cut down: two trials of two epochs on 32 scenes."""
    searched = cli(
        "search", "ips", "--task", "detection", "--trials", "2", "--max-epochs", "2", "--set", "data.samples=32",
        "--set", "student.arguments.width=8", "--name", "run", cwd=tmp_path,
    )  # fmt: skip
    assert searched.returncode == 0, searched.stderr
    best = tmp_path / "runs" / "run" / "best"
    facts = json.loads((best / "metrics.json").read_text())
    assert (facts["task"], facts["metric"], facts["data"]["name"]) == ("detection", "map", "drawn_boxes")
    assert set(facts["per_class_ap"]) == {"disc", "square", "triangle", "cross", "crescent"}
    assert {"map", "map50", "loss"} <= set(facts["validation"])
    again = cli("evaluate", "runs/run/best", "--json", cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    assert json.loads(again.stdout)["metrics"]["map"] == facts["value"]
    status = json.loads(cli("status", "run", "--json", cwd=tmp_path).stdout)
    assert [trial["number"] for trial in status["trials"]] == [0, 1]
    assert {trial["state"] for trial in status["trials"]} == {"COMPLETE"}


@pytest.mark.slow
def test_a_search_on_voc_trains_torchvisions_ssdlite(cli: Cli, voc: VOCTree, tmp_path: Path) -> None:
    for number in range(12):
        voc.add("trainval", [("cat", 11, 21, 50 + number, 60), ("dog", 61, 1, 110, 30)][: 1 + number % 2])
    for _ in range(3):
        voc.add("test", [("cat", 11, 21, 60, 70)])
    searched = cli(
        "search", "ips", "--task", "detection", "--data", "voc2007", "--data-root", str(voc.root),
        "--student", "torchvision:ssdlite320_mobilenet_v3_large", "--trials", "1", "--max-epochs", "1",
        "--set", "data.image_size=96", "--set", "training.batch_size=4", "--set", "search.grace_period=1",
        "--name", "run", cwd=tmp_path,
    )  # fmt: skip
    assert searched.returncode == 0, searched.stderr
    facts = json.loads((tmp_path / "runs" / "run" / "best" / "metrics.json").read_text())
    assert facts["student"]["name"] == "torchvision:ssdlite320_mobilenet_v3_large"
    assert facts["student"]["outputs"] == 20 + 9
    assert len(facts["classes"]) == 20
    again = cli("evaluate", "runs/run/best", "--split", "test", "--json", cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    assert json.loads(again.stdout)["test_readings"] == 1
