"""The books of a search, without Ray: what the study holds, who is stopped, what is asked next."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

from kdsearch import tasks
from kdsearch.experiment import Experiment
from kdsearch.objective import Report
from kdsearch.tuning.distributions import distributions, to_params
from kdsearch.tuning.journal import reopen_failed
from kdsearch.tuning.ledger import Ledger
from kdsearch.tuning.record import END_NOTES, Record

if TYPE_CHECKING:
    from kdsearch.tuning.trials import LiveTrial

SPACES = Path(__file__).parents[2] / "search_spaces"
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


@pytest.mark.parametrize("sampler", ["tpe", "gp", "cmaes"])
def test_each_fourth_setting_of_a_sampler_that_learns_is_drawn_at_random(sampler: str, tmp_path: Path) -> None:
    """Those are what a search at random asks at the same number: they depend on seed and number, not on the trials."""
    asked = {}
    for fraction in (0.0, 0.25, 1.0):
        (tmp_path / f"{fraction}").mkdir()
        search = {"trials": 24, "scheduler": "none", "sampler": sampler, "random_fraction": fraction}
        ledger = ledger_of(experiment(search=search), tmp_path / f"{fraction}")
        run_all(ledger, rising)
        asked[fraction] = [trial.hyperparameters for trial in ledger.trials]
    learnt = range(14, 24)  # TPE draws its own first ten at random, of another generator
    assert [number for number in learnt if asked[0.25][number] == asked[1.0][number]] == [15, 19, 23]
    assert [number for number in learnt if asked[0.0][number] == asked[1.0][number]] == []


def test_the_sampler_is_not_told_of_trials_that_run_to_the_end_whatever_they_are_worth(tmp_path: Path) -> None:
    """Live and resumed: TPE ranks what came to the end above all that was stopped."""
    made = experiment(search={"trials": 8, "grace_period": 1})
    ledger = ledger_of(made, tmp_path, tries=[{"temperature": 7.5}])
    run_all(ledger, rising)
    resumed = ledger_of(made, tmp_path, resume=True, tries=[{"temperature": 7.5}])
    resumed.restore()
    searched = [trial.hyperparameters["temperature"] for trial in ledger.trials if not trial.protected]
    assert len(searched) == 6
    assert searched[0] == 7.5
    for one in (ledger, resumed):
        assert [trial.params["temperature"] for trial in one._sampler._study.trials] == searched


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


def begun(ledger: Ledger) -> LiveTrial:
    trial = ledger.next_trial()
    assert trial is not None
    return trial


def test_a_trial_that_fails_runs_again_and_the_same_reason_twice_is_its_end(tmp_path: Path) -> None:
    ledger = ledger_of(experiment(), tmp_path)
    trial = begun(ledger)
    ledger.failed(0, "ValueError: no room at 0x7f01")
    assert stored(tmp_path).trials[0].state == TrialState.RUNNING
    assert begun(ledger) is trial
    ledger.failed(0, "ValueError: no room at 0x7fa2")
    kept = stored(tmp_path).trials[0]
    assert (kept.state, kept.user_attrs["error"]) == (TrialState.FAIL, "ValueError: no room at 0x7fa2")
    assert (trial.state, begun(ledger).number) == ("FAILED", 1)


def test_a_trial_that_fails_each_time_otherwise_ends_after_max_failures(tmp_path: Path) -> None:
    ledger = ledger_of(experiment(resources={"max_failures": 2}), tmp_path)
    for reason in ("ValueError: a", "ValueError: b", "ValueError: c"):
        assert begun(ledger).number == 0
        ledger.failed(0, reason)
    assert ledger.trials[0].error == "ValueError: c"


def test_with_no_failure_allowed_none_runs_again(tmp_path: Path) -> None:
    ledger = ledger_of(experiment(resources={"max_failures": 0}), tmp_path)
    for number in (0, 1):
        assert begun(ledger).number == number
    ledger.failed(0, "ValueError: a")
    ledger.lost(1)
    assert [trial.state for trial in ledger.trials] == ["FAILED", "FAILED"]
    assert ledger.trials[1].error == "its process died 1 time (resources.max_failures = 0)"


def test_lost_processes_are_counted_over_a_resume(tmp_path: Path) -> None:
    ledger = ledger_of(experiment(), tmp_path)
    for _ in range(2):
        begun(ledger)
        ledger.lost(0)
    again = ledger_of(experiment(), tmp_path, resume=True)
    again.restore()
    begun(again)
    again.lost(0)
    assert begun(again).number == 0
    again.lost(0)
    kept = stored(tmp_path).trials[0]
    assert kept.state == TrialState.FAIL
    assert kept.user_attrs["error"] == "its process died 4 times (resources.max_failures = 3)"


def test_what_goes_wrong_while_a_search_ends_is_no_reason_to_run_again(tmp_path: Path) -> None:
    """A spent budget keeps what a trial reached; an interrupted search leaves the trial to whoever resumes it."""
    for name, interrupted, states in (("spent", False, ["PRUNED", "FAIL"]), ("signal", True, ["RUNNING", "RUNNING"])):
        (tmp_path / name).mkdir()
        ledger = ledger_of(experiment(), tmp_path / name)
        begun(ledger), begun(ledger)
        ledger.told(0, Report(1, 0.5))
        ledger.stop("enough", interrupted=interrupted)
        for number in (0, 1):
            ledger.lost(number)
        assert ledger.next_trial() is None
        assert [trial.state.name for trial in stored(tmp_path / name).trials] == states


def test_a_search_waits_for_a_running_trial_that_may_have_to_run_again(tmp_path: Path) -> None:
    ledger = ledger_of(experiment(search={"trials": 2, "grace_period": 1}), tmp_path)
    begun(ledger), begun(ledger)
    ledger.completed(0, 0.5)
    assert ledger.next_trial() is None
    assert not ledger.exhausted
    ledger.lost(1)
    assert begun(ledger).number == 1
    ledger.completed(1, 0.5)
    assert ledger.exhausted


def test_out_of_gpu_memory_gives_the_trial_and_all_that_follow_a_larger_share(tmp_path: Path) -> None:
    made, said = experiment(resources={"gpus_per_trial": 0.25}), []
    ledger = ledger_of(made, tmp_path, announce=said.append)
    begun(ledger), begun(ledger)
    ledger.out_of_memory(0, "CUDA out of memory")
    assert said == ["trial 0 ran out of GPU memory with 0.25 GPUs: it runs again with 0.5, and so do all that follow"]
    ledger.out_of_memory(1, "CUDA out of memory")  # it began with the small share: no reason for more than half a GPU
    assert [(trial.number, trial.gpus) for trial in (begun(ledger), begun(ledger))] == [(1, 0.5), (0, 0.5)]
    ledger.out_of_memory(0, "CUDA out of memory")
    resumed = ledger_of(made, tmp_path, resume=True)
    resumed.restore()
    assert [begun(resumed).gpus for _ in range(3)] == [1.0, 1.0, 1.0]
    for _ in range(2):
        resumed.out_of_memory(2, "CUDA out of memory. Tried to allocate 20 MiB")
    assert resumed.trials[2].error is not None
    assert resumed.trials[2].error.startswith("out of GPU memory, with a GPU for itself; a smaller batch_size may help")


def test_gpu_hours_count_the_share_that_each_trial_had(tmp_path: Path) -> None:
    made = experiment(resources={"gpus_per_trial": 0.5})
    ledger = ledger_of(made, tmp_path)
    begun(ledger)
    ledger.told(0, Report(1, 0.5, seconds=7200.0))
    assert ledger.gpu_hours == 1.0
    ledger.out_of_memory(0, "CUDA out of memory")
    begun(ledger)
    ledger.told(0, Report(2, 0.5, seconds=3600.0))
    ledger.completed(0, 0.5)
    assert ledger.gpu_hours == 2.0


def test_a_search_whose_first_trials_all_fail_alike_is_given_up(tmp_path: Path) -> None:
    ledger = ledger_of(experiment(resources={"max_failures": 0}), tmp_path)
    for number in range(3):
        begun(ledger)
        ledger.failed(number, f"FileNotFoundError: no picture {number}.png")
    assert ledger.stopping is None
    begun(ledger)
    ledger.failed(3, "FileNotFoundError: no picture 3.png")
    assert ledger.hopeless
    assert ledger.stopping == ("the first 4 trials all failed for one reason: FileNotFoundError: no picture 0.png")
    assert ledger.next_trial() is None


@pytest.mark.parametrize("difference", ["another reason", "one that learns", "one that runs well"])
def test_a_search_with_any_other_trial_among_the_first_goes_on(difference: str, tmp_path: Path) -> None:
    ledger = ledger_of(experiment(resources={"max_failures": 0}), tmp_path)
    for number in range(6):
        begun(ledger)
        if number == 2 and difference == "another reason":
            ledger.failed(number, "ValueError: cold")
        elif number == 2 and difference == "one that learns":
            ledger.completed(number, 0.5)
        elif number == 2:
            ledger.told(number, Report(1, 0.5))
        else:
            ledger.failed(number, "ValueError: hot")
    assert ledger.stopping is None


def test_more_slots_than_four_are_all_waited_for(tmp_path: Path) -> None:
    ledger = ledger_of(experiment(resources={"max_failures": 0}), tmp_path, slots=6)
    for number in range(6):
        assert ledger.stopping is None
        begun(ledger)
        ledger.failed(number, "ValueError: hot")
    assert ledger.hopeless


def test_failed_trials_run_again_under_their_numbers_and_diverged_ones_do_not(tmp_path: Path) -> None:
    made = experiment(search={"trials": 8, "scheduler": "none"}, resources={"max_failures": 0})

    def run(ledger: Ledger, hot: bool) -> None:
        while (trial := ledger.next_trial()) is not None:
            if trial.number == 3:
                ledger.diverged(3, "the loss is not finite", 1)
            elif hot and trial.number in (2, 5):
                ledger.failed(trial.number, "ValueError: hot")
            else:
                ledger.told(trial.number, Report(1, 0.5))
                ledger.completed(trial.number, 0.5)

    ledger = ledger_of(made, tmp_path)
    run(ledger, hot=True)
    reopen_failed(tmp_path / "study.journal", END_NOTES)
    again = ledger_of(made, tmp_path, resume=True)
    again.restore()
    assert [trial.number for trial in again._unfinished] == [2, 5]
    run(again, hot=False)
    kept = stored(tmp_path).trials
    assert [trial.number for trial in kept] == list(range(8))
    assert [trial.number for trial in kept if trial.state != TrialState.COMPLETE] == [3]
    assert kept[2].user_attrs["error"] is None
    assert [trial.params for trial in kept] == [
        to_params(distributions(made), trial.hyperparameters) for trial in ledger.trials
    ]


def test_what_a_trial_is_told_again_after_a_crash_is_not_judged_again(tmp_path: Path) -> None:
    """Trial 2 passed its rung when it came first; told again when better ones have been there, it still has."""
    ledger = ledger_of(experiment(), tmp_path)
    for _ in range(4):
        begun(ledger)
    assert not ledger.told(2, Report(1, 0.1))
    assert not ledger.told(2, Report(2, 0.2))
    assert not ledger.told(3, Report(1, 0.9))
    ledger.lost(2)
    assert begun(ledger).number == 2
    assert not ledger.told(2, Report(1, 0.1))
    assert not ledger.told(2, Report(2, 0.2))


def test_a_divergence_that_a_crash_cut_off_is_told_once(tmp_path: Path) -> None:
    ledger = ledger_of(experiment(), tmp_path)
    trial = begun(ledger)
    ledger.told(0, Report(1, 0.4))
    ledger._record.value(trial.trial_id, 2, 0.0)  # and here the driver died, before the trial's end was written
    again = ledger_of(experiment(), tmp_path, resume=True)
    again.restore()
    begun(again)
    again.diverged(0, "the loss is not finite", 2)
    kept = stored(tmp_path).trials[0]
    assert kept.intermediate_values == {1: 0.4, 2: 0.0}
    assert kept.user_attrs["epochs"] == 1


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
        search = {"trials": 12, "scheduler": "none", "random_fraction": 0}
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


def test_a_budget_of_time_counts_what_earlier_drivers_spent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two drivers that died, each some time after its last line; the nights between them do not count."""
    clock = [1000.0]
    monkeypatch.setattr("time.time", lambda: clock[0])
    made = experiment(search={"trials": 20, "grace_period": 1, "time": 100.0, "scheduler": "none"})

    def drive(now: float, seconds: list[float]) -> list[bool]:
        clock[0] = now
        ledger = ledger_of(made, tmp_path, resume=now > 1000)
        ledger._record.describe(state="RUNNING")
        ledger.restore()
        trial, stopped = begun(ledger), []
        for later in seconds:
            clock[0] = now + later
            stopped.append(ledger.told(trial.number, Report(len(trial.values) + 1, 0.5)))
        return stopped

    assert drive(1000.0, [10, 40]) == [False, False]
    assert drive(50_000.0, [20]) == [False]
    assert drive(90_000.0, [39, 41]) == [False, True]  # 40 + 20 + 41
    again = ledger_of(made, tmp_path, resume=True)
    again.restore()
    assert again.next_trial() is None
    assert again.stopping == "the budget of 100 s is spent"


