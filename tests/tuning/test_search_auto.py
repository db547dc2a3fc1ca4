"""Searches over several methods: the space and its conditions, what is asked, told and taken home."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from optuna.trial import TrialState

from kdsearch import auto, methods, tasks
from kdsearch.errors import UserError
from kdsearch.experiment import Experiment
from kdsearch.objective import Report
from kdsearch.results import Results
from kdsearch.results.confirmation import plan
from kdsearch.spaces import read_settings
from kdsearch.tuning.distributions import distributions
from kdsearch.tuning.ledger import Ledger
from kdsearch.tuning.record import Record
from kdsearch.tuning.trials import memories
from tests.results.build_run import RunBuilder
from tests.tuning.test_ledger import stored

if TYPE_CHECKING:
    from tests.conftest import Cli

EPOCHS = 9
QUALITY = {"kd": 0.9, "ips": 0.6, "ce": 0.5, "lsskd": 0.4}
CHEAP = {"training.epochs": EPOCHS, "search.grace_period": 1}


def made(**changes: Any) -> Experiment:
    given = {key.replace("__", "."): value for key, value in changes.items()}
    return Experiment.load("auto", {**CHEAP, **given})


def ledger_of(experiment: Experiment, folder: Path, *, resume: bool = False) -> Ledger:
    record = Record(folder, "run", "max", distributions(experiment), resume=resume)
    return Ledger(experiment, tasks.find(experiment.task), record)


def score(setting: dict[str, Any], epoch: int) -> float:
    """A rising curve whose end is the quality of the method, and a little of the learning rate."""
    return float((QUALITY[setting["method"]] + setting["learning_rate"] / 10) * epoch / EPOCHS)


def run_to(ledger: Ledger, trials: int) -> list[dict[str, Any]]:
    """Run trial after trial until there are so many; their settings."""
    while len(ledger.trials) < trials and (trial := ledger.next_trial()) is not None:
        for epoch in range(1, EPOCHS + 1):
            if ledger.told(trial.number, Report(epoch, score(trial.hyperparameters, epoch), seconds=1.0)):
                break
            if epoch == EPOCHS:
                ledger.completed(trial.number, score(trial.hyperparameters, epoch))
    return [trial.hyperparameters for trial in ledger.trials]


def test_the_space_is_that_of_every_method_of_the_task_and_what_they_share_is_there_once() -> None:
    experiment = made()
    assert experiment.methods == ("ce", "ips", "kd", "lsskd")
    for method in experiment.methods:
        alone, own = Experiment.load(method).dimensions, experiment.of_method(method).dimensions
        assert own == alone
        for name in alone:
            shared = name in ("learning_rate", "weight_decay")
            assert (name if shared else f"{method}/{name}") in experiment.dimensions
    assert made(task="segmentation", data={"name": "scenes"}, student={"name": "unet"}).methods == (
        "ips", "kd", "supervised",
    )  # fmt: skip


def test_the_first_trials_are_each_methods_paper_setting_and_the_control_is_plain_labels(tmp_path: Path) -> None:
    ledger = ledger_of(made(search__trials=8), tmp_path)
    settings = run_to(ledger, 5)
    assert [(trial.role, trial.hyperparameters["method"]) for trial in ledger.trials] == [
        ("paper", "ce"), ("paper", "ips"), ("paper", "kd"), ("paper", "lsskd"), ("control", "ce"),
    ]  # fmt: skip
    for setting in settings[:4]:
        alone = Experiment.load(setting["method"], CHEAP)
        assert made().resolve(setting) == alone.resolve(alone.paper())
    assert settings[4]["ce/label_smoothing"] == 0
    assert all(trial.state == "COMPLETE" for trial in ledger.trials)


def test_every_setting_that_is_asked_for_has_what_its_method_has_and_nothing_else(tmp_path: Path) -> None:
    experiment = made(search__trials=40)
    ledger = ledger_of(experiment, tmp_path)
    for setting in run_to(ledger, 40):
        concrete, own = experiment.of(setting)
        assert concrete.method == setting["method"]
        assert set(concrete.dimensions) <= set(own)
        assert isinstance(experiment.resolve(setting).method, methods.find(concrete.method).Hyperparameters)
    assert {trial.hyperparameters["method"] for trial in ledger.trials} == set(experiment.methods)
    for frozen in stored(tmp_path).trials:
        present = {name.removesuffix("_on") for name in frozen.params if "/" in name}
        assert {name.partition("/")[0] for name in present} == {frozen.params["method"]}


def test_the_better_method_gets_most_of_the_trials_and_the_worst_is_stopped_by_the_others(tmp_path: Path) -> None:
    ledger = ledger_of(made(search__trials=60), tmp_path)
    run_to(ledger, 60)
    late = Counter(trial.hyperparameters["method"] for trial in ledger.trials[30:])
    assert late["kd"] > 15
    worst = [trial for trial in ledger.trials[15:] if trial.hyperparameters["method"] == "lsskd"]
    assert all(trial.state == "PRUNED" for trial in worst)


def test_a_resumed_search_asks_for_what_the_uninterrupted_one_asks_for(tmp_path: Path) -> None:
    experiment = made(search__trials=24)
    (tmp_path / "whole").mkdir()
    (tmp_path / "halves").mkdir()
    whole = run_to(ledger_of(experiment, tmp_path / "whole"), 24)
    run_to(ledger_of(experiment, tmp_path / "halves"), 13)
    reread = Experiment(**yaml.safe_load(experiment.to_yaml()))
    again = ledger_of(reread, tmp_path / "halves", resume=True)
    again.restore()
    assert run_to(again, 24) == whole


def test_a_file_keeps_what_each_paper_says_of_its_own_training() -> None:
    experiment = made(training__batch_size=32)
    again = Experiment(**yaml.safe_load(experiment.to_yaml()))
    assert again.papers() == experiment.papers()
    rates = {setting["method"]: setting["learning_rate"] for setting in again.papers()}
    assert rates == {name: methods.find(name).paper_training["learning_rate"] for name in again.methods}
    chosen = made(training__learning_rate=0.02)
    assert {setting["learning_rate"] for setting in chosen.papers()} == {0.02}


def test_a_choice_of_methods_leaves_out_the_others_and_a_range_is_changed_under_its_name() -> None:
    experiment = Experiment.load("auto", {"space.method.choices": ["ce", "ips"], "space.ips/alpha.high": 2})
    assert experiment.methods == ("ce", "ips")
    assert not experiment.needs_teacher
    assert experiment.teacher is None
    assert {name.partition("/")[0] for name in experiment.space if "/" in name} == {"ce", "ips"}
    assert experiment.of_method("ips").dimensions["alpha"].high == 2  # type: ignore[union-attr]
    held = Experiment.load("auto", {"space.kd/alpha": 0.5})
    assert held.of_method("kd").constants == {"alpha": 0.5}
    assert held.papers()[2]["kd/alpha"] == 0.5


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        ({"space.method.choices": ["ce"]}, r"space.method.choices"),
        ({"space.method": "kd"}, r"space.method = 'kd': list the methods to choose among"),
        ({"space.method.choices": ["ce", "kdd"]}, r"unknown method 'kdd'; did you mean 'kd'"),
        ({"space.method.choices": ["ce", "my.py:Mine"]}, r"space.method = 'my.py:Mine': has no name"),
        ({"space.method.choices": ["ce", "sr_kd"]}, r"method 'sr_kd': task = 'classification'"),
        ({"space.kd/alfa": 0.5}, r"unknown hyperparameter of method 'auto' 'kd/alfa'; did you mean 'kd/alpha'"),
        ({"space.kd/alpha": 2}, r"method 'kd': space.alpha = 2: must be at most 1"),
        ({"teacher": None}, r"method 'kd': teacher is missing"),
        ({"search.sampler": "gp"}, r"search.sampler = 'gp': needs every hyperparameter in every trial"),
        ({"search.phases": [{"trials": 2, "search": ["learning_rate"]}]}, r"search.phases = 1: are of one method"),
    ],
)
def test_mistakes_are_sentences(overrides: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        Experiment.load("auto", overrides)


@pytest.mark.parametrize(
    ("setting", "sentence"),
    [
        ({"learning_rate": 0.1}, "method = None: a setting of method auto names one of ce, ips, kd, lsskd"),
        ({"method": "kd", "ips/alpha": 1.0}, "unknown hyperparameter of method 'kd' 'ips/alpha'"),
        ({"method": "kd", "kd/beta": 1.0}, "unknown hyperparameter of method 'kd' 'beta'"),
    ],
)
def test_a_setting_that_fits_no_method_is_refused(setting: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        made().resolve(setting)


def test_hyperparameters_that_were_taken_home_train_their_method_alone() -> None:
    found = {"method": "kd", "alpha": 0.5, "learning_rate": 0.03}
    alone = made().fixed(found)
    assert (alone.method, alone.constants["alpha"], alone.paper()["learning_rate"]) == ("kd", 0.5, 0.03)
    assert Experiment.load("kd").fixed(found).constants["alpha"] == 0.5
    with pytest.raises(UserError, match="method = 'kd': these hyperparameters are of it, not of 'ips'"):
        Experiment.load("ips").fixed(found)


def run_of(folder: Path, method: str) -> RunBuilder:
    run = RunBuilder(folder, experiment={"method": method, "space": {}, "training": {"epochs": 1}, "search": {}})
    run.describe(state="COMPLETE")
    return run


def add(run: RunBuilder, value: float, role: str = "search", **setting: Any) -> None:
    """A complete trial of exactly this setting."""
    trial = run.study.ask()
    trial.set_user_attr("hyperparameters", setting)
    trial.set_user_attr("role", role)
    trial.report(value, 1)
    run.end(trial, TrialState.COMPLETE, value)


def test_a_warm_start_is_told_in_the_names_of_the_search_that_begins(tmp_path: Path) -> None:
    run = run_of(tmp_path / "kd", "kd")
    add(run, 0.8, alpha=0.5, temperature=3.0, learning_rate=0.1, weight_decay=5e-4)
    add(run, 0.7, role="paper", alpha=0.9, temperature=4.0, learning_rate=0.1, weight_decay=5e-4)
    (told,) = memories(Results(run.folder), made())
    assert told["hyperparameters"] == {
        "method": "kd", "kd/alpha": 0.5, "kd/temperature": 3.0, "learning_rate": 0.1, "weight_decay": 5e-4,
    }  # fmt: skip
    ledger = ledger_of(made(), tmp_path)
    ledger.learn([told])
    assert len(ledger._sampler._study.trials) == 1

    both = run_of(tmp_path / "auto", "auto")
    add(both, 0.8, **told["hyperparameters"])
    add(both, 0.7, **{"method": "ce", "ce/label_smoothing": 0.1, "learning_rate": 0.1})
    (back,) = memories(Results(both.folder), Experiment.load("kd"))
    assert back["hyperparameters"] == {"alpha": 0.5, "temperature": 3.0, "learning_rate": 0.1, "weight_decay": 5e-4}
    assert len(memories(Results(both.folder), made())) == 2


def test_a_winner_is_compared_with_the_paper_setting_of_its_own_method(tmp_path: Path) -> None:
    run = run_of(tmp_path / "run", "auto")
    add(run, 0.80, role="paper", method="ce")
    add(run, 0.82, role="paper", method="kd", **{"kd/alpha": 0.9})
    add(run, 0.70, role="control", method="ce", **{"ce/label_smoothing": 0.0})
    add(run, 0.90, method="kd", **{"kd/alpha": 0.5})
    add(run, 0.85, method="ce", **{"ce/label_smoothing": 0.2})
    results = Results(run.folder)
    assert results.paper is not None
    assert results.paper.number == 1
    found = plan(results, top=3, seeds=2)
    assert [trial.number for trial in found.candidates] == [3, 4, 1]
    assert [found.settings(trial)["paper"].number for trial in found.candidates[:2]] == [1, 0]
    assert "paper" not in found.settings(found.candidates[2])


def test_names_of_a_space_of_several_methods() -> None:
    setting = {"alpha": 0.5, "learning_rate": 0.1}
    assert auto.spread("kd", setting) == {"method": "kd", "kd/alpha": 0.5, "learning_rate": 0.1}
    assert auto.gathered("kd", {**auto.spread("kd", setting), "ips/alpha": 1.0}) == setting
    assert auto.applies("learning_rate", "kd")
    assert auto.applies("kd/alpha", "kd")
    assert not auto.applies("kd/alpha", "ips")


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_command_takes_home_a_student_whose_card_names_its_method(cli: Cli, tmp_path: Path) -> None:
    done = cli(
        "search", "auto", "--data", "digits", "--label-fraction", "0.15", "--trials", "4", "--max-epochs", "1",
        "--gpus-per-trial", "0", "--name", "mixed", "--set", "space.method.choices=[ce, kd]",
        "--set", "student.arguments.width=0.25", cwd=tmp_path, timeout=500,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    run = tmp_path / "runs" / "mixed"
    trials = json.loads(cli("status", "mixed", "--json", cwd=tmp_path).stdout)["trials"]
    assert [trial["hyperparameters"]["method"] for trial in trials[:3]] == ["ce", "kd", "ce"]
    best = json.loads(cli("best", "mixed", "--json", cwd=tmp_path).stdout)["best"]
    facts = json.loads((run / "best" / "metrics.json").read_text())
    assert facts["method"] == best["hyperparameters"]["method"]
    assert f"trained with {facts['method']} on digits" in (run / "best" / "README.md").read_text()
    found = read_settings(run / "best" / "hyperparameters.yaml")
    assert found == {"method": facts["method"], **auto.gathered(facts["method"], best["hyperparameters"])}
    again = Experiment.load(str(run / "experiment.yaml")).fixed(found)
    assert again.method == facts["method"]
    assert cli("report", "mixed", cwd=tmp_path).returncode == 0
