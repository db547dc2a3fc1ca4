"""The Experiment: read, overridden, frozen, written and read back; what trial 0, trial 1 and any other trial are."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from kdsearch import methods
from kdsearch.errors import InvalidSetting, UnknownName, UserError
from kdsearch.experiment import Experiment, find_space, read_settings
from kdsearch.search_settings import Phase, ResourceSettings, SearchSettings
from kdsearch.settings import (
    AugmentationSettings,
    Choices,
    DataSettings,
    NetworkSettings,
    Range,
    TeacherSettings,
    TrainingSettings,
)

FOLDER = Path(__file__).parents[2] / "search_spaces"
# That of several methods is tested in tests/tuning/test_search_auto.py.
SHIPPED = sorted({path.stem for path in FOLDER.glob("*.yaml")} - {"auto"})


def read_back(experiment: Experiment, folder: Path) -> Experiment:
    (folder / "experiment.yaml").write_text(experiment.to_yaml(), encoding="utf-8")
    return Experiment.load(str(folder / "experiment.yaml"), allow_code=True)


def assert_same(experiment: Experiment, again: Experiment) -> None:
    assert again == experiment
    assert again.to_yaml() == experiment.to_yaml()
    assert (again.paper(), again.control()) == (experiment.paper(), experiment.control())
    assert again.resolve(again.paper()) == experiment.resolve(experiment.paper())


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_experiment_is_read_back_as_it_was_written(name: str, tmp_path: Path) -> None:
    experiment = Experiment.load(name)
    assert_same(experiment, read_back(experiment, tmp_path))
    assert Experiment.load(str(find_space(name))) == experiment
    assert set(experiment.space) == set(yaml.safe_load((FOLDER / f"{name}.yaml").read_text())["space"])


@pytest.mark.parametrize("name", SHIPPED)
def test_a_method_alone_brings_the_space_that_ships_with_it(name: str) -> None:
    teacher = {"teacher": "resnet20"} if methods.find(name).needs_teacher else {}
    assert Experiment(method=name, **teacher).space == Experiment.load(name).space


def ranges(low: float, high: float, whole: bool = False) -> st.SearchStrategy[dict[str, Any]]:
    """Legal ranges with their ends in [low, high], with or without log, step and or_zero."""
    number = st.integers(int(low), int(high)) if whole else st.floats(low, high)
    ends = st.lists(number, min_size=2, max_size=2, unique=True).map(sorted)
    kinds: st.SearchStrategy[Any] = st.sampled_from(["plain", "log"] if low > 0 else ["plain"])

    def entry(drawn: tuple[list[float], str, bool]) -> dict[str, Any]:
        (start, end), kind, stepped = drawn
        step = {"step": 1 if whole else (end - start) / 3} if stepped and kind == "plain" and end - start > 1e-3 else {}
        return {"low": start, "high": end, **({"log": True} if kind == "log" else {}), **step}

    return st.tuples(ends, kinds, st.booleans()).map(entry)


ENTRIES = {
    "learning_rate": ranges(1e-5, 1) | st.floats(1e-5, 1),
    "weight_decay": ranges(0, 0.1),
    "batch_size": ranges(2, 512, whole=True) | st.just({"choices": [16, 32, 64]}),
    "optimizer": st.just({"choices": ["sgd", "adamw"]}) | st.sampled_from(["sgd", "adam"]),
    "nesterov": st.booleans() | st.just({"choices": [True, False]}),
    "mixup": ranges(0, 0.5) | st.floats(0, 0.5),
    "crop": ranges(0, 8, whole=True) | st.integers(0, 8),
}
OF_METHOD = {
    "kd": {"temperature": ranges(1, 100), "alpha": ranges(0.01, 1) | st.just(0)},
    "ips": {"gamma": ranges(0.01, 100), "patches_per_side": ranges(2, 64, whole=True), "detach": st.booleans()},
    "lsskd": {"heads": st.just({"choices": ["all", "1,3", 2]}) | st.just("last"), "beta": ranges(0, 1)},
    "ce": {"label_smoothing": ranges(0, 0.9)},
}
TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20)


@st.composite
def experiments(draw: st.DrawFn) -> dict[str, Any]:
    """The sections of a legal experiment, a random part of them left out."""
    method = draw(st.sampled_from(sorted(OF_METHOD)))
    epochs = draw(st.integers(1, 300))
    space = draw(st.fixed_dictionaries({}, optional=ENTRIES | OF_METHOD[method]))
    searched = [name for name, entry in space.items() if isinstance(entry, dict)]
    phases = [{"trials": draw(st.integers(1, 9)), "search": searched}] if searched and draw(st.booleans()) else []
    arguments = st.dictionaries(TEXT, st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(-1e9, 1e9) | TEXT)
    optional: dict[Any, st.SearchStrategy[Any]] = {
        "name": st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,20}", fullmatch=True),
        "seed": st.integers(0, 2**32 - 1),
        "data": TEXT
        | st.fixed_dictionaries({"name": TEXT, "label_noise": st.floats(0, 0.99)}, optional={"root": st.none() | TEXT}),
        "student": TEXT | st.fixed_dictionaries({"arguments": arguments, "stem": st.sampled_from(["auto", "small"])}),
        "augmentation": st.fixed_dictionaries(
            {"cutmix": st.floats(0, 0.5)}, optional={"flip": st.none() | st.booleans()}
        ),
        "resources": st.fixed_dictionaries({"gpus_per_trial": st.none() | st.floats(0, 1) | st.integers(1, 8)}),
    }
    sections = draw(st.fixed_dictionaries({"method": st.just(method), "space": st.just(space)}, optional=optional))
    sections["training"] = {"epochs": epochs, "gradient_clip": draw(st.none() | st.floats(0.1, 10))}
    sections["search"] = {"grace_period": draw(st.integers(1, epochs)), "phases": phases}
    return sections | ({"teacher": draw(TEXT)} if method == "kd" else {})


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(sections=experiments())
# A next-line character, which YAML knows as the end of a line: found by the search for examples itself.
@example(sections={"method": "kd", "space": {}, "teacher": "\x85"})
def test_any_experiment_is_read_back_as_it_was_written(sections: dict[str, Any], tmp_path: Path) -> None:
    experiment = Experiment(**sections)
    assert_same(experiment, read_back(experiment, tmp_path))
    assert_same(experiment, pickle.loads(pickle.dumps(experiment)))
    assert_same(experiment, experiment.revalidated())


def test_sections_are_objects_or_mappings_or_names() -> None:
    as_objects = Experiment(
        method="kd",
        data=DataSettings(name="shapes"),
        student=NetworkSettings(name="resnet14"),
        teacher=TeacherSettings(name="resnet20"),
        space={"temperature": Range(low=1, high=8), "alpha": Choices(choices=(0.5, 0.9)), "optimizer": "sgd"},
        training=TrainingSettings(epochs=9),
        augmentation=AugmentationSettings(cutmix=0.5),
        search=SearchSettings(phases=(Phase(trials=3, search=("alpha",)),)),
        resources=ResourceSettings(cpus_per_trial=2),
    )
    as_mappings = Experiment(
        method="kd",
        data={"name": "shapes"},
        student={"name": "resnet14"},
        teacher={"name": "resnet20"},
        space={"temperature": {"low": 1, "high": 8}, "alpha": {"choices": [0.5, 0.9]}, "optimizer": "sgd"},
        training={"epochs": 9},
        augmentation={"cutmix": 0.5},
        search={"phases": [{"trials": 3, "search": ["alpha"]}]},
        resources={"cpus_per_trial": 2},
    )
    as_names = as_mappings.model_dump() | {"data": "shapes", "student": "resnet14", "teacher": "resnet20"}
    assert as_objects == as_mappings == Experiment(**as_names)
    assert as_objects.training.learning_rate == 0.1  # the paper's, left out of both


def test_an_empty_section_is_one_that_was_left_out(tmp_path: Path) -> None:
    (tmp_path / "e.yaml").write_text("method: ce\nspace: {}\ntraining:\nsearch:\nname:\nseed:\ndata:\n")
    assert Experiment.load(str(tmp_path / "e.yaml")) == Experiment(method="ce", space={})


@pytest.mark.parametrize(
    ("overrides", "where", "expected"),
    [
        ({"search.trials": 8}, ("search", "trials"), 8),
        ({"space.temperature.high": 12}, ("space", "temperature"), Range(low=1, high=12, log=True)),
        ({"space.temperature": {"choices": [2, 4]}}, ("space", "temperature"), Choices(choices=(2.0, 4.0))),
        ({"space.temperature": 4}, ("space", "temperature"), 4.0),
        ({"space.heads": "middle"}, ("space", "heads"), "middle"),
        ({"space.heads": 2}, ("space", "heads"), "2"),
        ({"space.head_kind": "deep"}, ("space", "head_kind"), "deep"),
        ({"space.optimizer.choices": ["sgd", "adam"]}, ("space", "optimizer"), Choices(choices=("sgd", "adam"))),
        ({"space.learning_rate": "1e-3"}, ("space", "learning_rate"), 0.001),
        ({"student.stem": "small"}, ("student",), NetworkSettings(name="resnet8", stem="small")),
        ({"student": "resnet14"}, ("student",), NetworkSettings(name="resnet14")),
        ({"student.arguments.width": 2}, ("student", "arguments"), {"width": 2}),
        ({"data.label_noise": 0.2}, ("data",), DataSettings(name="digits", label_noise=0.2)),
        ({"augmentation.cutmix": 0.5}, ("augmentation", "cutmix"), 0.5),
        (
            {"search.phases": [{"trials": 3, "search": ["beta"]}]},
            ("search", "phases"),
            (Phase(trials=3, search=("beta",)),),
        ),
        ({"training.gradient_clip": 1, "training.epochs": 9}, ("training", "gradient_clip"), 1.0),
        ({"training.milestones": [0.5, 1]}, ("training", "milestones"), (0.5, 1.0)),
    ],
)
def test_dotted_keys_override_the_file(overrides: dict[str, Any], where: tuple[str, ...], expected: Any) -> None:
    found: Any = Experiment.load("lsskd", overrides)
    for part in where:
        found = found[part] if isinstance(found, dict) else getattr(found, part)
    assert found == expected
    assert type(found) is type(expected) or isinstance(expected, dict)


def test_an_override_leaves_the_rest_alone() -> None:
    before, after = Experiment.load("kd"), Experiment.load("kd", {"space.alpha.low": 0.5, "teacher.epochs": 4})
    assert after.teacher == TeacherSettings(name="resnet20", epochs=4)
    assert after.space["alpha"] == Range(low=0.5, high=0.99)
    assert after.model_copy(update={"teacher": before.teacher, "space": before.space}) == before


def test_values_of_a_space_have_their_hyperparameters_own_type() -> None:
    space = {
        "alpha": 1,
        "optimizer": "sgd",
        "batch_size": "64",
        "nesterov": "no",
        "learning_rate": {"choices": ["1e-3", 1]},
    }
    experiment = Experiment.load("kd", {"space": space})
    found = [*experiment.constants.values(), *experiment.space["learning_rate"].choices]  # type: ignore[union-attr]
    assert [(value, type(value)) for value in found] == [
        (1.0, float), ("sgd", str), (64, int), (False, bool), (0.001, float), (1.0, float)
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ((), "seed"),
        (("training",), "epochs"),
        (("space", "alpha"), "low"),
        (("search",), "phases"),
        (("teacher",), "name"),
    ],
)
def test_no_section_changes(path: tuple[str, ...], name: str) -> None:
    experiment = Experiment.load("kd")
    part: Any = experiment
    for key in path:
        part = part[key] if isinstance(part, dict) else getattr(part, key)
    with pytest.raises(ValidationError, match="frozen"):
        setattr(part, name, getattr(part, name))


@pytest.mark.parametrize(
    ("change", "arguments"),
    [
        ("__setitem__", ("alpha", 1)),
        ("__delitem__", ("alpha",)),
        ("__ior__", ({"alpha": 1},)),
        ("update", ({"alpha": 1},)),
        ("setdefault", ("beta", 1)),
        ("pop", ("alpha",)),
        ("popitem", ()),
        ("clear", ()),
    ],
)
def test_no_mapping_changes(change: str, arguments: tuple[Any, ...]) -> None:
    experiment = Experiment.load("kd", {"student.arguments": {"alpha": 2}})
    before = experiment.to_yaml()
    for same in (experiment, copy.copy(experiment), copy.deepcopy(experiment), pickle.loads(pickle.dumps(experiment))):
        for mapping in (same.space, same.student.arguments):
            with pytest.raises(TypeError, match="frozen"):
                getattr(mapping, change)(*arguments)
        assert same.to_yaml() == before


def test_what_is_handed_in_stays_the_callers() -> None:
    space = {"alpha": {"low": 0.1, "high": 0.9}}
    experiment = Experiment(method="kd", teacher="resnet20", space=space)
    space["alpha"]["low"] = 0.5
    space["temperature"] = {"low": 1, "high": 2}
    assert experiment.space == {"alpha": Range(low=0.1, high=0.9)}


def test_trial_0_is_the_papers_setting() -> None:
    training = {"optimizer": "sgd", "learning_rate": 0.1, "momentum": 0.9, "weight_decay": 5e-4}
    assert Experiment.load("kd").paper() == {"temperature": 4.0, "alpha": 0.9, "form": "pixel", **training}
    settings = Experiment.load("kd").resolve(Experiment.load("kd").paper())
    assert (settings.method.temperature, settings.method.alpha) == (4.0, 0.9)
    assert (settings.training.learning_rate, settings.training.epochs, settings.training.batch_size) == (0.1, 27, 64)


def test_what_the_space_holds_constant_stays_in_trial_0() -> None:
    experiment = Experiment.load("kd", {"space.temperature": 7, "space.learning_rate": 0.02})
    assert experiment.paper() == Experiment.load("kd").paper() | {"temperature": 7.0, "learning_rate": 0.02}


def test_the_experiments_own_training_goes_before_the_papers() -> None:
    assert Experiment.load("kd").training.learning_rate == 0.1
    experiment = Experiment.load("kd", {"training.learning_rate": 0.05, "training.batch_size": 32})
    assert experiment.paper()["learning_rate"] == 0.05
    assert experiment.resolve(experiment.paper()).training == TrainingSettings(learning_rate=0.05, batch_size=32)


@pytest.mark.parametrize("key", ["training.optimizer", "space.optimizer"])
def test_another_optimizer_does_not_get_the_papers_rates(key: str, tmp_path: Path) -> None:
    experiment = Experiment.load("kd", {key: "adamw", "training.weight_decay": 0.02})
    defaults = TrainingSettings()
    for again in (experiment, read_back(experiment, tmp_path), experiment.revalidated()):
        training = again.resolve(again.paper()).training
        assert (training.optimizer, training.weight_decay) == ("adamw", 0.02)
        assert (training.learning_rate, training.momentum) == (defaults.learning_rate, defaults.momentum) != (0.1, 0.9)


def test_a_searched_optimizer_starts_with_the_papers() -> None:
    experiment = Experiment.load("kd", {"space.optimizer": {"choices": ["adamw", "sgd"]}})
    assert experiment.paper()["optimizer"] == "sgd"
    assert experiment.paper()["learning_rate"] == 0.1


def test_searched_training_and_augmentation_have_the_experiments_value_in_trial_0() -> None:
    searched = {
        "space.batch_size": {"choices": [16, 32]},
        "space.gradient_clip": {"low": 1, "high": 5},
        "space.cutmix": {"low": 0.1, "high": 1},
        "space.crop": {"choices": [0, 4]},
    }
    paper = Experiment.load("kd", searched | {"training.batch_size": 32, "augmentation.cutmix": 0.5}).paper()
    assert (paper["batch_size"], paper["cutmix"]) == (32, 0.5)
    # None is no value of a trial: no clipping, and the crop that the data set recommends.
    assert not {"gradient_clip", "crop"} & set(paper)
    assert Experiment.load("kd", searched | {"augmentation.crop": 4}).paper()["crop"] == 4


CONTROLS = {
    "kd": {"alpha": 0.0},
    "ips": {"alpha": 0.0, "swap_probability": 0.0, "gamma": 1.0},
    "lsskd": {"alpha": 0.0, "beta": 0.0, "gamma": 0.0, "heads": "none", "task_views": "unrotated"},
    "ce": {"label_smoothing": 0.0},
    "edge_kd": {"alpha": 0.0},
    "sr_kd": {"feature_weight": 0.0, "perceptual_weight": 0.0, "output_weight": 0.0},
    "supervised": {},
}


@pytest.mark.parametrize("name", SHIPPED)
def test_trial_1_is_trial_0_without_the_method(name: str) -> None:
    experiment = Experiment.load(name)
    assert experiment.control() == experiment.paper() | CONTROLS[name]
    assert experiment.resolve(experiment.control()).training == experiment.resolve(experiment.paper()).training


def test_the_control_turns_constants_off_too() -> None:
    experiment = Experiment.load("kd", {"space.alpha": 0.5, "space.temperature": 2})
    assert (experiment.control()["alpha"], experiment.control()["temperature"]) == (0.0, 2.0)
    assert experiment.resolve(experiment.control()).method.alpha == 0


def test_of_a_method_that_is_off_the_control_is_trial_0() -> None:
    experiment = Experiment(method="ce", space={"label_smoothing": 0})
    assert experiment.control() == experiment.paper()


def test_a_setting_is_put_where_it_belongs() -> None:
    experiment = Experiment.load("kd", {"space.momentum": 0.8, "training.warmup": 0.1, "augmentation.crop": 2})
    settings = experiment.resolve({"alpha": "0.25", "batch_size": 16.0, "cutmix": 1, "learning_rate": 1})
    assert settings.method == methods.find("kd").Hyperparameters(alpha=0.25)
    assert settings.training == experiment.training.model_copy(
        update={"momentum": 0.8, "batch_size": 16, "learning_rate": 1.0}
    )
    assert settings.augmentation == AugmentationSettings(crop=2, cutmix=1)


def test_a_setting_that_does_not_fit_is_refused() -> None:
    experiment = Experiment.load("kd")
    with pytest.raises(UnknownName, match=r"unknown hyperparameter of method 'kd' 'temprature'; did you mean 'temp"):
        experiment.resolve({"temprature": 4})
    with pytest.raises(InvalidSetting, match=r"^alpha = 2: must be at most 1$"):
        experiment.resolve({"alpha": 2})
    with pytest.raises(UserError, match=r"^augmentation: cutmix \+ mixup = 0\.6 \+ 0\.6 must not exceed 1"):
        experiment.resolve({"cutmix": 0.6, "mixup": 0.6})


def test_fixed_hyperparameters_become_constants() -> None:
    experiment = Experiment.load("kd")
    best = {**experiment.paper(), "alpha": 0.5}
    fixed = experiment.fixed(best)
    assert fixed.constants == best == fixed.paper()
    assert fixed.dimensions == {}
    assert experiment.fixed({"alpha": 0.5}).dimensions.keys() == {"temperature", "learning_rate", "weight_decay"}
    with pytest.raises(UserError, match=r"^space\.alpha = 3: must be at most 1$"):
        experiment.fixed({"alpha": 3})


def test_hyperparameters_are_read_as_they_are_exported(tmp_path: Path) -> None:
    experiment = Experiment.load("lsskd")
    (tmp_path / "h.yaml").write_text(yaml.safe_dump(experiment.paper()))
    assert experiment.fixed(read_settings(tmp_path / "h.yaml")).paper() == experiment.paper()
    (tmp_path / "h.yaml").write_text("alpha: {low: 0, high: 1}")
    with pytest.raises(InvalidSetting, match=r"h\.yaml: alpha = \{'low': 0, 'high': 1\}: must be one value, no list"):
        read_settings(tmp_path / "h.yaml")


OWN = """
from kdsearch.methods.base import Hyperparameters, Method
from pydantic import Field

