"""What a run folder says: trials, the best, gains, states; from journals that Optuna wrote."""

from __future__ import annotations

import dataclasses
import json
import math
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from optuna.trial import TrialState

from kdsearch.errors import RunError
from kdsearch.results import Results, RunLock
from kdsearch.results.progress import progress
from tests.results.build_run import EXPERIMENT, START, RunBuilder, sample_run

STATUS_KEYS = [
    "number", "state", "hyperparameters", "epochs", "best", "last", "seconds", "started", "ended", "node", "gpu_ids",
    "error",
]  # fmt: skip


@pytest.fixture
def run(tmp_path: Path) -> Path:
    sample_run(tmp_path / "my-run")
    return tmp_path / "my-run"


def test_the_status_document_is_the_agreed_one(run: Path) -> None:
    status = Results(run).status()
    assert list(status) == ["run", "state", "metric", "trials", "confirmation"]
    assert (status["run"], status["metric"]) == ("my-run", "accuracy")
    assert [list(trial) for trial in status["trials"]] == [STATUS_KEYS] * 6
    states = ["COMPLETE", "COMPLETE", "COMPLETE", "PRUNED", "FAILED", "RUNNING"]
    assert [trial["state"] for trial in status["trials"]] == states
    best = status["trials"][2]
    assert (best["best"], best["last"], best["epochs"], best["seconds"]) == (0.9, 0.8, 3, 12.5)
    assert (best["node"], best["gpu_ids"], best["error"]) == ("node-1", ["0"], None)
    assert best["hyperparameters"].keys() == {
        "temperature", "alpha", "patches_per_side", "stages", "gamma", "learning_rate", "detach",
    }  # fmt: skip
    assert best["started"] <= best["ended"] <= time.time()
    assert json.loads(json.dumps(status)) == status


def test_complete_trials_are_known_by_their_value_and_others_by_their_curve(run: Path) -> None:
    trials = Results(run).trials
    assert [trial.best for trial in trials] == [0.71, 0.61, 0.9, 0.3, 0.1, 0.95]
    assert [trial.last for trial in trials] == [0.7, 0.6, 0.8, 0.2, 0.1, 0.95]
    assert [trial.epochs for trial in trials] == [3, 3, 3, 2, 1, 1]
    assert [(point.epoch, point.value) for point in trials[2].curve] == [(1, 0.6), (2, 0.9), (3, 0.8)]
    times = [point.time for point in trials[2].curve]
    assert times == sorted(times, key=lambda moment: moment or 0)
    assert all(moment is not None and moment > START for moment in times)


def test_a_running_trial_has_not_ended_and_its_seconds_run(run: Path) -> None:
    running = Results(run).trials[5]
    assert running.ended is None
    # The clock of the journal's lines is long past: never negative.
    assert running.seconds == 0.0


def test_a_diverged_trial_has_failed_without_the_worst_value_it_was_told_as(run: Path) -> None:
    trial = Results(run).trials[4]
    assert trial.state == "FAILED"
    assert trial.error == "the loss is not finite at step 40"
    assert [point.value for point in trial.curve] == [0.1]


def test_a_trial_that_diverged_in_its_first_epoch_has_no_curve(tmp_path: Path) -> None:
    run = RunBuilder(tmp_path / "r")
    run.trial([0.0], TrialState.PRUNED, error="not finite", epochs=0)
    trial = Results(tmp_path / "r").trials[0]
    assert (trial.epochs, trial.best, trial.last, trial.curve) == (0, None, None, ())


def test_a_crashed_trial_has_failed(tmp_path: Path) -> None:
    run = RunBuilder(tmp_path / "r")
    run.trial([0.5], TrialState.FAIL, error="ValueError: no")
    results = Results(tmp_path / "r")
    assert results.trials[0].state == "FAILED"
    assert results.best is None


