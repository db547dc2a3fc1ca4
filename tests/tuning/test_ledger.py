"""The books of a search, without Ray: what the study holds, who is stopped, what is asked next."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

from kdsearch import tasks
from kdsearch.errors import UserError
from kdsearch.experiment import Experiment
from kdsearch.objective import Report
from kdsearch.tuning.distributions import distributions
from kdsearch.tuning.ledger import Ledger
from kdsearch.tuning.record import Record

if TYPE_CHECKING:
    from pathlib import Path

SPACE = {"temperature": {"low": 1, "high": 20, "log": True}, "alpha": {"low": 0.1, "high": 0.9}}


def experiment(**changes: Any) -> Experiment:
    sections: dict[str, Any] = {
        "method": "kd",
        "teacher": "resnet8",
        "space": SPACE,
        "training": {"epochs": 9},
        "search": {"trials": 20, "grace_period": 1},
    }
    return Experiment(**(sections | changes))


def ledger_of(made: Experiment, folder: Path, *, resume: bool = False, **more: Any) -> Ledger:
    record = Record(folder, "run", "max", distributions(made), resume=resume)
    return Ledger(made, tasks.find(made.task), record, **more)


def run_all(ledger: Ledger, score: Any, epochs: int = 9) -> None:
    """Run every trial one after the other; `score(trial, epoch)`."""
    while (trial := ledger.next_trial()) is not None:
        for epoch in range(1, epochs + 1):
            if ledger.told(trial.number, Report(epoch, score(trial, epoch), seconds=1.0)):
                break
            if epoch == epochs:
                ledger.completed(trial.number, score(trial, epoch))


def rising(trial: Any, epoch: int) -> float:
    return (1 - abs(math.log(trial.hyperparameters["temperature"] / 7)) / 4) * epoch / 9


def stored(folder: Path) -> optuna.Study:
    storage = JournalStorage(JournalFileBackend(str(folder / "study.journal")))
    return optuna.load_study(study_name="run", storage=storage)


def test_trial_0_is_the_paper_and_trial_1_the_control_and_both_reach_the_full_budget(tmp_path: Path) -> None:
    ledger = ledger_of(experiment(), tmp_path)
    # The first two score worst of all, so that every rung would stop them.
    run_all(ledger, lambda trial, epoch: (0.0 if trial.number < 2 else 0.5) + epoch / 100)
    paper, control = ledger.trials[:2]
    assert (paper.role, paper.hyperparameters["temperature"], paper.hyperparameters["alpha"]) == ("paper", 4.0, 0.9)
    assert (control.role, control.hyperparameters["alpha"]) == ("control", 0.0)
    assert [trial.state for trial in (paper, control)] == ["COMPLETE", "COMPLETE"]
    assert len(paper.values) == len(control.values) == 9


def test_optuna_reads_one_record_a_trial_with_every_value_and_complete_only_at_the_full_budget(tmp_path: Path) -> None:
    ledger = ledger_of(experiment(), tmp_path)
    run_all(ledger, rising)
    trials = stored(tmp_path).trials
    assert [trial.number for trial in trials] == list(range(20))
    assert {trial.state for trial in trials} == {TrialState.COMPLETE, TrialState.PRUNED}
    for trial, live in zip(trials, ledger.trials, strict=True):
        assert trial.intermediate_values == live.values
        assert (trial.state == TrialState.COMPLETE) == (len(live.values) == 9)
        assert trial.user_attrs["hyperparameters"] == live.hyperparameters
        assert trial.user_attrs["seconds"] == len(live.values)
    sampled = [trial for trial in trials if trial.user_attrs["role"] == "search"]
    assert all(trial.params.keys() == SPACE.keys() for trial in sampled)


def test_the_control_leaves_no_parameter_outside_the_space_in_the_study(tmp_path: Path) -> None:
    run_all(ledger_of(experiment(), tmp_path), rising)
    control = stored(tmp_path).trials[1]
    assert "alpha" not in control.params
    assert control.user_attrs["hyperparameters"]["alpha"] == 0.0


def test_telling_twice_keeps_the_first_value(tmp_path: Path) -> None:
    ledger = ledger_of(experiment(), tmp_path)
    trial = ledger.next_trial()
    assert trial is not None
    ledger.told(trial.number, Report(1, 0.25, seconds=2.0))
    ledger.told(trial.number, Report(1, 0.75, seconds=2.0))
    assert trial.values == {1: 0.25}
    assert trial.seconds == 2.0
    assert stored(tmp_path).trials[0].intermediate_values == {1: 0.25}


@pytest.mark.parametrize("sampler", ["tpe", "random", "qmc", "gp", "cmaes"])
def test_the_same_seed_asks_for_the_same_settings(sampler: str, tmp_path: Path) -> None:
    asked = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        (tmp_path / name).mkdir()
        search = {"trials": 16, "grace_period": 3, "sampler": sampler}
        ledger = ledger_of(experiment(seed=seed, search=search), tmp_path / name)
        run_all(ledger, rising)
        asked.append([trial.hyperparameters for trial in ledger.trials])
    assert asked[0] == asked[1]
    assert asked[0] != asked[2]
    temperatures = [setting["temperature"] for setting in asked[0][2:]]
    assert len(set(temperatures)) == len(temperatures)
    assert all(1 <= temperature <= 20 for temperature in temperatures)


def test_a_grid_is_walked_once_and_then_the_search_ends(tmp_path: Path) -> None:
    space = {"temperature": {"choices": [1.0, 2.0, 4.0]}, "alpha": {"low": 0.1, "high": 0.9, "step": 0.4}}
    search = {"trials": 50, "sampler": "grid", "grace_period": 1, "scheduler": "none"}
    ledger = ledger_of(experiment(space=space, search=search), tmp_path)
    run_all(ledger, rising)
    searched = [trial.hyperparameters for trial in ledger.trials if trial.role == "search"]
    found = sorted((setting["temperature"], round(float(setting["alpha"]), 6)) for setting in searched)
    assert found == [(t, a) for t in (1.0, 2.0, 4.0) for a in (0.1, 0.5, 0.9)]


def test_off_is_one_point_of_a_grid(tmp_path: Path) -> None:
    space = {"temperature": {"choices": [2.0, 4.0]}, "alpha": {"low": 0.3, "high": 0.9, "step": 0.3, "or_zero": True}}
    search = {"trials": 50, "sampler": "grid", "grace_period": 1, "scheduler": "none"}
    ledger = ledger_of(experiment(space=space, search=search), tmp_path)
    run_all(ledger, rising)
    searched = [trial.hyperparameters for trial in ledger.trials if trial.role == "search"]
    found = sorted((setting["temperature"], round(float(setting["alpha"]), 6)) for setting in searched)
    assert found == [(t, a) for t in (2.0, 4.0) for a in (0.0, 0.3, 0.6, 0.9)]


def test_a_diverged_trial_is_failed_for_the_person_and_pruned_at_the_worst_value_for_the_study(tmp_path: Path) -> None:
    ledger = ledger_of(experiment(), tmp_path)
    trial = ledger.next_trial()
    assert trial is not None
    ledger.told(trial.number, Report(1, 0.4))
    assert ledger.told(trial.number, Report(2, float("nan")))
    kept = stored(tmp_path).trials[0]
    assert (trial.state, kept.state, kept.value) == ("FAILED", TrialState.PRUNED, 0.0)
    assert kept.intermediate_values == {1: 0.4, 2: 0.0}
    assert "nan after epoch 2" in kept.user_attrs["error"]
    assert kept.user_attrs["epochs"] == 1


def test_a_crash_is_told_as_fail(tmp_path: Path) -> None:
    ledger = ledger_of(experiment(), tmp_path)
    trial = ledger.next_trial()
    assert trial is not None
    ledger.failed(trial.number, "ValueError: no")
    kept = stored(tmp_path).trials[0]
    assert (kept.state, kept.user_attrs["error"]) == (TrialState.FAIL, "ValueError: no")


def test_a_term_that_may_be_off_is_zero_in_some_trials_and_absent_from_their_record(tmp_path: Path) -> None:
    space = {"temperature": SPACE["temperature"], "alpha": {"low": 0.01, "high": 0.9, "log": True, "or_zero": True}}
    search = {"trials": 24, "grace_period": 1, "sampler": "random", "scheduler": "none"}
    ledger = ledger_of(experiment(space=space, search=search), tmp_path)
    run_all(ledger, rising)
    searched = [trial for trial in ledger.trials if trial.role == "search"]
    off = [trial.number for trial in searched if trial.hyperparameters["alpha"] == 0]
    assert 0 < len(off) < len(searched)
    for trial in stored(tmp_path).trials[2:]:
        assert trial.params["alpha_on"] == (trial.number not in off)
        assert ("alpha" in trial.params) == (trial.number not in off)


def test_phases_vary_their_own_hyperparameters_and_build_on_the_best_before(tmp_path: Path) -> None:
    phases = [{"trials": 6, "search": ["temperature"]}, {"trials": 6, "search": ["alpha"]}]
    search = {"trials": 14, "scheduler": "none", "phases": phases}
    ledger = ledger_of(experiment(search=search), tmp_path)
    run_all(ledger, rising)
    first, second = ledger.trials[2:8], ledger.trials[8:14]
    assert {trial.hyperparameters["alpha"] for trial in first} == {0.9}
    best = max([ledger.trials[0], *first], key=lambda trial: trial.last or 0)
    assert {trial.hyperparameters["temperature"] for trial in second} == {best.hyperparameters["temperature"]}
    assert len({trial.hyperparameters["alpha"] for trial in second}) == 6


def test_a_phase_waits_for_the_trials_it_builds_on(tmp_path: Path) -> None:
    search = {"trials": 14, "scheduler": "none", "phases": [{"trials": 6, "search": ["temperature"]}]}
    ledger = ledger_of(experiment(search=search), tmp_path)
    assert ledger.next_trial() is not None
    assert ledger.next_trial() is not None
    assert ledger.next_trial() is None
    assert not ledger.exhausted
    for number in (0, 1):
        ledger.completed(number, 0.5)
    assert ledger.next_trial() is not None


def test_a_known_setting_is_tried_before_the_sampler_is_asked(tmp_path: Path) -> None:
    ledger = ledger_of(experiment(), tmp_path, tries=[{"temperature": 7.5}])
    run_all(ledger, rising)
    tried = ledger.trials[2]
    assert (tried.role, tried.hyperparameters["temperature"], tried.hyperparameters["alpha"]) == ("try", 7.5, 0.9)


def test_a_setting_that_is_fixed_as_a_whole_is_compared_with_the_papers_and_the_control(tmp_path: Path) -> None:
    made = experiment().fixed({"temperature": 7.5, "alpha": 0.3})
    ledger = ledger_of(made, tmp_path)
    run_all(ledger, rising)
    found = [(t.role, t.hyperparameters["temperature"], t.hyperparameters["alpha"]) for t in ledger.trials]
    assert found == [("paper", 4.0, 0.9), ("control", 4.0, 0.0), ("try", 7.5, 0.3)]


def test_a_warm_start_draws_the_sampler_to_what_was_good_elsewhere(tmp_path: Path) -> None:
    """Twenty remembered trials say that temperatures near 7 are good; TPE then asks nearer to it than without."""
    remembered = [
        {
            "hyperparameters": {"temperature": temperature, "alpha": 0.5},
            "state": "COMPLETE",
            "values": [(9, 1 - abs(math.log(temperature / 7)) / 4)],
            "final": 1 - abs(math.log(temperature / 7)) / 4,
        }
        for temperature in (1.0 + index for index in range(20))
    ]
    distances = []
    for name, memories in (("cold", []), ("warm", remembered)):
        (tmp_path / name).mkdir()
        search = {"trials": 12, "scheduler": "none"}
        ledger = ledger_of(experiment(search=search), tmp_path / name)
        ledger.learn(memories)  # type: ignore[arg-type]
        run_all(ledger, lambda trial, epoch: 0.1)
        asked = [float(trial.hyperparameters["temperature"]) for trial in ledger.trials[2:]]
        distances.append(sum(abs(math.log(temperature / 7)) for temperature in asked) / len(asked))
    assert distances[1] < 0.6 * distances[0]


def test_a_spent_budget_stops_running_trials_as_pruned_and_starts_no_more(tmp_path: Path) -> None:
    search = {"trials": 20, "grace_period": 1, "gpu_hours": 3 / 3600}
    resources = {"gpus_per_trial": 1}
    ledger = ledger_of(experiment(search=search, resources=resources), tmp_path)
    trial = ledger.next_trial()
    assert trial is not None
    assert not ledger.told(trial.number, Report(1, 0.4, seconds=2.0))
    assert ledger.told(trial.number, Report(2, 0.5, seconds=2.0))
    assert trial.state == "PRUNED"
    assert ledger.next_trial() is None
    assert ledger.stopping == "the budget of 0.000833333 GPU hours is spent"


def test_an_interrupted_search_leaves_its_running_trials_running(tmp_path: Path) -> None:
    ledger = ledger_of(experiment(), tmp_path)
    trial = ledger.next_trial()
    assert trial is not None
    ledger.stop("interrupted by SIGINT", interrupted=True)
    assert ledger.told(trial.number, Report(1, 0.4))
    assert stored(tmp_path).trials[0].state == TrialState.RUNNING


@pytest.mark.parametrize("scheduler", ["asha", "hyperband", "median", "none"])
def test_a_search_resumed_at_any_point_ends_like_one_that_was_not(scheduler: str, tmp_path: Path) -> None:
    made = experiment(search={"trials": 16, "grace_period": 1, "scheduler": scheduler})
    (tmp_path / "whole").mkdir()
    whole = ledger_of(made, tmp_path / "whole")
    run_all(whole, rising)
    (tmp_path / "parts").mkdir()
    for told_before_the_crash in (5, 11, 17, 10_000):
        ledger = ledger_of(made, tmp_path / "parts", resume=told_before_the_crash != 5)
        ledger.restore()
        run_until(ledger, told_before_the_crash)
    resumed = ledger
    assert [trial.hyperparameters for trial in resumed.trials] == [trial.hyperparameters for trial in whole.trials]
    assert [trial.values for trial in resumed.trials] == [trial.values for trial in whole.trials]
    assert [trial.state for trial in resumed.trials] == [trial.state for trial in whole.trials]


def run_until(ledger: Ledger, reports: int) -> None:
    """Run trials, each from where it was, and walk away after so many reports."""
    while (trial := ledger.next_trial()) is not None:
        for epoch in range(1, 10):
            fresh = epoch not in trial.values
            stopped = ledger.told(trial.number, Report(epoch, rising(trial, epoch))) if fresh else False
            reports -= fresh
            if reports <= 0 and not stopped:
                return
            if stopped:
                break
            if epoch == 9:
                ledger.completed(trial.number, rising(trial, epoch))


def test_a_database_mirrors_the_study_and_refuses_a_second_of_its_name(tmp_path: Path) -> None:
    made, url = experiment(search={"trials": 6, "grace_period": 1}), f"sqlite:///{tmp_path}/studies.db"
    record = Record(tmp_path, "run", "max", distributions(made), url)
    run_all(Ledger(made, tasks.find(made.task), record), rising)
    mirrored = optuna.load_study(study_name="run", storage=url).trials
    here = stored(tmp_path).trials
    assert [(t.state, t.value, t.params, t.intermediate_values, t.user_attrs) for t in mirrored] == [
        (t.state, t.value, t.params, t.intermediate_values, t.user_attrs) for t in here
    ]
    (tmp_path / "second").mkdir()
    with pytest.raises(UserError, match="already holds a study 'run'"):
        Record(tmp_path / "second", "run", "max", distributions(made), url)


def test_a_database_that_cannot_be_opened_is_refused_in_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="study 'nosql://nowhere' cannot be opened"):
        Record(tmp_path, "run", "max", {}, "nosql://nowhere")
