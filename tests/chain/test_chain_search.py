"""Chains on a real local Ray: three generations on digits, interrupted and not; given weights; the command line."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from kdsearch.chain import Chain, Step
from kdsearch.errors import RunError, UserError
from kdsearch.results import Results, RunLock
from kdsearch.tuning.chain import quietly, resume_chain, run_chain
from kdsearch.tuning.series import Quiet
from tests.conftest import ONE_CPU, Cli
from tests.interrupting import CtrlC
from tests.local_ray import started
from tests.places import told_places

if TYPE_CHECKING:
    from kdsearch.experiment import Experiment

# Three generations and two controls, twice: on a machine that is busy that takes minutes.
pytestmark = pytest.mark.timeout(900)

# One trial at a time on one thread: the same seed gives the same figures, bit by bit.
CHAIN: dict[str, Any] = {
    "name": "mine",
    "seed": 1,
    "data": {"name": "digits", "label_fraction": 0.1},
    "training": {"epochs": 2},
    "search": {"trials": 3, "grace_period": 1},
    "resources": {"gpus_per_trial": 0, "max_concurrent": 1},
    "generations": [
        {"student": "resnet14", "training": {"epochs": 3}},
        {"student": "resnet8"},
        {"student": {"name": "resnet8", "arguments": {"width": 0.5}}},
    ],
}
NAMES = ["1-resnet14", "2-resnet8", "3-resnet8", "scratch", "direct"]
TIMES = ("latency", "seconds")


@pytest.fixture(scope="module")
def local_ray() -> Iterator[None]:
    """One Ray for the chains that run in this process."""
    with started(cpus=1):
        yield


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, local_ray: None) -> Path:
    """A chain that nobody interrupted."""
    storage = tmp_path_factory.mktemp("whole")
    assert run_chain(Chain(**CHAIN), storage=storage)["state"] == "COMPLETE"
    return storage / "mine"


def table(folder: Path) -> Any:
    """The chain's document without what a clock says."""
    document = json.loads((folder / "chain.json").read_text())
    rows = [{key: value for key, value in row.items() if key not in TIMES} for row in document["rows"]]
    return {**document, "rows": rows}


class CtrlCIn(CtrlC):
    """One who presses it after so many epochs of one generation; 0: before it."""

    def __init__(self, generation: str, epochs: int) -> None:
        super().__init__(epochs)
        self.generation = generation
        self.headings: list[str] = []

    @contextlib.contextmanager
    def view(self, step: Step, experiment: Experiment, earlier: Results | None) -> Iterator[Quiet]:
        self.headings.append(step.heading)
        if step.name == self.generation and self.epochs == 0:
            raise KeyboardInterrupt
        yield self if step.name == self.generation else Quiet()


@pytest.mark.slow
def test_a_chain_stopped_inside_and_between_generations_ends_with_the_same_table(whole: Path, tmp_path: Path) -> None:
    inside = CtrlCIn("2-resnet8", epochs=3)
    document = run_chain(Chain(**CHAIN), storage=tmp_path, view=inside.view)
    assert document["state"] == "INTERRUPTED"
    assert [row["state"] for row in document["rows"]] == ["COMPLETE", "INTERRUPTED", "PENDING", "PENDING", "PENDING"]
    assert inside.headings == [
        "generation 1 of 3: resnet14 (ce)",
        "generation 2 of 3: resnet8 learns from resnet14",
    ]
    first = (tmp_path / "mine" / "1-resnet14" / "study.journal").read_bytes()

    between = CtrlCIn("scratch", epochs=0)
    with pytest.raises(KeyboardInterrupt):
        run_chain(Chain(**CHAIN), storage=tmp_path, view=between.view)
    assert between.headings[0] == "generation 2 of 3: resnet8 learns from resnet14"
    # As a search leaves it that is killed before its first trial.
    (tmp_path / "mine" / "scratch").mkdir()
    (tmp_path / "mine" / "scratch" / "experiment.yaml").write_text("method: kd\n")

    assert resume_chain(tmp_path / "mine")["state"] == "COMPLETE"
    assert (tmp_path / "mine" / "1-resnet14" / "study.journal").read_bytes() == first
    assert table(tmp_path / "mine") == table(whole)
    for name in NAMES:
        trials = [
            [(t.hyperparameters, t.state, t.best, t.epochs) for t in Results(folder / name).trials]
            for folder in (tmp_path / "mine", whole)
        ]
        assert trials[0] == trials[1]


