"""Every mistake in an experiment is one sentence that names the key, the value and the mend."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from kdsearch.errors import UnknownName, UserError
from kdsearch.experiment import Experiment, find_space

LONG = "9" * 5000


def complaint(overrides: dict[str, Any], space: str = "kd") -> str:
    """What is said to a shipped experiment with these overrides."""
    with pytest.raises(UserError) as error:
        Experiment.load(space, overrides)
    assert error.value.exit_code == 2
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize(
    ("key", "value", "sentence"),
    [
        # Names
        (
            "method",
            "lskd",
            "unknown method 'lskd'; did you mean 'lsskd'? (valid: ce, edge_kd, ips, kd, lsskd, sr_kd, supervised)",
        ),
        ("method", 3, "method = 3: must be text; put it in quotes"),
        ("method", None, "method is missing; there is no default for method"),
        ("task", "clasification", "unknown task 'clasification'; did you mean 'classification'?"),
        ("serach", {}, "unknown key in the experiment 'serach'; did you mean 'search'? (valid: augmentation, data,"),
        ("data.label_nois", 0.1, "unknown key in data 'label_nois'; did you mean 'label_noise'? (valid: blur"),
        ("space.temprature", 4, "unknown hyperparameter of method 'kd' 'temprature'; did you mean 'temperature'?"),
        ("space.temperature.hihg", 4, "unknown key in space.temperature 'hihg'; did you mean 'high'? (valid: high,"),
        (
            "search.phases",
            [{"trails": 3, "search": ["alpha"]}],
            "unknown key in search.phases.0 'trails'; did you mean 'trials'? (valid: search, trials)",
        ),
        ("temperature", 4, "unknown key in the experiment 'temperature' (did you mean space.temperature?)"),
        ("a\tb", 4, r"unknown key in the experiment 'a\tb' (valid: augmentation, data"),
        ("training.trials", 3, "unknown key in training 'trials' (did you mean search.trials?)"),
        ("epochs", 3, "unknown key in the experiment 'epochs' (did you mean teacher.epochs or training.epochs?)"),
        ("space.epochs", {"low": 3, "high": 9}, "space.epochs: it is the same for all trials; set training.epochs"),
        # Types
        ("training.epochs", "x", "training.epochs = 'x': must be a whole number"),
        ("training.epochs", 1.5, "training.epochs = 1.5: must be a whole number"),
        ("training.epochs", True, "training.epochs = True: must be a number"),
        ("training.epochs", [3], "training.epochs = [3]: must be a whole number"),
        ("training.learning_rate", "high", "training.learning_rate = 'high': must be a number"),
        ("training.nesterov", "maybe", "training.nesterov = 'maybe': must be true or false"),
        ("training.milestones", 0.5, "training.milestones = 0.5: must be a list"),
        ("training.milestones", [0.5, 2], "training.milestones.1 = 2: must be at most 1"),
        ("training", 3, "training = 3: must be a section of names and values"),
        ("student", 5, "student = 5: must be a name, or a section with a name"),
        ("student.name", 5, "student.name = 5: must be text; put it in quotes"),
        ("student.arguments", {"a\n": None}, r"'student.arguments.a\n' = None: must be one value"),
        ("student.arguments", 5, "student.arguments = 5: must map names to values"),
        (
            "student.arguments",
            {"a": [1]},
            "student.arguments.a = [1]: must be one value: a number, a text, true or false",
        ),
        ("data.name.x", 1, "data.name.x = 1: data.name is 'digits', which has no parts"),
        ("data", {1: 2}, "data.1 = 1: a name must be text; put it in quotes"),
        # Values
        ("training.epochs", 0, "training.epochs = 0: must be at least 1"),
        ("training.learning_rate", 0, "training.learning_rate = 0: must be above 0"),
        ("training.learning_rate", float("nan"), "training.learning_rate = nan: must be a finite number"),
        ("training.momentum", 1, "training.momentum = 1: must be below 1"),
        (
            "training.optimizer",
            "Adam",
            "training.optimizer = 'Adam': must be 'sgd', 'adam' or 'adamw'; did you mean 'adam'?",
        ),
        ("training.optimizer", "lion", "training.optimizer = 'lion': must be 'sgd', 'adam' or 'adamw'"),
        (
            "search.sampler",
            "tpee",
            "search.sampler = 'tpee': must be 'tpe', 'random', 'grid', 'gp', 'cmaes' or 'qmc'; did you mean 'tpe'?",
        ),
        ("search.trials", 10**30, f"search.trials = {10**30}: is too large"),
        ("search.trials", LONG, "search.trials = '99999999999999999999999999999999999"),
        (
            "search.grace_period",
            28,
            "cannot exceed the full budget of 27 epochs (training.epochs); lower it, or raise the budget",
        ),
        ("training.epochs", 2, "search.grace_period = 3: cannot exceed the full budget of 2 epochs (training.epochs)"),
        ("data.label_noise", 1, "data.label_noise = 1: must be below 1"),
        ("data.label_noise", -0.1, "data.label_noise = -0.1: must be at least 0"),
        ("data.label_fraction", 0, "data.label_fraction = 0: must be above 0"),
        ("resources.gpus_per_trial", 1.5, "resources: gpus_per_trial = 1.5: above 1 it must be a whole number"),
        ("seed", -1, "seed = -1: must be at least 0"),
        ("data.seed", 2**32, "data.seed = 4294967296: must be below 4294967296"),
        ("data.root", "a\0b", r"data.root = 'a\x00b': must be text that a file can hold"),
        ("data.root", "\udcff", r"data.root = '\udcff': must be text that a file can hold"),
        (
            "name",
            "../x",
            "name = '../x': must be up to 100 letters, digits, '.', '_' and '-', the first no '.' or '-'; no path",
        ),
        ("name", "runs/x", "name = 'runs/x': must be up to"),
        ("name", "", "name = '': must be up to"),
        ("name", "..", "name = '..': must be up to"),
        ("name", "-x", "name = '-x': must be up to"),
        ("name", "x\n", r"name = 'x\n': must be up to"),
        ("name", "x" * 101, "name = 'xxxxxxx"),
        ("name", 12, "name = 12: must be text; put it in quotes"),
        ("teacher", None, "teacher is missing: method 'kd' learns from one, such as teacher: resnet20"),
        # Space
        (
            "space",
            None,
            "space = None: must map hyperparameters to ranges, choices or constants; left out, it is the method's own",
        ),
        ("space", [1], "space = [1]: must map hyperparameters"),
        ("space", {True: 1}, "space = {True: 1}: each name in it must be text; put it in quotes"),
        ("space.temperature", None, "space.temperature = None: must be a range (low, high), choices or one value"),
        ("space.temperature", [1, 2], "space.temperature = [1, 2]: must be a range (low, high), choices or one value"),
        ("space.temperature", "hot", "space.temperature = 'hot': must be a number"),
        ("space.temperature", True, "space.temperature = True: must be a number"),
        ("space.temperature", float("inf"), "space.temperature = inf: must be a finite number"),
        ("space.temperature", 200, "space.temperature = 200: must be at most 100"),
        ("space.temperature.high", 200, "space.temperature.high = 200.0: must be at most 100"),
        ("space.temperature.high", 1, "space.temperature: low = 1 must be below high = 1"),
        ("space.temperature.high", 0.5, "space.temperature: low = 1 must be below high = 0.5"),
        (
            "space.temperature.low",
            0,
            "space.temperature: a log range cannot touch 0 (low = 0); use or_zero: true to let the term be off",
        ),
        ("space.temperature.or_zero", True, "space.temperature.or_zero = 0.0: must be above 0"),
        ("space.temperature.step", 1, "space.temperature: a log range takes no step"),
        ("space.alpha.step", 5, "space.alpha: step = 5 is wider than the range 0.1 to 0.99"),
        ("space.temperature", {"low": 1}, "space.temperature.high is missing; there is no default for low and high"),
        ("space.temperature", {"low": True, "high": 2}, "space.temperature.low = True: must be a number"),
        ("space.temperature", {"choices": [1]}, "space.temperature.choices = [1]: must list at least 2"),
        ("space.temperature", {"choices": 3}, "space.temperature.choices = 3: must be a list"),
        ("space.temperature", {"choices": [1, 1.0]}, "space.temperature: the choice 1.0 stands twice"),
        ("space.temperature", {"choices": [1, 0]}, "space.temperature = 0: must be above 0"),
        (
            "space.temperature",
            {"choices": [1, None]},
            "space.temperature.choices.1 = None: must be one value: a number, a text, true or false",
        ),
        (
            "space.temperature",
            {"choices": [1, 2], "low": 1},
            "choices stand alone; what else is here belongs to a range",
        ),
        ("space.batch_size", {"low": 16.5, "high": 64}, "space.batch_size.low = 16.5: must be a whole number"),
        ("space.batch_size", {"low": 16, "high": 64.5}, "space.batch_size.high = 64.5: must be a whole number"),
        (
            "space.batch_size",
            {"low": 16, "high": 64, "step": 0.5},
            "space.batch_size.step = 0.5: must be a whole number",
        ),
        ("space.batch_size", {"low": 0, "high": 64}, "space.batch_size.low = 0: must be at least 2"),
        ("space.batch_size", 16.5, "space.batch_size = 16.5: must be a whole number"),
        (
            "space.optimizer",
            {"low": 0, "high": 1},
            "space.optimizer is no number: list its choices in place of a range",
        ),
        ("space.nesterov", {"low": 0, "high": 1}, "space.nesterov is no number: list its choices in place of a range"),
        (
            "space.optimizer",
            {"choices": ["sgd", "adm"]},
            "space.optimizer = 'adm': must be 'sgd', 'adam' or 'adamw'; did you mean 'adam'?",
        ),
        ("space.temperature", {"choices": [1, {"a": 2}]}, "space.temperature.choices.1 = {'a': 2}: must be one value"),
        # Search
        (
            "search.phases",
            [{"trials": 3}],
            "search.phases.0.search is missing; there is no default for trials and search",
        ),
        ("search.phases", [{"trials": 3, "search": []}], "search.phases.0.search = []: must list at least 1"),
        ("search.phases", [{"trials": 0, "search": ["alpha"]}], "search.phases.0.trials = 0: must be at least 1"),
        (
            "search.phases",
            [{"trials": 3, "search": ["alfa"]}],
            "unknown searched hyperparameter in search.phases.0 'alfa'; did you mean 'alpha'?",
        ),
        ("search.phases", {"trials": 3}, "search.phases = {'trials': 3}: must be a list"),
        (
            "search.sampler",
            "grid",
            "space.temperature: a grid needs finite points; give the range a step, or list choices",
        ),
    ],
)
def test_a_mistake_is_said_in_one_sentence(key: str, value: Any, sentence: str) -> None:
    assert sentence in complaint({key: value})


def test_no_sentence_is_longer_than_a_person_reads() -> None:
    assert len(complaint({"search.trials": LONG})) < 150
    assert len(complaint({"name": "x" * 100_000})) < 250
    assert len(complaint({"y" * 100_000: 1})) < 500
    assert len(complaint({"space." + "y" * 100_000: 1})) < 600
    assert len(complaint({"student": [0] * 100_000})) < 150
    assert complaint({"search.trials": 1 << 40_000}) == "search.trials = a number of thousands of digits: is too large"


def test_a_method_that_needs_no_teacher_takes_none() -> None:
    assert (
        complaint({"teacher": "resnet20"}, "ips") == "teacher = 'resnet20': method 'ips' has no teacher; leave it out"
    )


DENSE = """
from kdsearch.methods.kd import KD

