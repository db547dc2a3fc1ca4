"""Whose code is run: what a file names, and nobody typed, is refused before anything of it is looked up."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from safetensors.numpy import save_file

from kdsearch.cli.options import load_experiment
from kdsearch.errors import UserError
from kdsearch.experiment import Experiment
from kdsearch.training.evaluation import evaluate_export
from kdsearch.tuning import resume
from tests.results.build_run import facts


@pytest.fixture
def evil(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file that notes when it is run, and the folder where one stands."""
    code = "import pathlib\npathlib.Path(__file__).with_name('was-run').touch()\ndef build(**given): ...\n"
    (tmp_path / "evil.py").write_text(code)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "was-run"


def space(**sections: Any) -> str:
    content = {"method": "ce", "space": {"learning_rate": {"low": 0.01, "high": 0.1}}, **sections}
    Path("space.yaml").write_text(yaml.safe_dump(content))
    return "space.yaml"


NAMED_IN_A_FILE: list[dict[str, Any]] = [
    {"method": "evil.py:build"},
    {"data": "evil.py:build"},
    {"data": {"name": "evil.py:build"}},
    {"student": {"name": "evil.py:build", "arguments": {"width": 3}}},
    {"student": "./evil.py:build"},
    {"student": "evil:build"},
    {"method": "kd", "teacher": {"name": "evil.py:build"}},
    {"student": {"name": "os:system", "arguments": {"command": "touch was-run"}}},
    {"resources": {"address": "192.0.2.7:6379"}},
]


@pytest.mark.parametrize("sections", NAMED_IN_A_FILE)
def test_code_that_a_file_names_is_refused_and_not_run(sections: dict[str, Any], evil: Path) -> None:
    sentence = r"^'space.yaml' names (code|a cluster) that would .*; read it, and if you trust it say --allow-code$"
    with pytest.raises(UserError, match=sentence):
        Experiment.load(space(**sections))
    with pytest.raises(UserError, match=sentence):
        load_experiment("space.yaml", {}, None, None, None, None)
    with contextlib.suppress(UserError):  # another task brings its own data and networks, once the method is known
        load_experiment("space.yaml", {"task": "segmentation"}, None, None, None, None)
    assert not evil.exists()


@pytest.mark.parametrize("sections", NAMED_IN_A_FILE)
def test_a_run_that_came_from_someone_else_is_not_resumed_with_its_code(sections: dict[str, Any], evil: Path) -> None:
    Path("run").mkdir()
    Path(space(**sections)).rename("run/experiment.yaml")
    with pytest.raises(UserError, match="say --allow-code"):
        resume("run")
    assert not evil.exists()


def test_code_that_is_typed_or_allowed_is_run(evil: Path) -> None:
    Path("method.py").write_text("from kdsearch.methods.ce import CrossEntropy\nclass Mine(CrossEntropy): ...\n")
    assert Experiment.load("method.py:Mine").method == "method.py:Mine"
    own = space(method="method.py:Mine")
    assert Experiment.load(own, {"method": "method.py:Mine"}).method == "method.py:Mine"
    assert Experiment.load(own, allow_code=True).method == "method.py:Mine"
    student = space(student="evil.py:build")
    assert load_experiment(student, {}, "evil.py:build", None, None, None).student.name == "evil.py:build"
    assert load_experiment(student, {}, "resnet8", None, None, None).student.name == "resnet8"
    assert load_experiment(student, {}, None, None, None, None, allow_code=True).student.name == "evil.py:build"


@pytest.mark.parametrize("student", ["resnet8", "torchvision:resnet18", "smp:unet:resnet18"])
def test_networks_of_libraries_are_no_code_of_anyones(student: str, evil: Path) -> None:
    assert Experiment.load(space(student=student, resources={"address": "auto"})).student.name == student


def export(folder: Path, **changes: Any) -> Path:
    folder.mkdir()
    known = facts()
    known["student"] |= changes.pop("student", {})
    known["data"] |= changes.pop("data", {})
    (folder / "metrics.json").write_text(json.dumps(known))
    save_file({"weight": np.zeros(2, dtype=np.float32)}, folder / "student.safetensors")
    return folder


@pytest.mark.parametrize("changes", [{"student": {"name": "evil.py:build"}}, {"data": {"name": "evil.py:build"}}])
def test_an_export_that_names_code_is_not_measured(changes: dict[str, Any], evil: Path) -> None:
    folder = export(Path("theirs"), **changes)
    with pytest.raises(
        UserError, match=r"'theirs' names code that would be run: (student|data).name = 'evil.py:build'"
    ):
        evaluate_export(folder)
    assert not evil.exists()
    with pytest.raises(UserError):  # it returns nothing of use, but run it was
        evaluate_export(folder, allow_code=True)
    assert evil.exists()


def test_an_export_that_names_code_is_no_teacher(evil: Path) -> None:
    folder = export(Path("theirs"), student={"name": "evil.py:build"})
    with pytest.raises(UserError, match=r"teacher.name = \./theirs, whose network = 'evil.py:build'"):
        load_experiment("kd", {}, None, f"./{folder}", None, None)
    assert not evil.exists()