class Own(Method):
    name, title, citation, forwards = "own", "Own", "ours", 1.0
    paper_training = {PAPER}
    class Hyperparameters(Hyperparameters):
        strength: float = Field(0.5, ge=0, le=1, json_schema_extra={"weight": True})
        FIELD
    def losses(self, batch, progress):
        return {}
"""


def own_method(folder: Path, paper: str = "", field: str = "") -> str:
    (folder / "mine.py").write_text(OWN.replace("PAPER", paper).replace("FIELD", field))
    return f"{folder / 'mine.py'}:Own"


def test_a_method_of_ones_own_is_an_experiment_by_itself(tmp_path: Path) -> None:
    name = own_method(tmp_path, paper='"learning_rate": 0.3')
    experiment = Experiment.load(name, {"space.strength": {"low": 0, "high": 1}, "training.epochs": 9})
    assert set(experiment.dimensions) == {"learning_rate", "weight_decay", "strength"}
    assert experiment.paper() == {"strength": 0.5, "learning_rate": 0.3, "weight_decay": 5e-4}
    assert experiment.control()["strength"] == 0
    assert_same(experiment, read_back(experiment, tmp_path))


@pytest.mark.parametrize(
    ("paper", "field", "sentence"),
    [
        ("", "momentum: float = 0.9", "'momentum' of method 'own' has the name of a setting of the training section"),
        ("", "depth: int", "hyperparameter 'depth' of method 'own' needs a default: the paper's value"),
        ('"lr": 0.1', "", "unknown key in training 'lr'"),
        ('"learning_rate": 0', "", "training.learning_rate = 0: must be above 0"),
    ],
)
def test_a_method_that_breaks_the_rules_is_refused(paper: str, field: str, sentence: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=sentence):
        Experiment.load(own_method(tmp_path, paper, field))
