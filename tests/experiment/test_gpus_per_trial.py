"""`resources.gpus_per_trial`: a number or `auto`, from a file, a flag or Python; what else is said to be wrong."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from kdsearch.chain import Chain
from kdsearch.cli.options import load_experiment
from kdsearch.errors import UserError
from kdsearch.experiment import Experiment
from kdsearch.search_settings import ResourceSettings
from kdsearch.tuning.pool import shares

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("given", "kept", "gpus"),
    [("auto", "auto", 0.0), (None, None, 0.0), (0.25, 0.25, 0.25), ("0.5", 0.5, 0.5), (2, 2.0, 2.0), (0, 0.0, 0.0)],
)
def test_it_is_a_number_or_auto_and_survives_a_file(tmp_path: Path, given: Any, kept: Any, gpus: float) -> None:
    made = Experiment(method="ips", resources={"gpus_per_trial": given})
    (tmp_path / "space.yaml").write_text(made.to_yaml())
    read = Experiment.load(str(tmp_path / "space.yaml"))
    assert read == made
    assert read.resources.gpus_per_trial == kept
    assert read.resources.gpus == gpus  # of a share that is still to be found out there is no number yet


@pytest.mark.parametrize("flags", [{"resources.gpus_per_trial": "auto"}, {}])
def test_a_flag_and_set_say_auto_too(flags: dict[str, str]) -> None:
    assignments = None if flags else ["resources.gpus_per_trial=auto"]
    made = load_experiment("ips", flags, None, None, assignments, None)
    assert made.resources.gpus_per_trial == "auto"


def test_each_generation_of_a_chain_measures_for_itself() -> None:
    generations = [{"student": "resnet14"}, {"student": "resnet8"}]
    made = Chain(generations=generations, resources={"gpus_per_trial": "auto"})
    searched = [step.experiment for step in made.steps() if step.experiment is not None]
    assert len(searched) >= 2
    assert {experiment.resources.gpus_per_trial for experiment in searched} == {"auto"}


@pytest.mark.parametrize(
    ("value", "why"),
    [
        ("many", "'many': must be a number, or auto"),
        ([1], "[1]: must be a number, or auto"),
        (-0.5, "-0.5: must be a number of at least 0, or auto"),
        ("nan", "'nan': must be a number of at least 0, or auto"),
        (10**400, "is too large"),
        (True, "must be a number"),
        (1.5, "gpus_per_trial = 1.5: above 1 it must be a whole number"),
    ],
)
def test_what_is_neither_is_said_in_a_sentence(value: Any, why: str) -> None:
    with pytest.raises(UserError) as refused:
        Experiment(method="ips", resources={"gpus_per_trial": value})
    assert why in str(refused.value)
    assert "gpus_per_trial" in str(refused.value)
    assert len(str(refused.value).splitlines()) == 1


@pytest.mark.parametrize(("asked", "expected"), [("auto", True), (0.5, True), (1, False), (0, False), (None, False)])
def test_gpus_are_shared_below_one_and_perhaps_with_auto(asked: Any, expected: bool) -> None:
    assert shares(ResourceSettings(gpus_per_trial=asked)) is expected
