"""Flags and `--set` become keys of the experiment; `--budget` becomes limits of the search."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from kdsearch.cli.budget import parse_budget
from kdsearch.cli.options import load_experiment, parse_assignments
from kdsearch.errors import InvalidSetting, UserError
from kdsearch.experiment import Experiment
from kdsearch.settings import NetworkSettings, Range, TeacherSettings


@pytest.mark.parametrize(
    ("text", "settings"),
    [
        ("64trials", {"trials": 64}),
        ("64", {"trials": 64}),
        ("1trial", {"trials": 1}),
        ("64.0trials", {"trials": 64}),
        ("90s", {"time": 90}),
        ("90m", {"time": 5400}),
        ("90min", {"time": 5400}),
        ("1.5h", {"time": 5400}),
        ("2d", {"time": 172_800}),
        ("40gpuh", {"gpu_hours": 40}),
        ("0.5GPUh", {"gpu_hours": 0.5}),
        ("64trials,2h,40gpuh", {"trials": 64, "time": 7200, "gpu_hours": 40}),
        (" 2 h , 8 trials ", {"time": 7200, "trials": 8}),
    ],
)
def test_a_budget_is_trials_time_or_gpu_hours(text: str, settings: dict[str, float]) -> None:
    found = parse_budget(text)
    assert found == settings
    assert type(found.get("trials", 0)) is int
    Experiment.load("kd", {f"search.{key}": value for key, value in found.items()})


NO_BUDGETS = [
    ",",
    "x",
    "h",
    "-3",
    "0trials",
    "0h",
    "1.5trials",
    "1e3",
    "2h30m",
    "9epochs",
    "64trials,",
    "٣h",
    "nanh",
    "infh",
]


@pytest.mark.parametrize("text", ["", *NO_BUDGETS, "9" * 400, "9" * 400 + "h"])
def test_what_is_no_budget_is_refused(text: str) -> None:
    with pytest.raises(
        InvalidSetting, match=r"^--budget = '.*': give trials, wall time, GPU hours or images seen, such as 64trials"
    ):
        parse_budget(text)


def test_a_limit_that_is_named_twice_is_refused() -> None:
    with pytest.raises(InvalidSetting, match=r"^--budget = '2h,30m': names the same limit twice$"):
        parse_budget("2h,30m")


@pytest.mark.parametrize(
    ("text", "key", "value"),
    [
        ("search.trials=8", "search.trials", 8),
        ("space.temperature.high=12", "space.temperature.high", 12),
        ("space.heads=1,3", "space.heads", "1,3"),
        ("space.alpha={low: 0, high: 1}", "space.alpha", {"low": 0, "high": 1}),
        ("space.alpha={choices: [0.5, 1]}", "space.alpha", {"choices": [0.5, 1]}),
        (" seed = 3", "seed", 3),
        ("name=", "name", None),
        ("training.nesterov=yes", "training.nesterov", True),
        ("student.weights=a=b", "student.weights", "a=b"),
        ("data.root='12'", "data.root", "12"),
    ],
)
def test_an_assignment_is_a_key_and_a_yaml_value(text: str, key: str, value: Any) -> None:
    assert parse_assignments([text]) == {key: value}


def test_the_last_assignment_of_a_key_counts() -> None:
    assert parse_assignments(["seed=1", "seed=2"]) == {"seed": 2}
    assert parse_assignments([]) == {}


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("seed", "write KEY=VALUE, such as space.temperature.high=12"),
        ("=3", "write KEY=VALUE, such as space.temperature.high=12"),
        ("", "write KEY=VALUE"),
        ("seed=[", "the value is not YAML: did not find expected node content at line"),
        ("seed=*x", "the value is not YAML: the alias *x at line 1 is not followed; write the value out"),
        ("seed=2024-13-45", "the value is not YAML: month must be in 1..12"),
        ("seed=!!python/object/apply:os.getcwd []", "the value is not YAML: could not determine a constructor"),
        ("seed=!!int ''", "the value is not YAML: a value does not fit its tag"),
        ("seed=\udcff", "the value is not YAML: "),
    ],
)
def test_what_is_no_assignment_is_refused(text: str, why: str) -> None:
    with pytest.raises(InvalidSetting) as error:
        parse_assignments([text])
    assert str(error.value).startswith(f"--set = {text!r}: {why}")
    assert "\n" not in str(error.value)


def loaded(space: str = "kd", **given: Any) -> Experiment:
    defaults = {"flags": {}, "student": None, "teacher": None, "assignments": None, "hyperparameters": None}
    return load_experiment(space, **(defaults | given))


def test_flags_that_are_not_given_leave_the_file_alone() -> None:
    assert loaded(flags={"seed": None, "data.name": None}) == Experiment.load("kd")


def test_flags_override_the_file_and_assignments_the_flags() -> None:
    flags = {"search.trials": 8, "training.epochs": 9, "data.label_noise": 0.1}
    experiment = loaded(flags=flags, assignments=["search.trials=5", "space.temperature.high=12"])
    assert (experiment.search.trials, experiment.training.epochs, experiment.data.label_noise) == (5, 9, 0.1)
    assert experiment.data.name == "digits"
    assert experiment.space["temperature"] == Range(low=1, high=12, log=True)


def test_a_network_of_the_command_line_takes_the_place_of_the_files(tmp_path: Path) -> None:
    content = yaml.safe_load(Experiment.load("kd").to_yaml())
    content["student"] = {"name": "a", "weights": "a.safetensors", "arguments": {"width": 2}, "stem": "small"}
    content["teacher"] = {"name": "b", "weights": "b.safetensors", "epochs": 5}
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(content))
    experiment = loaded(str(tmp_path / "own.yaml"), student="resnet14", teacher="resnet101:runs/x/best")
    assert experiment.student == NetworkSettings(name="resnet14", stem="small")
    assert experiment.teacher == TeacherSettings(name="resnet101", weights="runs/x/best", epochs=5)
    kept = loaded(str(tmp_path / "own.yaml"))
    assert kept.student.weights == "a.safetensors"


def test_hyperparameters_of_a_file_are_fixed(tmp_path: Path) -> None:
    (tmp_path / "best.yaml").write_text("temperature: 2\nlearning_rate: 1e-2\n")
    experiment = loaded(hyperparameters=str(tmp_path / "best.yaml"))
    assert experiment.constants == {"temperature": 2.0, "learning_rate": 0.01}
    (tmp_path / "best.yaml").write_text("gamma: 2")
    with pytest.raises(UserError, match=r"^unknown hyperparameter of method 'kd' 'gamma'"):
        loaded(hyperparameters=str(tmp_path / "best.yaml"))
    with pytest.raises(UserError, match=r"none\.yaml cannot be read: No such file or directory$"):
        loaded(hyperparameters=str(tmp_path / "none.yaml"))


def test_a_mistake_in_a_section_is_told_before_torch_is_loaded() -> None:
    code = """