def test_the_best_is_the_best_complete_trial_whatever_unfinished_ones_reached(run: Path) -> None:
    results = Results(run)
    assert results.best is not None
    assert results.best.number == 2
    assert not results.provisional
    assert [trial.number for trial in results.top(10)] == [2, 0, 1, 3, 5]
    assert [trial.number for trial in results.top(2)] == [2, 0]


def test_with_no_complete_trial_the_best_is_the_best_of_those_that_got_furthest(tmp_path: Path) -> None:
    run = RunBuilder(tmp_path / "r")
    run.trial([0.9], TrialState.PRUNED)
    run.trial([0.1, 0.3], TrialState.PRUNED)
    run.trial([0.2, 0.4], TrialState.PRUNED)
    results = Results(tmp_path / "r")
    assert results.provisional
    assert [trial.number for trial in results.top(3)] == [2, 1, 0]


def test_where_less_is_better_the_least_is_the_best_and_gains_are_positive(tmp_path: Path) -> None:
    run = RunBuilder(tmp_path / "r", mode="min")
    run.trial([0.9, 0.5, 0.6], TrialState.COMPLETE, 0.5, role="paper")
    run.trial([0.8, 0.4, 0.2], TrialState.COMPLETE, 0.2)
    run.trial([0.8, 0.3, 0.9], TrialState.PRUNED)
    results = Results(tmp_path / "r")
    assert results.mode == "min"
    assert [trial.number for trial in results.top(3)] == [1, 0, 2]
    assert results.trials[2].best == 0.3
    assert results.gain(results.best, results.paper) == pytest.approx(0.3)


def test_gains_over_paper_and_control_need_full_budgets(run: Path) -> None:
    results = Results(run)
    assert results.gain(results.best, results.paper) == pytest.approx(0.19)
    assert results.gain(results.best, results.control) == pytest.approx(0.29)
    assert results.gain(results.trials[5], results.paper) is None
    assert results.gain(results.best, None) is None


def test_equal_values_rank_the_earlier_trial_first(tmp_path: Path) -> None:
    run = RunBuilder(tmp_path / "r")
    for _ in range(3):
        run.trial([0.5], TrialState.COMPLETE, 0.5)
    assert [trial.number for trial in Results(tmp_path / "r").top(3)] == [0, 1, 2]


def test_scores_that_are_not_finite_are_no_best(tmp_path: Path) -> None:
    run = RunBuilder(tmp_path / "r")
    run.trial([0.5, math.nan, math.inf], TrialState.PRUNED)
    trial = Results(tmp_path / "r").trials[0]
    assert trial.best == 0.5


def test_a_trial_without_noted_hyperparameters_shows_what_optuna_suggested(tmp_path: Path) -> None:
    run = RunBuilder(tmp_path / "r")
    trial = run.study.ask({"heads": run.begin().distributions["patches_per_side"]})
    assert Results(tmp_path / "r").trials[1].hyperparameters == trial.params


def test_a_run_that_nobody_drives_has_crashed_until_its_lock_is_held(run: Path) -> None:
    results = Results(run)
    assert results.state == "CRASHED"
    assert results.trials[5].state == "RUNNING"
    with RunLock(run):
        assert results.state == "RUNNING"
        assert results.ended is None
    assert results.state == "CRASHED"


@pytest.mark.parametrize("state", ["COMPLETE", "INTERRUPTED", "FAILED"])
def test_a_run_that_ended_says_how_and_why(tmp_path: Path, state: str) -> None:
    run = sample_run(tmp_path / "r")
    run.describe(state=state, why="budget spent: 6 trials", ended=START + 60)
    results = Results(tmp_path / "r")
    assert (results.state, results.why) == (state, "budget spent: 6 trials")
    assert (results.started, results.ended) == (START, START + 60)
    with RunLock(tmp_path / "r"):
        assert results.state == state


