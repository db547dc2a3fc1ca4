"""chain.yaml: what it may say, what is made of it, and what is refused."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml

from kdsearch.chain import Chain, plain
from kdsearch.errors import UserError
from kdsearch.experiment import Experiment
from kdsearch.settings import NetworkSettings
from kdsearch.tuning.agenda import Agenda
from kdsearch.tuning.series import difference

CHAIN: dict[str, Any] = {
    "seed": 3,
    "data": {"name": "digits", "label_fraction": 0.5},
    "training": {"epochs": 9, "batch_size": 32},
    "search": {"trials": 6},
    "generations": [
        {"student": "resnet14", "training": {"epochs": 12}},
        {"student": "resnet8", "search": {"trials": 8}},
        {"student": {"name": "resnet8", "arguments": {"width": 0.5}}, "hyperparameters": {"temperature": 3}},
    ],
}


def changed(**sections: Any) -> dict[str, Any]:
    return {**copy.deepcopy(CHAIN), **sections}


def with_generation(place: int, **changes: Any) -> dict[str, Any]:
    chain = copy.deepcopy(CHAIN)
    chain["generations"][place] |= changes
    return chain


def write(folder: Path, content: dict[str, Any], name: str = "chain.yaml") -> Path:
    path = folder / name
    path.write_text(yaml.safe_dump(content))
    return path


def test_each_generation_learns_from_the_one_before_and_two_controls_follow() -> None:
    steps = Chain(**CHAIN).steps()
    assert [(step.name, step.kind, step.teacher) for step in steps] == [
        ("1-resnet14", "generation", None),
        ("2-resnet8", "generation", "1-resnet14"),
        ("3-resnet8", "generation", "2-resnet8"),
        ("scratch", "control", "2-resnet8"),
        ("direct", "control", "1-resnet14"),
    ]
    assert steps[1].heading == "generation 2 of 3: resnet8 learns from resnet14"
    experiments = [step.experiment for step in steps]
    assert [experiment.method for experiment in experiments if experiment] == ["ce", "kd", "kd", "kd", "kd"]
    assert [experiment.teacher and experiment.teacher.name for experiment in experiments if experiment] == [
        None, "resnet14", "resnet8", "resnet8", "resnet14",
    ]  # fmt: skip


def test_a_generation_is_what_kdsearch_search_would_run_but_for_what_the_chain_says() -> None:
    second = Chain(**CHAIN).steps()[1].experiment
    assert second is not None
    alone = Experiment.load(
        "kd",
        {
            "student": "resnet8",
            "teacher": "resnet14",
            "seed": 3,
            "name": "2-resnet8",
            "data.label_fraction": 0.5,
            "training.epochs": 9,
            "training.batch_size": 32,
            "search.trials": 8,
        },
    )
    assert second == alone


def test_what_a_generation_says_goes_before_what_the_chain_says() -> None:
    first, second, *_ = (step.experiment for step in Chain(**CHAIN).steps())
    assert first is not None
    assert second is not None
    assert (first.training.epochs, first.training.batch_size, first.search.trials) == (12, 32, 6)
    assert (second.training.epochs, second.training.batch_size, second.search.trials) == (9, 32, 8)


def test_the_controls_have_the_last_generations_space_trials_and_seed() -> None:
    *_, last, scratch, direct = (step.experiment for step in Chain(**CHAIN).steps())
    assert last is not None
    assert scratch is not None
    assert direct is not None
    assert direct.model_copy(update={"name": last.name, "teacher": last.teacher}) == last
    assert dict(scratch.space) == {**last.space, "alpha": 0.0}
    assert scratch.model_copy(update={"name": last.name, "space": last.space}) == last
    for control in (scratch, direct):
        assert (control.seed, control.search.trials, control.student) == (3, 6, last.student)


def test_no_trial_of_the_control_from_scratch_is_taught_whatever_the_generation_fixes() -> None:
    fixed = {"temperature": 3, "alpha": 0.7, "learning_rate": 0.02, "weight_decay": 0.001}
    *_, last, scratch, _ = Chain(**with_generation(2, hyperparameters=fixed)).steps()
    assert scratch.experiment is not None
    assert last.experiment is not None
    planned = Agenda(scratch.experiment, scratch.tries).planned
    assert [setting["alpha"] for _, setting in planned] == [0, 0]
    # The rates of the two settings that the generation is taught with: the paper's and the fixed one.
    taught = [setting for role, setting in Agenda(last.experiment, last.tries).planned if role != "control"]
    assert {setting["learning_rate"] for setting in taught} == {0.1, 0.02}
    assert {setting["learning_rate"] for _, setting in planned} == {0.1, 0.02}


def test_phases_of_the_control_from_scratch_lose_the_weights_that_it_holds_at_0() -> None:
    phases = [{"trials": 2, "search": ["alpha"]}, {"trials": 2, "search": ["alpha", "learning_rate"]}]
    *_, scratch, _ = Chain(**with_generation(2, search={"phases": phases})).steps()
    assert scratch.experiment is not None
    assert [phase.search for phase in scratch.experiment.search.phases] == [("learning_rate",)]


def test_of_two_generations_the_chain_is_the_direct_way_itself() -> None:
    steps = Chain(**changed(generations=CHAIN["generations"][:2])).steps()
    assert [step.name for step in steps] == ["1-resnet14", "2-resnet8", "scratch"]


def test_hyperparameters_may_be_a_file(tmp_path: Path) -> None:
    file = write(tmp_path, {"temperature": 3}, "best.yaml")
    assert Chain(**with_generation(2, hyperparameters=str(file))).resolved() == Chain(**CHAIN).resolved()


def test_the_first_generation_may_be_given(tmp_path: Path) -> None:
    chain = Chain(**changed(generations=[{"student": "resnet14", "weights": "w.pt"}, *CHAIN["generations"][1:]]))
    first, second, *_ = chain.steps()
    assert first.experiment is None
    assert first.student.weights == "w.pt"
    assert second.experiment is not None
    assert second.experiment.teacher is not None
    assert (second.experiment.teacher.name, second.experiment.teacher.weights) == ("resnet14", "w.pt")


def test_a_resolved_chain_reads_back_to_the_same_one(tmp_path: Path) -> None:
    chain = Chain.load(write(tmp_path, CHAIN))
    again = tmp_path / "again.yaml"
    again.write_text(chain.to_yaml())
    assert Chain.load(again).resolved() == chain.resolved()
    assert [step.experiment for step in Chain.load(again).steps()] == [step.experiment for step in chain.steps()]


def test_a_chain_is_named_by_the_command_line_its_file_or_the_files_name(tmp_path: Path) -> None:
    assert Chain.load(write(tmp_path, CHAIN, "small.yaml")).name == "small"
    assert Chain.load(write(tmp_path, changed(name="mine"))).name == "mine"
    assert Chain.load(write(tmp_path, changed(name="mine")), "other").name == "other"


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"seed": 4}, "seed"),
        ({"data": "digits"}, "data.label_fraction"),
        ({"search": {"trials": 7}}, "generations.0.search.trials"),
        (with_generation(1, student="resnet20"), "generations.1.student.name"),
        (with_generation(2, hyperparameters={"temperature": 4}), "generations.2.space.temperature"),
        ({"generations": CHAIN["generations"][:2]}, "generations"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_change_is_found_by_its_key(change: dict[str, Any], key: str) -> None:
    found = difference(Chain(**CHAIN).resolved(), Chain(**changed(**change)).resolved())
    assert found is not None
    assert found[0] == key
    assert difference(Chain(**CHAIN).resolved(), Chain(**CHAIN).resolved()) is None


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (changed(generatons=[]), "unknown key in the chain 'generatons'; did you mean 'generations'?"),
        (changed(generations=CHAIN["generations"][:1]), "a chain has at least 2 generations, and this one has 1"),
        (changed(generations=None), "generations is missing"),
        (changed(generations=["resnet14", "resnet8"]), "generations.0 = 'resnet14': must be a section"),
        (changed(task="clasification"), "unknown task 'clasification'; did you mean 'classification'?"),
        (changed(name="../x"), "name = '../x': must be up to 100 letters"),
        (changed(seed=True), "seed = True: must be a number"),
        (with_generation(1, metod="kd"), "unknown key in generations.1 'metod'; did you mean 'method'?"),
        (with_generation(1, method="kdd"), "unknown method 'kdd'; did you mean 'kd'?"),
        (with_generation(1, method="ips"), "generations.1.method = 'ips': learns from no teacher"),
        (with_generation(0, method="kd"), "generations.0.method = 'kd': learns from a teacher, and the first"),
        (with_generation(1, student=None), "generations.1: student is missing"),
        (with_generation(1, weights="w.pt"), "generations.1.weights = 'w.pt': only the first generation"),
        (with_generation(0, weights="w.pt"), "generations.0.training: a generation whose weights are given"),
        (with_generation(1, training={"epoch": 3}), "unknown key in generations.1.training 'epoch'"),
        (with_generation(1, search={"grace_period": 30}), "generations.1: search.grace_period = 30: cannot exceed"),
        (with_generation(1, space={"temprature": 3}), "did you mean 'temperature'?"),
        (with_generation(1, space=["alpha"]), "generations.1.space = ['alpha']: must map names to values"),
        (with_generation(1, hyperparameters={"alpha": 2}), "generations.1: space.alpha = 2: must be at most 1"),
        (with_generation(1, hyperparameters={"alpha": [1]}), "generations.1.hyperparameters"),
        (with_generation(1, hyperparameters="none.yaml"), "none.yaml cannot be read"),
        (changed(generations=[{"weights": "nowhere"}, {"student": "resnet8"}]), "'nowhere' is no export"),
    ],
    ids=lambda value: value[:40] if isinstance(value, str) else "",
)
def test_a_mistake_gets_one_sentence(content: dict[str, Any], sentence: str, tmp_path: Path) -> None:
    with pytest.raises(UserError) as refused:
        Chain.load(write(tmp_path, content))
    assert sentence in str(refused.value)
    assert len(str(refused.value).splitlines()) == 1


def test_a_method_without_a_distillation_weight_cannot_be_controlled(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "from kdsearch.methods.base import Hyperparameters\n"
        "from kdsearch.methods.kd import KD\n"
        "class Mine(KD):\n"
        "    name, Hyperparameters = 'mine', Hyperparameters\n"
    )
    with pytest.raises(UserError, match=r"generations.2.method = '.*mine.py:Mine': names no distillation weight"):
        Chain(**with_generation(2, method=f"{tmp_path}/mine.py:Mine", hyperparameters=None))


@pytest.mark.parametrize(
    ("name", "folder"),
    [
        ("resnet8", "resnet8"),
        ("../nets/my_net.py:build", "my_net"),
        ("torchvision:resnet18", "torchvision_resnet18"),
        ("smp:unet:mobilenet_v2", "smp_unet_mobilenet_v2"),
        ("runs/a/best", "best"),
    ],
)
def test_a_students_name_becomes_a_folders(name: str, folder: str) -> None:
    assert plain(NetworkSettings(name=name)) == folder