@pytest.mark.slow
def test_a_chain_that_is_done_is_left_alone(whole: Path) -> None:
    before = {path: path.read_bytes() for path in whole.rglob("*") if path.is_file()}

    def view(step: Step, experiment: Experiment, earlier: Results | None) -> Any:
        raise AssertionError(f"{step.name} is searched again")

    run_chain(Chain(**CHAIN), storage=whole.parent, view=view)
    after = {path: path.read_bytes() for path in whole.rglob("*") if path.is_file()}
    assert after.keys() == before.keys()
    assert [path for path in after if after[path] != before[path] and path.name != "run.lock"] == []


@pytest.mark.slow
def test_a_chain_that_was_begun_otherwise_is_refused_by_the_key_that_differs(whole: Path) -> None:
    changed = {**CHAIN, "search": {"trials": 4, "grace_period": 1}}
    with pytest.raises(RunError, match=r"generations.0.search.trials = 4: chain 'mine' was begun with 3"):
        run_chain(Chain(**changed), storage=whole.parent)
    with RunLock(whole), pytest.raises(RunError, match="run 'mine' is in use by process"):
        run_chain(Chain(**CHAIN), storage=whole.parent)


@pytest.mark.slow
def test_teachers_are_the_exports_of_the_generation_before(whole: Path) -> None:
    teachers = {name: Results(whole / name).experiment["teacher"] for name in NAMES}
    assert teachers["1-resnet14"] is None
    for name, teacher in (("2-resnet8", "1-resnet14"), ("3-resnet8", "2-resnet8"), ("direct", "1-resnet14")):
        assert teachers[name]["weights"] == str((whole / teacher / "best").resolve())
    assert all(trial.hyperparameters["alpha"] == 0 for trial in Results(whole / "scratch").trials)
    assert len(Results(whole / "scratch").trials) == len(Results(whole / "3-resnet8").trials) == 3


@pytest.mark.slow
def test_costs_are_those_of_the_exported_students(whole: Path) -> None:
    rows = {row["name"]: row for row in json.loads((whole / "chain.json").read_text())["rows"]}
    for name, row in rows.items():
        facts = json.loads((whole / name / "best" / "metrics.json").read_text())
        assert row["parameters"] == facts["student"]["parameters"]
        assert row["value"] == facts["value"]
        assert row["compression"] == rows["1-resnet14"]["parameters"] / row["parameters"]
        assert 0 < row["latency"]["seconds"] < 1
        assert (row["latency"]["threads"], row["latency"]["device"], row["latency"]["batch"]) == (1, "cpu", 1)
    assert rows["3-resnet8"]["latency"] == rows["scratch"]["latency"] == rows["direct"]["latency"]  # one network
    assert rows["3-resnet8"]["latency"] != rows["2-resnet8"]["latency"]
    # By hand for 1×8×8 images: 3×3 convolutions at 8×8, 4×4 and 2×2 positions, shortcuts, the classifier.
    at_8 = 64 * 9 * (1 * 8 + 2 * 8 * 8)
    at_4 = 16 * (9 * (8 * 16 + 16 * 16) + 8 * 16)
    at_2 = 4 * (9 * (16 * 32 + 32 * 32) + 16 * 32)
    assert rows["3-resnet8"]["multiply_adds"] == at_8 + at_4 + at_2 + 32 * 10


@pytest.mark.slow
def test_any_generation_is_exported_and_reproduces_its_metric(cli: Cli, whole: Path, tmp_path: Path) -> None:
    for name in ("2-resnet8", "scratch"):
        exported = cli("export", f"mine/{name}", "--to", str(tmp_path / name), "--json", cwd=whole.parent.parent,
                       env={"KDSEARCH_STORAGE": str(whole.parent)})  # fmt: skip
        assert exported.returncode == 0, exported.stderr
        said = json.loads(exported.stdout)
        assert said["search"]["run"] == f"mine/{name}"
        again = json.loads(cli("evaluate", str(tmp_path / name), "--json", cwd=tmp_path).stdout)
        assert again["metrics"]["accuracy"] == said["value"]