def test_refreshing_reads_only_what_was_added(tmp_path: Path) -> None:
    run = sample_run(tmp_path / "r")
    results = Results(tmp_path / "r")
    unchanged, before = results.trials[0], results.lines_read
    results.refresh()
    assert results.lines_read == before
    trial = run.begin()
    trial.report(0.99, 1)
    results.refresh()
    added = results.lines_read - before
    assert added == len((tmp_path / "r" / "study.journal").read_bytes().splitlines()) - before == 1 + 4 + 4 + 1
    assert [trial.number for trial in results.trials] == list(range(7))
    assert results.trials[6].best == 0.99
    assert results.trials[0] is unchanged
    run.end(trial, TrialState.COMPLETE, 0.97)
    results.refresh()
    assert results.best is results.trials[6]


def test_five_thousand_trials_are_read_line_by_line_once(tmp_path: Path) -> None:
    """40,007 lines in Optuna's own form: one written trial, repeated."""
    run = RunBuilder(tmp_path / "one")
    run.trial([0.1, 0.2, 0.3], TrialState.PRUNED)
    lines = [json.loads(line) for line in (tmp_path / "one" / "study.journal").read_bytes().splitlines()]
    head = [line for line in lines if "trial_id" not in line and line["op_code"] != 4]
    one = [line for line in lines if line not in head]
    big = tmp_path / "big"
    big.mkdir()
    (big / "experiment.yaml").write_text(yaml.safe_dump(EXPERIMENT))
    with (big / "study.journal").open("w") as file:
        file.writelines(json.dumps(line) + "\n" for line in head)
        for number in range(5000):
            file.writelines(
                json.dumps(line | ({"trial_id": number} if "trial_id" in line else {})) + "\n" for line in one
            )
    results = Results(big)
    total = len(head) + 5000 * len(one)
    assert results.lines_read == total > 40_000
    assert len(results.trials) == 5000
    with (big / "study.journal").open("a") as file:
        file.write(json.dumps(one[0]) + "\n")
    read: list[bytes] = []
    results._journal._apply = _counting(results._journal._apply, read)  # type: ignore[method-assign]
    results.refresh()
    assert (len(read), results.lines_read, len(results.trials)) == (1, total + 1, 5001)
    results.refresh()
    assert len(read) == 1


def _counting(function: Any, calls: list[Any]) -> Any:
    def count(operation: Any) -> Any:
        calls.append(operation)
        return function(operation)

    return count


def test_a_run_whose_driver_has_not_begun_its_study_has_no_trials(tmp_path: Path) -> None:
    (tmp_path / "experiment.yaml").write_text(yaml.safe_dump(EXPERIMENT))
    results = Results(tmp_path)
    assert results.status() == {
        "run": tmp_path.name,
        "state": "CRASHED",
        "metric": None,
        "confirmation": None,
        "trials": [],
    }
    assert results.best is None
    assert results.to_dataframe().empty
    with RunLock(tmp_path):
        assert results.state == "RUNNING"


def test_the_data_frame_holds_one_row_a_trial_and_a_column_a_hyperparameter(run: Path) -> None:
    results = Results(run)
    frame = results.to_dataframe()
    assert list(frame["number"]) == list(range(6))
    assert list(frame["role"])[:3] == ["paper", "control", "search"]
    assert frame["hyperparameters.temperature"][0] == 4.0
    assert frame.loc[frame["best"].idxmax(), "number"] == 5
    assert "hyperparameters" not in frame


def test_a_trial_cannot_be_changed(run: Path) -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Results(run).trials[0].best = 1.0  # type: ignore[misc]


def test_searched_hyperparameters_are_those_with_a_range_or_choices(run: Path) -> None:
    assert set(Results(run).searched) == {"temperature", "alpha", "patches_per_side"}


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("!!python/object/apply:os.system ['touch pwned']", "not YAML"),
        ("a: [1, 2", "not YAML"),
        ("- 1", "must hold a mapping"),
        ("1: a", "must hold a mapping"),
        ("{[1]: 2}", "not YAML"),
        ("a: 2026-99-99", "not YAML"),
        ("\x00", "not YAML"),
        ("", "must hold a mapping"),
        ("a: " + "[" * 100_000, "deeper than 100"),
        ("- " * 100_000 + "1", "deeper than 100"),
    ],
)
def test_a_hostile_experiment_file_is_a_sentence(tmp_path: Path, content: str, complaint: str) -> None:
    (tmp_path / "experiment.yaml").write_text(content)
    with pytest.raises(RunError, match=complaint) as error:
        Results(tmp_path)
    assert "\n" not in str(error.value)
    assert not (Path.cwd() / "pwned").exists()