def test_gpu_hours_count_what_earlier_drivers_spent(tmp_path: Path) -> None:
    search = {"trials": 20, "grace_period": 1, "gpu_hours": 3.0, "scheduler": "none"}
    made = experiment(search=search, resources={"gpus_per_trial": 1})
    ledger = ledger_of(made, tmp_path)
    begun(ledger), begun(ledger)
    ledger.told(0, Report(1, 0.5, seconds=3600))
    ledger.completed(0, 0.5)
    ledger.told(1, Report(1, 0.5, seconds=1800))
    again = ledger_of(made, tmp_path, resume=True)
    again.restore()
    assert again.gpu_hours == 1.0
    assert begun(again).number == 1
    again.told(1, Report(1, 0.5, seconds=1800))  # as its checkpoint brings it back
    assert again.gpu_hours == 1.5
    assert again.told(1, Report(2, 0.5, seconds=5400))
    assert again.stopping == "the budget of 3 GPU hours is spent"


def test_a_paused_trial_goes_on_before_a_new_one_begins(tmp_path: Path) -> None:
    """It made room for another search: nothing has failed, and its earlier epochs count."""
    ledger = ledger_of(experiment(search={"trials": 3, "scheduler": "none"}), tmp_path)
    first, second = ledger.next_trial(), ledger.next_trial()
    assert first is not None
    assert second is not None
    ledger.told(0, Report(1, 0.1, seconds=1.0))
    ledger.paused(0)
    assert not ledger.exhausted
    assert ledger.to_run == 2
    assert ledger.next_trial() is first
    assert not ledger.told(0, Report(1, 0.1, seconds=1.0))  # its checkpoint brings it back
    assert first.values == {1: 0.1}
    assert (first.state, first.failures.losses, first.seconds) == ("RUNNING", 0, 1.0)
    third = ledger.next_trial()
    assert third is not None
    assert third.number == 2
    for number in range(3):
        assert not ledger.exhausted
        ledger.completed(number, 0.5)
    assert ledger.exhausted