class Dense(KD):
    name, tasks = "dense", ("segmentation", "detection")
"""


def test_a_method_is_for_its_tasks(tmp_path: Path) -> None:
    (tmp_path / "dense.py").write_text(DENSE)
    name = f"{tmp_path / 'dense.py'}:Dense"
    with pytest.raises(UserError, match=r"task = 'classification': method '.*:Dense' is for segmentation, detection$"):
        Experiment(method=name, task="classification", teacher="resnet20")
    assert Experiment(method=name, teacher="unet").task == "segmentation"
    assert Experiment(method=name, teacher="unet").data.name == "scenes"


def test_a_phase_searches_what_is_searched() -> None:
    phases = [{"trials": 3, "search": ["temperature", "alpha"]}]
    expected = "search.phases.0 = 'alpha': is a constant; give it a range in space"
    assert complaint({"search.phases": phases, "space.alpha": 0.5}) == expected


MIXED = "cutmix + mixup = 0.7 + 0.6 must not exceed 1, since a sample is mixed in one way"


@pytest.mark.parametrize(
    ("overrides", "start"),
    [
        ({"augmentation.cutmix": 0.7, "augmentation.mixup": 0.6}, "augmentation: "),
        ({"space.cutmix": 0.7, "space.mixup": 0.6}, "augmentation: "),
        ({"space.cutmix": 0.7, "augmentation.mixup": 0.6}, "augmentation: "),
        ({"space.cutmix": {"low": 0, "high": 0.7}, "space.mixup": {"low": 0.1, "high": 0.6}}, "the highest values of"),
        ({"space.cutmix": {"low": 0, "high": 0.7}, "augmentation.mixup": 0.6}, "the highest values of"),
        ({"space.cutmix": {"choices": [0.7, 0]}, "space.mixup": {"choices": [0.6, 0.1]}}, "the highest values of"),
    ],
)
def test_a_space_with_settings_that_cannot_be_trained_is_refused(overrides: dict[str, Any], start: str) -> None:
    sentence = complaint(overrides)
    assert sentence.startswith(start)
    assert sentence.endswith(MIXED)


def test_mixing_that_reaches_1_is_legal() -> None:
    mixes = {"space.cutmix": {"low": 0, "high": 0.7}, "space.mixup": {"choices": [0, 0.3]}}
    assert Experiment.load("kd", mixes).dimensions.keys() >= {"cutmix", "mixup"}


def test_a_grid_has_points_and_not_too_many() -> None:
    points = {
        "alpha": {"low": 0.1, "high": 0.9, "step": 0.1},
        "temperature": {"choices": [2, 4]},
        "batch_size": {"low": 16, "high": 64},
    }
    grid = {"method": "kd", "teacher": "resnet20", "search": {"sampler": "grid"}}
    assert Experiment(**grid, space=points).dimensions.keys() == points.keys()
    with pytest.raises(
        UserError, match=r"^search\.sampler = 'grid': the space has more than 100000 points; give wider"
    ):
        Experiment(**grid, space=points | {"patience": {"low": 0, "high": 10**9}})


def test_the_grace_period_of_no_scheduler_does_not_matter() -> None:
    assert Experiment.load("kd", {"training.epochs": 1, "search.scheduler": "none"}).training.epochs == 1


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        (
            "kdd",
            r"^unknown method 'kdd'; did you mean 'kd'\? "
            r"\(valid: auto, ce, edge_kd, ips, kd, lsskd, sr_kd, supervised\) or the path of a space in YAML$",
        ),
        ("", r"^unknown method ''"),
        ("nosuch.yaml", r"^'nosuch\.yaml' is no file; give a method's name or the path of a space in YAML$"),
        ("no/such", r"^'no/such' is no file; give"),
        ("x" * 5000 + ".yaml", r"is no file; give"),
        ("a\0b.yaml", r"is no file; give"),
        ("nosuch.py:Own", r"nosuch\.py"),
        ("nosuch:Own", r"nosuch"),
    ],
)
def test_a_space_that_is_not_there_is_said_in_one_sentence(name: str, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence) as error:
        Experiment.load(name)
    assert "\n" not in str(error.value)


def test_a_shipped_space_is_found_by_name() -> None:
    assert find_space("kd").name == "kd.yaml"
    with pytest.raises(UnknownName):
        find_space("base")


def test_a_space_at_a_path_that_is_a_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=re.escape(f"{str(tmp_path)!r} is no file")):
        Experiment.load(str(tmp_path))


def test_mistakes_of_python_calls_are_the_same_sentences() -> None:
    with pytest.raises(UserError, match=r"^training\.epochs = 0: must be at least 1$"):
        Experiment(method="ce", training={"epochs": 0})
    with pytest.raises(UserError, match=r"^unknown key in the experiment 'self' \(valid:"):
        Experiment(method="ce", self=1)
    with pytest.raises(UserError, match=r"^unknown key in the experiment 'metod'; did you mean 'method'\?"):
        Experiment(metod="ce")
    with pytest.raises(UserError, match=r"^method is missing"):
        Experiment(data="digits")
