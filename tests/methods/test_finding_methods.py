"""Methods are found by name, by entry point, or in a person's own file, and their cards are whole."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from kdsearch import methods, tasks
from kdsearch.errors import InvalidSetting, UnknownName, UserError
from kdsearch.methods.base import Method

OWN = """
from __future__ import annotations

from pydantic import Field

from kdsearch.methods.base import Hyperparameters, Method


class HalfHyperparameters(Hyperparameters):
    share: float = Field(0.5, ge=0, le=1, description="share of the loss")


class Half(Method):
    name = "half"
    title = "Half a loss"
    citation = "nobody"
    forwards = 1.0
    Hyperparameters = HalfHyperparameters

    def losses(self, batch, progress):
        return {"half": self.hyperparameters.share * self.task.loss(self.student(batch.images), batch.targets)}


class Incomplete(Method):
    name = "incomplete"


class NoMethod:
    pass
"""


@pytest.fixture
def own_file(tmp_path: Path) -> Path:
    path = tmp_path / "own_method.py"
    path.write_text(OWN)
    return path


def test_the_four_methods_are_there() -> None:
    assert {"ce", "ips", "kd", "lsskd"} <= set(methods.names())
    for name in methods.names():
        assert issubclass(methods.find(name), Method)
        assert methods.find(name).name == name


@pytest.mark.parametrize("name", ["losses", "base", "heads", "__init__", "transformations", "no such thing"])
def test_modules_that_hold_no_method_are_not_found(name: str) -> None:
    with pytest.raises(UnknownName, match="unknown method"):
        methods.find(name)


def test_a_misspelt_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(UnknownName, match="unknown method 'lskd'; did you mean 'lsskd'"):
        methods.find("lskd")


def test_a_method_of_ones_own_is_found_in_its_file(own_file: Path) -> None:
    found = methods.find(f"{own_file}:Half")
    assert found.name == "half"
    assert found.Hyperparameters(share=0.25).model_dump() == {"share": 0.25}
    assert methods.find(f"{own_file}:Half") is found


def test_a_changed_file_is_read_again(own_file: Path) -> None:
    before = methods.find(f"{own_file}:Half")
    own_file.write_text(OWN.replace("Half a loss", "Another loss"))
    assert methods.find(f"{own_file}:Half").title == "Another loss"
    assert before.title == "Half a loss"


def test_a_method_is_found_in_a_package() -> None:
    assert methods.find("kdsearch.methods.kd:KD") is methods.find("kd")


def test_a_class_that_is_missing_is_answered_with_those_that_are_there(own_file: Path) -> None:
    with pytest.raises(UnknownName, match="'Halve'; did you mean 'Half'"):
        methods.find(f"{own_file}:Halve")


@pytest.mark.parametrize(
    ("attribute", "sentence"),
    [("NoMethod", "is not a subclass of"), ("Incomplete", "the class lacks title, citation, forwards, losses")],
)
def test_a_class_that_is_no_method_is_refused(own_file: Path, attribute: str, sentence: str) -> None:
    with pytest.raises(InvalidSetting, match=sentence):
        methods.find(f"{own_file}:{attribute}")


def test_a_file_that_is_missing_or_broken_is_named_with_the_reason(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"there is no file '.*nowhere\.py'"):
        methods.find(f"{tmp_path}/nowhere.py:Half")
    (tmp_path / "broken.py").write_text("def half(:\n")
    with pytest.raises(UserError, match=r"SyntaxError.*broken\.py, line 1"):
        methods.find(f"{tmp_path}/broken.py:Half")
    with pytest.raises(UserError, match=r"there is no module 'no_such_package\.at_all'"):
        methods.find("no_such_package.at_all:Half")


def test_other_packages_join_by_entry_point(tmp_path: Path, own_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    installed = tmp_path / "half_package-1.0.dist-info"
    installed.mkdir()
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: half-package\nVersion: 1.0\n")
    (installed / "entry_points.txt").write_text("[kdsearch.methods]\nhalf = own_method:Half\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert methods.find("half").title == "Half a loss"
    assert "half" in methods.names()


@pytest.mark.parametrize("name", methods.names())
def test_a_methods_card_is_whole(name: str) -> None:
    method = methods.find(name)
    assert method.title
    assert re.search(r"arXiv \d{4}\.\d{5}", method.citation) or method.citation.startswith("No paper")
    assert method.forwards >= 1
    assert method.notes
    for note in method.notes:
        assert re.search(r"\[(doc|ref|ours)\]\.$", note), note
        assert len(re.findall(r"\[(?:doc|ref|ours)\]", note)) == 1, note
    for task in method.tasks:
        assert tasks.find(task).name == task


@pytest.mark.parametrize("name", methods.names())
def test_each_hyperparameter_is_described_and_bounded(name: str) -> None:
    for field_name, field in methods.find(name).Hyperparameters.model_fields.items():
        assert field.description, field_name
        if field.annotation in (int, float):
            assert field.metadata, f"{field_name} has no range"


@pytest.mark.parametrize("name", methods.names())
def test_a_weight_of_zero_is_legal_and_the_control_takes_it(name: str) -> None:
    method = methods.find(name)
    weights = [
        field_name
        for field_name, field in method.Hyperparameters.model_fields.items()
        if isinstance(field.json_schema_extra, dict) and field.json_schema_extra.get("weight")
    ]
    assert weights or name == "supervised", "a method without a distillation weight cannot be turned off"
    control = method.Hyperparameters(**method.control())
    assert all(getattr(control, weight) == 0 for weight in weights)


def test_published_values_are_the_defaults() -> None:
    kd, ips, lsskd = (methods.find(name).Hyperparameters() for name in ("kd", "ips", "lsskd"))
    assert kd.model_dump() == {"temperature": 4, "alpha": 0.9, "form": "pixel"}
    assert (ips.temperature, ips.alpha, ips.gamma, ips.swap_probability) == (4, 1, 1, 0.5)
    assert (lsskd.temperature, lsskd.alpha, lsskd.beta, lsskd.gamma) == (3, 0.8, 0.1, 0.1)
    assert (lsskd.alpha_schedule, lsskd.task_views, lsskd.transformation) == ("linear", "unrotated", "rotation")
