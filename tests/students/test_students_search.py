"""Several students through the real parts: what they cost, what does not fit, and a search as a person types it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
import yaml

from kdsearch import data as data_sets
from kdsearch import models
from kdsearch.errors import UserError
from kdsearch.experiment import Experiment
from kdsearch.results.export import WEIGHTS
from kdsearch.training.limits import within_limits
from kdsearch.training.rehearsal import rehearse
from kdsearch.tuning.confirm_student import Job, read_test, train
from kdsearch.tuning.objective import TrainerObjectives

if TYPE_CHECKING:
    from kdsearch.data.base import DataSet
    from tests.conftest import Cli

CODE = """\
from torch import nn


def net(channels, classes, width):
    first = nn.Sequential(nn.Conv2d(channels, width, 3, padding=1), nn.ReLU())
    return nn.Sequential(first, nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(4 * width, classes))


def narrow(channels, classes):
    return net(channels, classes, 4)


def wide(channels, classes):
    return net(channels, classes, 32)


def broken(channels, classes):
    raise ValueError("no such luck")
"""
NARROW, WIDE = (9 + 1) * 4 + (16 + 1) * 10, (9 + 1) * 32 + (128 + 1) * 10
CHEAP = {"data.label_fraction": 0.1, "training.epochs": 1, "search.grace_period": 1}


@pytest.fixture
def nets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder one works in, with networks of one's own."""
    (tmp_path / "nets.py").write_text(CODE)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def digits() -> DataSet:
    return data_sets.load(Experiment.load("ce", CHEAP).data)


def made(*names: str, method: str = "ce", **limits: Any) -> Experiment:
    changes = {f"search.{key}": value for key, value in limits.items()}
    return Experiment.load(method, {**CHEAP, "student.name": list(names), **changes})


def test_a_student_that_is_too_large_is_left_out_with_its_figure_and_the_limit(nets: Path, digits: DataSet) -> None:
    said: list[str] = []
    names = ("nets.py:wide", "nets.py:narrow", "nets.py:net")
    two = made("nets.py:wide", "nets.py:narrow", "resnet20", max_parameters=WIDE)
    kept, document = within_limits(two, digits, said.append)
    assert kept.students == names[:2]
    assert document is not None
    assert [student["parameters"] for student in document["students"]] == [WIDE, NARROW, 272_186]
    assert said[1:] == [f"left out: resnet20 has 272,186 parameters, more than the limit of {WIDE:,}"]
    wide, narrow, large = document["students"]
    assert wide["student"] == f"{nets}/nets.py:wide"
    assert wide["multiply_adds"] == 64 * 9 * 32 + 128 * 10
    assert narrow["latency"] is not None
    assert large["latency"] is None  # it need not be timed


def test_the_one_student_that_is_left_is_searched_alone_and_none_is_an_error(nets: Path, digits: DataSet) -> None:
    both = ("nets.py:wide", "nets.py:narrow")
    alone, document = within_limits(made(*both, max_parameters=WIDE - 1), digits, lambda sentence: None)
    assert (alone.student.name, alone.students) == ("nets.py:narrow", ())
    assert document is not None
    assert len(document["students"]) == 2
    with pytest.raises(UserError) as error:
        within_limits(made(*both, max_parameters=NARROW - 1), digits, lambda sentence: None)
    assert str(error.value) == (
        f"no student is within the limits: nets.py:wide has {WIDE:,} parameters, more than the limit of {NARROW - 1}; "
        f"nets.py:narrow has {NARROW} parameters, more than the limit of {NARROW - 1}"
    )


def test_limits_hold_of_one_student_too_and_without_them_it_is_not_measured(nets: Path, digits: DataSet) -> None:
    one = Experiment.load("ce", {**CHEAP, "student": "nets.py:wide"})
    assert within_limits(one, digits, lambda sentence: pytest.fail(sentence)) == (one, None)
    slow = Experiment.load("ce", {**CHEAP, "student": "nets.py:wide", "search.max_latency": 1e-9})
    with pytest.raises(UserError, match=r"nets.py:wide takes [0-9.e-]+ ms for an image on one CPU thread, more than"):
        within_limits(slow, digits, lambda sentence: None)
    patient = Experiment.load("ce", {**CHEAP, "student": "nets.py:wide", "search.max_latency": 60})
    assert within_limits(patient, digits, lambda sentence: None)[0] == patient


def test_a_student_that_cannot_be_built_is_named(nets: Path, digits: DataSet) -> None:
    experiment = made("nets.py:wide", "nets.py:broken")
    for check in (rehearse, lambda *given: within_limits(*given, print)):
        with pytest.raises(UserError, match=r"student 'nets.py:broken': nets.py:broken failed: ValueError: no such"):
            check(experiment, digits)