def test_trials_that_are_paused_when_a_budget_is_spent_end_as_running_ones_do(tmp_path: Path) -> None:
    made = experiment(search={"trials": 9, "gpu_hours": 3 / 3600, "scheduler": "none"}, resources={"gpus_per_trial": 1})
    ledger = ledger_of(made, tmp_path)
    for _ in range(3):
        ledger.next_trial()
    ledger.told(0, Report(1, 0.1, seconds=1.0))
    ledger.paused(0)
    ledger.paused(1)  # before its first epoch
    assert ledger.told(2, Report(1, 0.3, seconds=3.0))
    assert ledger.exhausted
    assert [trial.state for trial in ledger.trials] == ["PRUNED", "FAILED", "PRUNED"]
    assert [trial.state for trial in stored(tmp_path).trials] == [TrialState.PRUNED, TrialState.FAIL, TrialState.PRUNED]
    assert ledger.trials[1].error == "the search ended before its first epoch"


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


@pytest.mark.parametrize("space", sorted(path.stem for path in SPACES.glob("*.yaml")))
def test_a_search_of_a_shipped_space_is_resumed_to_the_same_settings(space: str, tmp_path: Path) -> None:
    """With all that a space may hold: terms that may be off, whole numbers, choices, log ranges."""
    overrides = {"search.trials": 18, "training.epochs": 9, "search.grace_period": 1, "search.reduction_factor": 3}
    made = Experiment.load(space, overrides)
    found = []
    for name, ends in (("whole", [10_000]), ("parts", [20, 25, 7, 10_000])):
        (tmp_path / name).mkdir()
        for place, end in enumerate(ends):
            ledger = ledger_of(made, tmp_path / name, resume=place > 0)
            ledger.restore()
            run_until(ledger, end, lambda trial, epoch: trial.hyperparameters["learning_rate"] ** 0.1 * epoch / 9)
        found.append([(trial.hyperparameters, trial.values, trial.state) for trial in ledger.trials])
    assert len(found[0]) == 18
    assert found[0] == found[1]


def run_until(ledger: Ledger, reports: int, score: Any = rising) -> None:
    """Run trials, each from where it was, and walk away after so many reports."""
    while (trial := ledger.next_trial()) is not None:
        for epoch in range(1, 10):
            fresh = epoch not in trial.values
            stopped = ledger.told(trial.number, Report(epoch, score(trial, epoch))) if fresh else False
            reports -= fresh
            if reports <= 0 and not stopped:
                return
            if stopped:
                break
            if epoch == 9:
                ledger.completed(trial.number, score(trial, epoch))
