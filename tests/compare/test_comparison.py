"""What a comparison is made of: entries, budgets, equal costs, and every mistake in a sentence."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from kdsearch.cli.compare import budget_of, shares
from kdsearch.comparison import MANY_TRIALS, Comparison, Unit, compare
from kdsearch.errors import InvalidSetting, UserError
from kdsearch.experiment import Experiment
from kdsearch.files import read_yaml


def load(method: str, given: Mapping[str, Any]) -> Experiment:
    return Experiment.load(method, given)


def made(*names: str, unit: Unit = "images", amount: float = 100_000, **more: Any) -> Comparison:
    return compare(names, load, unit=unit, amount=amount, **more)


def test_the_reference_comes_first_and_cutmix_and_mixup_are_searched_beside_it() -> None:
    found = made("ips", "kd+temperature=2")
    assert [entry.name for entry in found.entries] == ["ce", "ips", "kd+temperature=2", "ce+cutmix", "ce+mixup"]
    assert [entry.run for entry in found.entries] == ["ce", "ips", "kd-temperature-2", "ce-cutmix", "ce-mixup"]
    fixed = {entry.name: entry.experiment.constants for entry in found.entries}
    assert fixed["kd+temperature=2"] == {"temperature": 2.0}
    assert fixed["ce+cutmix"] == {"cutmix": 0.5}
    assert fixed["ce+mixup"] == {"mixup": 1.0, "mixup_alpha": 1.0}
    assert [entry.name for entry in made("ce", "ips", controls=False).entries] == ["ce", "ips"]
    assert [entry.name for entry in made("ips+cutmix", controls=False).entries] == ["ce", "ips+cutmix"]


def test_a_search_ends_by_its_budget_alone() -> None:
    for unit, amount in (("images", 4000.0), ("seconds", 60.0)):
        found = made("ips", unit=unit, amount=amount)  # type: ignore[arg-type]
        for entry in found.entries:
            search = entry.experiment.search
            limits = (search.images, search.training_time)
            assert limits == ((4000, None) if unit == "images" else (None, 60.0))
            assert (search.trials, search.time, search.gpu_hours) == (MANY_TRIALS, None, None)


def test_of_equal_images_a_training_has_as_many_epochs_fewer_as_its_method_looks_oftener() -> None:
    found = made("ips", "lsskd", "kd")
    costs = found.image_costs()
    assert costs == {"ce": 1, "ips": 2, "lsskd": 4 + 4 / 3, "kd": 1, "ce+cutmix": 1, "ce+mixup": 1}
    settings = {entry.name: entry.experiment for entry in found.equalised(costs).entries}
    # 27 epochs and a first rung after 3, by 2 and by 16/3; a half is rounded to the even number.
    lengths = {name: (made.training.epochs, made.search.grace_period) for name, made in settings.items()}
    assert (lengths["ce"], lengths["ips"], lengths["lsskd"]) == ((27, 3), (14, 2), (5, 1))
    assert settings["kd"].teacher is not None
    assert settings["kd"].teacher.epochs == 27
    halved = {entry.name: entry.experiment for entry in found.equalised(dict.fromkeys(costs, 2.0)).entries}
    assert halved["kd"].training.epochs == 14
    assert halved["kd"].teacher is not None
    assert halved["kd"].teacher.epochs == 27  # a student that costs more has no worse teacher


def test_every_state_of_the_labels_has_all_entries() -> None:
    found = made("ips", label_fractions=(0.25, 1.0), label_noises=(0.0, 0.4), controls=False)
    assert [entry.run for entry in found.entries] == [
        f"labels{fraction}-noise{noise}-{name}"
        for fraction in ("0.25", "1")
        for noise in ("0", "0.4")
        for name in ("ce", "ips")
    ]
    assert [entry.labels for entry in found.entries[::2]] == [(0.25, 0.0), (0.25, 0.4), (1.0, 0.0), (1.0, 0.4)]


def test_other_tasks_are_compared_with_training_on_their_own_loss() -> None:
    segmentation = {"task": "segmentation", "data.name": "scenes", "student.name": "unet", "student.arguments": {}}
    found = compare(["ips"], lambda method, given: load(method, {**segmentation, **given}), unit="images", amount=1000)
    assert [entry.name for entry in found.entries] == ["supervised", "ips"]
    assert found.reference == "supervised"


def test_a_comparison_is_read_back_from_its_file(tmp_path: Path) -> None:
    found = made("ips+cutout=2", label_noises=(0.0, 0.4), name="mine", seeds=3, top=2)
    path = tmp_path / "compare.yaml"
    path.write_text(found.to_yaml())
    again = Comparison.load(path, "mine")
    assert again == found
    assert read_yaml(path) == {"seeds": 3, **found.document()}


def test_code_in_the_file_of_a_comparison_is_refused_unless_allowed(tmp_path: Path) -> None:
    path = tmp_path / "compare.yaml"
    content = yaml.safe_load(made("ips", controls=False).to_yaml())
    content["entries"][1]["experiment"]["method"] = "os:system"
    path.write_text(yaml.safe_dump(content))
    with pytest.raises(UserError, match=r"names code that would be run: method = 'os:system'"):
        Comparison.load(path, "mine")
    path.write_text("seeds: 3\n")
    with pytest.raises(UserError, match="is no whole comparison: 'unit'"):
        Comparison.load(path, "mine")


@pytest.mark.parametrize(
    ("names", "more", "sentence"),
    [
        ((), {}, "name at least one method"),
        (("isp",), {}, "unknown method 'isp'; did you mean 'ips'"),
        (("ips+cutmixx",), {}, r"methods = 'ips\+cutmixx': write METHOD\+cutmix\|\+mixup or METHOD\+NAME=VALUE"),
        (("ips+cutmix=2",), {}, r"ips\+cutmix=2: space.cutmix = 2: must be at most 1"),
        (("ips+nothing=2",), {}, r"ips\+nothing=2: unknown hyperparameter of method 'ips' 'nothing'"),
        (("ips+alpha=[",), {}, r"methods = 'ips\+alpha=\[': '\[' is not YAML"),
        (("ips+alpha=1", "ips+alpha=1.0", "ips+alpha-1=1"), {}, "unknown hyperparameter"),
        (("ips", "sr_kd"), {}, "methods = 'sr_kd': is for task 'super_resolution', ips for 'classification'"),
        (("ips",), {"seeds": 1}, "--seeds = 1: must be at least 2"),
        (("ips",), {"top": 0}, "--top = 0: must be at least 1"),
        (("ips",), {"name": "a/b"}, "--name = 'a/b': must be up to 100 letters"),
        (("ips",), {"label_fractions": (0.0,)}, r"data.label_fraction = 0.0: must be above 0"),
    ],
)
def test_mistakes_are_sentences(names: tuple[str, ...], more: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        made(*names, **more)


def test_two_entries_that_would_share_a_folder_are_refused() -> None:
    with pytest.raises(InvalidSetting, match="methods = 'ips-alpha-1': stands twice"):
        made("ips+alpha=1", "ips+alpha= 1")


@pytest.mark.parametrize(
    ("text", "budget"),
    [
        ("2000000img", ("images", 2e6)),
        ("5 images", ("images", 5)),
        ("1m", ("seconds", 60)),
        ("1h", ("seconds", 3600)),
    ],
)
def test_a_budget_is_images_or_seconds(text: str, budget: tuple[str, float]) -> None:
    assert budget_of(text) == budget


@pytest.mark.parametrize("text", ["64trials", "2gpuh", "600s,1000img", "27epochs", "1.5img"])
def test_what_is_no_equal_budget_is_refused(text: str) -> None:
    with pytest.raises(InvalidSetting, match="--budget"):
        budget_of(text)


def test_lists_of_shares() -> None:
    assert shares("--label-noise", None) == ()
    assert shares("--label-noise", "0,0.4, 0.8,0.4") == (0.0, 0.4, 0.8)
    with pytest.raises(InvalidSetting, match="--label-noise = '0;4': give numbers with commas"):
        shares("--label-noise", "0;4")