def test_a_folder_without_an_experiment_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"experiment\.yaml cannot be read: No such file"):
        Results(tmp_path)


def test_notes_of_a_wrong_kind_are_left_out(tmp_path: Path) -> None:
    run = RunBuilder(tmp_path / "r", experiment=EXPERIMENT | {"space": 5, "search": [], "data": None})
    run.describe(metric=5, mode="upwards", state=["RUNNING"], started="yesterday", gpu_hours="many")
    run.trial([0.5], TrialState.COMPLETE, 0.5, seconds="long")
    trial = run.begin()
    for name, value in {"hyperparameters": [1], "role": 7, "node": {}, "gpu_ids": "0", "epochs": math.nan}.items():
        trial.set_user_attr(name, value)
    results = Results(tmp_path / "r")
    assert (results.metric, results.mode, results.state) == ("5", "max", "CRASHED")
    assert (results.searched, results.started) == ((), None)
    odd = results.trials[1]
    assert (odd.hyperparameters, odd.role, odd.node, odd.gpu_ids, odd.epochs) == (trial.params, "7", "{}", (), 0)
    assert progress(results).elapsed is None


def test_progress_follows_the_limit_that_is_nearest(tmp_path: Path) -> None:
    search = {"trials": 12, "time": 100.0, "gpu_hours": 40}
    run = sample_run(tmp_path / "r")
    (tmp_path / "r" / "experiment.yaml").write_text(yaml.safe_dump(EXPERIMENT | {"search": search}))
    with RunLock(tmp_path / "r"):
        results = Results(tmp_path / "r")
        by_trials = progress(results, now=START + 30)
        assert (by_trials.ended, by_trials.epochs, by_trials.elapsed) == (5, 13, 30)
        assert by_trials.fraction == pytest.approx(5 / 12)
        assert by_trials.left == pytest.approx(30 * 7 / 5)
        by_time = progress(results, now=START + 80)
        assert by_time.fraction == pytest.approx(0.8)
        assert by_time.left == pytest.approx(20)
        run.describe(gpu_hours=36)
        results.refresh()
        assert progress(results, now=START + 80).fraction == pytest.approx(0.9)


def test_the_time_between_two_drivers_is_not_spent(tmp_path: Path) -> None:
    run = sample_run(tmp_path / "r")
    (tmp_path / "r" / "experiment.yaml").write_text(yaml.safe_dump(EXPERIMENT | {"search": {"time": 100.0}}))
    run.describe(resumed=START + 50_000, seconds_before=40.0)
    with RunLock(tmp_path / "r"):
        found = progress(Results(tmp_path / "r"), now=START + 50_030)
    assert (found.elapsed, found.fraction, found.left) == (70.0, pytest.approx(0.7), pytest.approx(30))


def test_a_run_that_ended_has_nothing_left(tmp_path: Path) -> None:
    run = sample_run(tmp_path / "r")
    run.describe(state="INTERRUPTED", ended=START + 40)
    where = progress(Results(tmp_path / "r"))
    assert (where.elapsed, where.left) == (40, None)


def test_reading_a_run_imports_neither_torch_nor_ray_nor_optuna_nor_pandas(run: Path) -> None:
    code = (
        "import sys; from kdsearch.results import Results, find_run, list_runs, write_export\n"
        f"assert Results({str(run)!r}).best.number == 2\n"
        "print(sorted({'torch', 'ray', 'optuna', 'pandas', 'numpy', 'safetensors', 'tensorboard'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
