"""Searches on a real local Ray with a stub objective that needs no torch."""

from __future__ import annotations

import importlib.util
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import optuna
import pytest
import ray
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

from kdsearch.errors import InvalidSetting, RunError, SearchFailed
from kdsearch.experiment import Experiment
from kdsearch.results import Results
from kdsearch.tuning import resume, search
from kdsearch.tuning.pool import ENVIRONMENT

if TYPE_CHECKING:
    from collections.abc import Iterator

HERE = Path(__file__).parent


def load_stub() -> Any:
    """The stub as a module that Ray ships to its workers by value: they cannot import the tests."""
    spec = importlib.util.spec_from_file_location("stub", HERE / "stub.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["stub"] = module
    spec.loader.exec_module(module)
    ray.cloudpickle.register_pickle_by_value(module)
    return module


stub = load_stub()


@pytest.fixture(scope="module", autouse=True)
def local_ray() -> Iterator[None]:
    """One Ray with two CPUs and one logical GPU for all searches of this file."""
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    ray.init(address="local", num_cpus=2, num_gpus=1, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


def experiment(**changes: Any) -> Experiment:
    sections: dict[str, Any] = {
        "method": "kd",
        "teacher": "resnet8",
        "name": "run",
        "space": {"temperature": {"low": 1, "high": 20, "log": True}, "alpha": {"low": 0.1, "high": 0.9}},
        "training": {"epochs": 9, "checkpoint_seconds": 0},
        "search": {"trials": 12, "grace_period": 1},
        "resources": {"gpus_per_trial": 0},
    }
    return Experiment(**(sections | changes))


def stored(storage: Path) -> list[optuna.trial.FrozenTrial]:
    backend = JournalFileBackend(str(storage / "run" / "study.journal"))
    return optuna.load_study(study_name="run", storage=JournalStorage(backend)).trials


def test_the_study_holds_one_record_a_trial_pruned_ones_with_every_value(tmp_path: Path) -> None:
    results = search(experiment(), storage=tmp_path, objectives=stub.StubObjectives())
    trials = stored(tmp_path)
    assert [trial.number for trial in trials] == list(range(12))
    assert {trial.state for trial in trials} == {TrialState.COMPLETE, TrialState.PRUNED}
    for trial in trials:
        epochs = sorted(trial.intermediate_values)
        assert epochs == list(range(1, len(epochs) + 1))
        assert (trial.state == TrialState.COMPLETE) == (len(epochs) == 9)
        final = stub.quality(trial.user_attrs["hyperparameters"])
        assert list(trial.intermediate_values.values()) == pytest.approx([final * epoch / 9 for epoch in epochs])
    assert results.state == "COMPLETE"
    assert len(results.trials) == 12
    assert results.best is not None
    assert results.best.state == "COMPLETE"


def test_with_one_slot_the_same_seed_gives_the_same_sequence_of_settings(tmp_path: Path) -> None:
    sequences = []
    for number, seed in enumerate((3, 3, 4)):
        made = experiment(seed=seed, resources={"gpus_per_trial": 0, "max_concurrent": 1}, search={"trials": 14})
        results = search(made, storage=tmp_path / str(number), objectives=stub.StubObjectives())
        sequences.append([(trial.hyperparameters, trial.state, trial.best) for trial in results.trials])
    assert sequences[0] == sequences[1]
    assert sequences[0] != sequences[2]


def test_diverged_and_raising_trials_are_failed_with_their_reason_and_the_search_goes_on(tmp_path: Path) -> None:
    objectives = stub.StubObjectives(diverge_above=6.0, raise_above=12.0)
    made = experiment(search={"trials": 24, "sampler": "random", "scheduler": "none"})
    results = search(made, storage=tmp_path, objectives=objectives)
    for trial, kept in zip(results.trials, stored(tmp_path), strict=True):
        temperature = trial.hyperparameters["temperature"]
        if temperature > 12:
            assert (trial.state, kept.state) == ("FAILED", TrialState.FAIL)
            assert trial.error == f"ValueError: temperature {temperature:.2f} is too hot"
        elif temperature > 6:
            assert (trial.state, kept.state) == ("FAILED", TrialState.PRUNED)
            assert trial.error is not None
            assert "not finite at step 17 (cross_entropy = nan, kl = 3)" in trial.error
        else:
            assert trial.state == "COMPLETE"
    assert len(Counter(trial.state for trial in results.trials)) == 2


def test_when_every_trial_fails_the_search_says_why(tmp_path: Path) -> None:
    with pytest.raises(SearchFailed, match=r"all 3 trials failed:\n  \d × ValueError: temperature"):
        search(experiment(search={"trials": 3}), storage=tmp_path, objectives=stub.StubObjectives(raise_above=0.0))
    assert {trial.state for trial in stored(tmp_path)} == {TrialState.FAIL}


def test_a_search_that_cannot_work_stops_and_what_failed_runs_again_once_it_is_mended(tmp_path: Path) -> None:
    mended = tmp_path / "mended"
    objectives = stub.StubObjectives(raise_above=0.0, heal_with=str(mended))
    made = experiment(search={"trials": 10, "scheduler": "none"}, resources={"gpus_per_trial": 0, "max_concurrent": 1})
    with pytest.raises(SearchFailed) as failure:
        search(made, storage=tmp_path, objectives=objectives)
    sentence = r"the first 4 trials all failed for one reason: ValueError: temperature 4.00 is too hot"
    assert re.match(sentence + r"\nmend it, then  kdsearch resume run --retry-failed$", str(failure.value))
    assert (Results(tmp_path / "run").state, Results(tmp_path / "run").why) == ("FAILED", sentence)
    assert [trial.state for trial in stored(tmp_path)] == [TrialState.FAIL] * 4
    mended.touch()
    results = resume(tmp_path / "run", retry_failed=True, objectives=objectives)
    whole = search(made, storage=tmp_path / "whole", objectives=stub.StubObjectives())
    assert results.state == "COMPLETE"
    assert [(t.number, t.hyperparameters, t.state, t.best) for t in results.trials][:4] == [
        (t.number, t.hyperparameters, t.state, t.best) for t in whole.trials
    ][:4]
    assert [trial.state for trial in results.trials] == ["COMPLETE"] * 10


def test_a_trial_that_runs_out_of_gpu_memory_runs_again_with_more_and_later_ones_begin_with_it(tmp_path: Path) -> None:
    """Four trials share the one logical GPU, until the first asks for more than a quarter of it."""
    made = experiment(
        resources={"gpus_per_trial": 0.25, "cpus_per_trial": 0.5}, search={"trials": 8, "scheduler": "none"}
    )
    said: list[str] = []
    objectives = stub.StubObjectives(gpu_share=0.5, seconds=0.05)
    results = search(made, storage=tmp_path, objectives=objectives, announce=said.append)
    assert [trial.state for trial in results.trials] == ["COMPLETE"] * 8
    told = [sentence for sentence in said if "ran out of GPU memory" in sentence]
    assert 1 <= len(told) <= 4
    assert all("with 0.25 GPUs: it runs again with 0.5, and so do all that follow" in sentence for sentence in told)
    assert [trial.user_attrs["gpus"] for trial in stored(tmp_path)] == [0.5] * 8
    assert results.experiment["resources"]["gpus_per_trial"] == 0.25
    assert results.attribute("gpus_per_trial") == 0.5
    assert most_at_once(results.trials[4:]) <= 2  # where four fitted before


def test_a_trial_that_breaks_the_gpu_of_its_process_does_not_break_the_next(tmp_path: Path) -> None:
    made = experiment(
        search={"trials": 6, "scheduler": "none", "sampler": "random"},
        resources={"gpus_per_trial": 0, "max_concurrent": 1},
    )
    results = search(made, storage=tmp_path, objectives=stub.StubObjectives(break_gpu_above=5.0))
    for trial in results.trials:
        breaks = trial.hyperparameters["temperature"] > 5
        assert trial.state == ("FAILED" if breaks else "COMPLETE")
        assert trial.error == ("RuntimeError: CUDA error: device-side assert triggered" if breaks else None)
    assert {trial.state for trial in results.trials} == {"FAILED", "COMPLETE"}


def test_a_trial_whose_process_dies_goes_on_from_its_checkpoint(tmp_path: Path) -> None:
    marker = tmp_path / "died"
    made = experiment(search={"trials": 4, "scheduler": "none"})
    results = search(made, storage=tmp_path, objectives=stub.StubObjectives(die_once_in=str(marker)))
    assert marker.exists()
    assert {trial.state for trial in results.trials} == {"COMPLETE"}
    for trial in stored(tmp_path):
        assert sorted(trial.intermediate_values) == list(range(1, 10))


def test_fractions_of_a_gpu_give_the_concurrency_they_promise(tmp_path: Path) -> None:
    made = experiment(
        resources={"gpus_per_trial": 0.5, "cpus_per_trial": 0.5}, search={"trials": 6, "scheduler": "none"}
    )
    results = search(made, storage=tmp_path, objectives=stub.StubObjectives(seconds=0.3))
    assert most_at_once(results.trials) == 2
    assert all(trial.gpu_ids == ("0",) for trial in results.trials)


def most_at_once(trials: Any) -> int:
    """The largest number of trials whose curves overlap in time."""
    spans = [(trial.curve[0].time, trial.curve[-1].time) for trial in trials]
    return max(sum(start <= moment <= end for start, end in spans) for moment, _ in spans)


@pytest.mark.parametrize(
    ("resources", "sentence"),
    [
        ({"gpus_per_trial": 2}, r"resources.gpus_per_trial = 2.*: no node of the pool has more than 1 GPUs"),
        ({"gpus_per_trial": 0, "cpus_per_trial": 64}, r"resources.cpus_per_trial = 64.*no node of the pool has more"),
    ],
)
def test_what_no_node_has_is_refused_and_nothing_is_written(
    resources: dict[str, float], sentence: str, tmp_path: Path
) -> None:
    with pytest.raises(InvalidSetting, match=sentence):
        search(experiment(resources=resources), storage=tmp_path / "runs", objectives=stub.StubObjectives())
    assert not (tmp_path / "runs").exists()


def test_a_run_whose_name_exists_is_refused(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    with pytest.raises(RunError, match="'run' exists"):
        search(experiment(), storage=tmp_path, objectives=stub.StubObjectives())


def test_the_budget_of_time_ends_a_search(tmp_path: Path) -> None:
    made = experiment(search={"trials": 500, "time": 1.5, "scheduler": "none"})
    results = search(made, storage=tmp_path, objectives=stub.StubObjectives(seconds=0.05))
    assert results.state == "COMPLETE"
    assert results.why == "the budget of 1.5 s is spent"
    assert 2 <= len(results.trials) < 500
    assert not [trial for trial in results.trials if trial.state == "RUNNING"]


def test_ctrl_c_ends_cleanly_and_a_resumed_run_equals_one_that_was_not_interrupted(tmp_path: Path) -> None:
    one_slot = {"gpus_per_trial": 0, "max_concurrent": 1}
    made = experiment(resources=one_slot)
    whole = search(made, storage=tmp_path / "whole", objectives=stub.StubObjectives())
    slow = stub.StubObjectives(seconds=0.05)
    timer = threading.Timer(2.5, lambda: os.kill(os.getpid(), signal.SIGINT))
    timer.start()
    results = search(made, storage=tmp_path / "parts", objectives=slow)
    assert results.state == "INTERRUPTED"
    assert 0 < len(results.trials) < 12
    resumed = resume(tmp_path / "parts" / "run", objectives=stub.StubObjectives())
    assert resumed.state == "COMPLETE"
    assert [(t.hyperparameters, t.state, t.best, t.epochs) for t in resumed.trials] == [
        (t.hyperparameters, t.state, t.best, t.epochs) for t in whole.trials
    ]


def test_trials_are_added_to_a_run_that_has_ended(tmp_path: Path) -> None:
    one_slot = {"gpus_per_trial": 0, "max_concurrent": 1}
    whole = search(experiment(resources=one_slot), storage=tmp_path / "whole", objectives=stub.StubObjectives())
    few = experiment(resources=one_slot, search={"trials": 7, "grace_period": 1})
    search(few, storage=tmp_path / "parts", objectives=stub.StubObjectives())
    more = resume(tmp_path / "parts" / "run", more_trials=5, objectives=stub.StubObjectives())
    assert more.experiment["search"]["trials"] == 12
    assert [(t.hyperparameters, t.state, t.best) for t in more.trials] == [
        (t.hyperparameters, t.state, t.best) for t in whole.trials
    ]


def test_a_killed_driver_leaves_a_run_that_is_resumed_from_its_folder(tmp_path: Path) -> None:
    sections = experiment(resources={"gpus_per_trial": 0, "max_concurrent": 1}).model_dump(mode="json")
    script = tmp_path / "drive.py"
    script.write_text(
        f"import sys; sys.path.insert(0, {str(HERE)!r})\n"
        "import stub, ray\n"
        "ray.cloudpickle.register_pickle_by_value(stub)\n"
        "from kdsearch.experiment import Experiment\n"
        "from kdsearch.tuning import search\n"
        f"made = Experiment(**{sections!r})\n"
        f"search(made, storage={str(tmp_path)!r}, objectives=stub.StubObjectives(seconds=0.1))\n"
    )
    driver = subprocess.Popen([sys.executable, str(script)], start_new_session=True)
    journal = tmp_path / "run" / "study.journal"
    deadline = time.monotonic() + 90
    while not (journal.exists() and journal.read_text().count("intermediate_value") >= 14):
        assert time.monotonic() < deadline, "the driver never got to its second trial"
        time.sleep(0.05)
    os.killpg(driver.pid, signal.SIGKILL)
    driver.wait()
    resumed = resume(tmp_path / "run", objectives=stub.StubObjectives())
    whole = search(
        experiment(resources={"gpus_per_trial": 0, "max_concurrent": 1}),
        storage=tmp_path / "whole",
        objectives=stub.StubObjectives(),
    )
    assert resumed.state == "COMPLETE"
    assert [(t.hyperparameters, t.state, t.best, t.epochs) for t in resumed.trials] == [
        (t.hyperparameters, t.state, t.best, t.epochs) for t in whole.trials
    ]


@pytest.mark.slow
def test_a_trial_whose_process_always_dies_is_failed_and_the_search_goes_on(tmp_path: Path) -> None:
    made = experiment(
        search={"trials": 4, "scheduler": "none"},
        resources={"gpus_per_trial": 0, "max_concurrent": 1, "max_failures": 1},
    )
    results = search(made, storage=tmp_path, objectives=stub.StubObjectives(die_above=3.9, epochs=9))
    for trial in results.trials:
        dies = trial.hyperparameters["temperature"] > 3.9
        assert trial.state == ("FAILED" if dies else "COMPLETE")
        assert trial.error == ("its process died 2 times (resources.max_failures = 1)" if dies else None)
    assert {trial.state for trial in results.trials} == {"FAILED", "COMPLETE"}