import sys
from kdsearch.cli.options import load_experiment
from kdsearch.errors import UserError
try:
    load_experiment("kd", {"search.trials": 0}, None, None, ["name=a/b"], None)
except UserError as error:
    print(error, "torch" in sys.modules)
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.stdout.startswith("name = 'a/b': must be up to 100 letters"), result.stderr
    assert result.stdout.endswith("False\n")


@pytest.mark.parametrize(
    ("space", "flags", "expected"),
    [
        ("ips", {"training.epochs": 1}, 1),  # the shipped space says 3
        ("ips", {"training.epochs": 9}, 3),
        ("ips", {"task": "segmentation", "training.epochs": 2}, 2),  # the task says 4
        ("edge_kd", {"training.epochs": 5}, 5),
    ],
)
def test_a_first_rung_that_nobody_asked_for_lies_within_the_budget(
    space: str, flags: dict[str, Any], expected: int
) -> None:
    assert load_experiment(space, flags, None, None, None, None).search.grace_period == expected


def test_a_first_rung_that_a_person_asked_for_is_not_changed(tmp_path: Path) -> None:
    sentence = r"search.grace_period = 4: cannot exceed the full budget of 2 epochs"
    with pytest.raises(InvalidSetting, match=sentence):
        load_experiment("ips", {"training.epochs": 2}, None, None, ["search.grace_period=4"], None)
    own = tmp_path / "own.yaml"
    own.write_text(yaml.safe_dump({"method": "ce", "search": {"grace_period": 4}}))
    with pytest.raises(InvalidSetting, match=sentence):
        load_experiment(str(own), {"training.epochs": 2}, None, None, None, None)
    own.write_text(yaml.safe_dump({"method": "ce"}))
    assert load_experiment(str(own), {"training.epochs": 2}, None, None, None, None).search.grace_period == 2