def test_heads_on_stages_that_one_of_the_students_lacks_are_refused_before_the_first_trial(
    nets: Path, digits: DataSet
) -> None:
    heads = {"space.heads": {"choices": ["all", "3"]}}
    names = {**CHEAP, "student.name": ["resnet8", "nets.py:narrow"]}
    with pytest.raises(UserError, match=r"student 'nets.py:narrow': with heads = '3': heads = '3': .*numbered 1 to 1"):
        rehearse(Experiment.load("lsskd", {**names, **heads}), digits)


def test_a_confirmation_builds_the_student_of_each_setting(nets: Path, digits: DataSet) -> None:
    objectives = TrainerObjectives(made("nets.py:wide", "nets.py:narrow"), digits, threads=1)
    for number, (name, size) in enumerate((("nets.py:wide", WIDE), ("nets.py:narrow", NARROW))):
        job = Job(number, {"student": name, "learning_rate": 0.1}, 5, nets / str(number), keep=True)
        trained, read = train(objectives, job), read_test(objectives, job)
        facts = json.loads((job.folder / "best" / "facts.json").read_text())
        assert (facts["student"]["name"], facts["student"]["parameters"]) == (name, size)
        assert trained.value == facts["value"]
        assert set(read.metrics) >= {"accuracy"}


def built(export: Path) -> int:
    """Build the network of an export with its weights; its number of parameters."""
    facts = json.loads((export / "metrics.json").read_text())["student"]
    network = models.build(
        models.from_export(export), outputs=facts["outputs"], channels=facts["channels"], size=tuple(facts["size"])
    )
    assert all(torch.isfinite(tensor).all() for tensor in network.state_dict().values())
    return models.count_parameters(network)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_command_searches_students_and_says_which_are_worth_it(cli: Cli, nets: Path) -> None:
    found = cli(
        "search", "ce", "--student", "nets.py:wide,resnet20,nets.py:narrow", "--max-params", "0.2M", "--data", "digits",
        "--label-fraction", "0.1", "--trials", "4", "--max-epochs", "1", "--gpus-per-trial", "0", "--name", "several",
        cwd=nets,
    )  # fmt: skip
    assert found.returncode == 0, found.stderr
    assert "left out: resnet20 has 272,186 parameters, more than the limit of 200,000" in found.stdout + found.stderr
    run = nets / "runs" / "several"
    content = yaml.safe_load((run / "experiment.yaml").read_text())
    assert content["space"]["student"] == {"choices": [f"{nets}/nets.py:wide", f"{nets}/nets.py:narrow"]}
    assert content["search"]["max_parameters"] == 200_000

    refused = cli("resume", "several", "--trials", "1", cwd=nets)
    assert refused.returncode == 2
    assert "names code that would be run" in refused.stderr
    more = cli("resume", "several", "--trials", "1", "--allow-code", cwd=nets)
    assert more.returncode == 0, more.stderr

    document = json.loads(cli("best", "several", "--json", cwd=nets).stdout)
    trials = json.loads(cli("status", "several", "--json", cwd=nets).stdout)["trials"]
    assert len(trials) == 5
    assert [trial["state"] for trial in trials[:4]] == ["COMPLETE"] * 4
    assert [row["name"] for row in document["students"]] == ["nets.py:wide", "resnet20", "nets.py:narrow"]
    assert [row["parameters"] for row in document["students"]] == [WIDE, 272_186, NARROW]
    for row in document["students"]:
        own = [
            trial["best"] for trial in trials
            if trial["hyperparameters"]["student"] == row["student"] and trial["state"] == "COMPLETE"
        ]  # fmt: skip
        assert row["value"] == max(own, default=None)
    assert document["students"][2]["front"]  # the smallest of those that have a value
    winner = document["best"]["hyperparameters"]["student"].rpartition("/")[2]

    export = nets / "mine"
    assert cli("export", "several", "--to", "mine", cwd=nets).returncode == 0
    size = {"nets.py:wide": WIDE, "nets.py:narrow": NARROW}[winner]
    assert built(export) == size
    assert (export / WEIGHTS).is_file()
    card, facts = (export / "README.md").read_text(), json.loads((export / "metrics.json").read_text())
    assert f"| nets.py:narrow | {document['students'][2]['value']:.4f} | {NARROW} |" in card
    assert "| resnet20 | – | 272,186 | – | – | left out |" in card
    assert [row["student"] for row in facts["search"]["students"]] == ["nets.py:wide", "resnet20", "nets.py:narrow"]
    assert str(nets) not in card + json.dumps(facts) + (export / "hyperparameters.yaml").read_text()
    measured = json.loads(cli("evaluate", "runs/several/best", "--allow-code", "--json", cwd=nets).stdout)
    assert measured["metrics"]["accuracy"] == pytest.approx(document["best"]["best"])

    again = cli(
        "train", "runs/several/experiment.yaml", "--hyperparameters", "mine/hyperparameters.yaml", "--allow-code",
        "--to", "again", cwd=nets,
    )  # fmt: skip
    assert again.returncode == 0, again.stderr
    assert built(nets / "again") == size
    assert cli("report", "several", cwd=nets).returncode == 0