@pytest.mark.slow
def test_given_weights_are_measured_on_the_chains_data_and_teach(whole: Path, tmp_path: Path) -> None:
    given = whole / "1-resnet14" / "best"
    generations = [{"weights": str(given)}, {"student": "resnet8", "training": {"epochs": 1}, "search": {"trials": 2}}]
    document = run_chain(Chain(**{**CHAIN, "generations": generations}), storage=tmp_path)
    assert document["state"] == "COMPLETE"
    first, second, scratch = document["rows"]
    assert first["state"] == "GIVEN"
    assert first["value"] == json.loads((given / "metrics.json").read_text())["value"]
    assert Results(tmp_path / "mine" / "2-resnet8").experiment["teacher"]["weights"] == str(given.resolve())
    assert second["compression"] == first["parameters"] / second["parameters"]
    assert document["gain_over_scratch"] == pytest.approx(second["value"] - scratch["value"])
    assert document["gain_over_direct"] is None


@pytest.mark.slow
def test_what_no_generation_can_train_is_refused_before_the_first_and_nothing_is_written(
    local_ray: None, tmp_path: Path
) -> None:
    last = {"student": {"name": "resnet8", "arguments": {"depth": 3}}}
    with pytest.raises(UserError, match=r"unknown argument of resnet8 'depth'"):
        run_chain(Chain(**{**CHAIN, "generations": [*CHAIN["generations"][:2], last]}), storage=tmp_path / "runs")
    with pytest.raises(UserError, match=r"resources.cpus_per_trial = 64"):
        run_chain(Chain(**{**CHAIN, "resources": {"cpus_per_trial": 64}}), storage=tmp_path / "runs", view=quietly)
    assert not list(tmp_path.rglob("*.yaml"))


@pytest.mark.slow
def test_ctrl_c_prints_the_command_that_goes_on_and_that_command_does(cli: Cli, tmp_path: Path) -> None:
    two = [{"student": "resnet8"}, {"student": {"name": "resnet8", "arguments": {"width": 0.25}}}]
    # So that a generation is still searched when the signal comes.
    longer = {"data": {"name": "digits", "label_fraction": 0.25}, "training": {"epochs": 6}}
    (tmp_path / "small.yaml").write_text(yaml.safe_dump({**CHAIN, **longer, "name": None, "generations": two}))
    command = [str(Path(sys.executable).with_name("kdsearch")), "chain", "small.yaml"]
    process = subprocess.Popen(command, cwd=tmp_path, env=os.environ | ONE_CPU, stdout=subprocess.PIPE, text=True)
    journal = tmp_path / "runs" / "small" / "2-resnet8" / "study.journal"
    deadline = time.monotonic() + 400
    while not (journal.exists() and "intermediate_value" in journal.read_text()):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGINT)
    said, _ = process.communicate(timeout=120)
    assert process.returncode == 0
    assert "generation 2 of 2: resnet8 learns from resnet8" in said
    (line,) = [line for line in said.splitlines() if "kdsearch resume" in line]
    assert line.endswith("kdsearch resume small")
    resumed = cli(*line.split("kdsearch ", 1)[1].split(), cwd=tmp_path)
    assert resumed.returncode == 0, resumed.stderr
    assert "chain small  COMPLETE" in resumed.stdout
    assert "generation 1 of 2" not in resumed.stdout
    listed = json.loads(cli("ls", "--json", cwd=tmp_path).stdout)["runs"]
    assert [run["run"] for run in listed] == ["small/1-resnet8", "small/2-resnet8", "small/scratch"]
    assert (tmp_path / "runs" / "small" / "chain.png").is_file()


@pytest.mark.slow
def test_the_table_of_a_chain_tells_no_places(whole: Path) -> None:
    files = [whole / name for name in ("README.md", "chain.json", "chain.png")]
    files += [file for name in NAMES for file in (whole / name / "best").iterdir()]
    assert all(file.is_file() for file in files)
    assert told_places(files, whole.parent) == []
