"""A small comparison on a real local Ray: ended midway and gone on with, with more seeds, and from the command line."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from kdsearch.comparison import Comparison, Entry, compare
from kdsearch.errors import InvalidSetting, RunError
from kdsearch.experiment import Experiment
from kdsearch.results import Results, RunLock
from kdsearch.results.compare import read_comparison
from kdsearch.results.confirmation import WINNER, read_confirmation
from kdsearch.tuning.compare import rehearsed, resume_comparison, run_comparison
from kdsearch.tuning.series import Quiet
from tests.interrupting import CtrlC, CtrlCLater
from tests.local_ray import started

if TYPE_CHECKING:
    from tests.conftest import Cli

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

# 1437 training images of digits, a fifth of them kept for validation; 15 % of the labels: two batches of 64 an epoch.
GIVEN = {
    "data.name": "digits",
    "data.label_fraction": 0.15,
    "training.epochs": 2,
    "search.grace_period": 1,
    "search.scheduler": "none",
    "student.name": "resnet8",
    "student.arguments": {"width": 0.25},
    "resources.gpus_per_trial": 0,
    "resources.max_concurrent": 1,
}
IMAGES = 900


def comparison(seed: int = 0, **changes: Any) -> Comparison:
    def load(method: str, given: Any) -> Experiment:
        return Experiment.load(method, {**GIVEN, "seed": seed, **given})

    sections: dict[str, Any] = {"unit": "images", "amount": IMAGES, "name": "mine", "seeds": 2, "top": 2}
    return compare(["ips"], load, controls=False, **(sections | changes))


@pytest.fixture(scope="module")
def local_ray() -> Iterator[None]:
    with started(cpus=1):
        yield


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, local_ray: None) -> Path:
    """A comparison that nobody interrupted."""
    storage = tmp_path_factory.mktemp("whole")
    assert run_comparison(comparison(), storage=storage)["state"] == "COMPLETE"
    return storage / "mine"


def timeless(value: Any) -> Any:
    """A document without what a clock says."""
    if isinstance(value, dict):
        return {name: timeless(entry) for name, entry in value.items() if name not in ("seconds", "time")}
    return [timeless(entry) for entry in value] if isinstance(value, list) else value


class CtrlCIn(CtrlC):
    """One who presses it after so many epochs of the search of one run."""

    def __init__(self, run: str, epochs: int) -> None:
        super().__init__(epochs)
        self.run = run

    @contextlib.contextmanager
    def view(self, entry: Entry, earlier: Results | None) -> Iterator[Quiet]:
        yield self if entry.run == self.run else Quiet()


def test_every_search_spends_the_same_images_and_reports_on_the_same_fresh_seeds(whole: Path) -> None:
    document = read_comparison(whole)
    ce, ips = document["rows"]
    assert (ce["epochs"], ips["epochs"]) == (2, 1)
    for row in (ce, ips):
        # A search ends with the epoch that spends its budget; one epoch of ce shows 128 images, of ips 256.
        assert IMAGES <= row["images"] < IMAGES + 256
        confirmed = read_confirmation(whole / row["run"])
        assert confirmed is not None
        assert confirmed["seeds"]["reporting"] == [2, 4]
        assert row["test_readings"] == 2 * len(confirmed["settings"])
    assert ips["gains"][WINNER]["differences"] == pytest.approx(
        [mine["test"] - theirs["test"] for mine, theirs in zip(
            ips["settings"][WINNER]["per_seed"], ce["settings"][WINNER]["per_seed"], strict=True
        )]
    )  # fmt: skip
    assert document["costs"] == {"ce": 1.0, "ips": 2.0}
    assert (whole / "compare.png").is_file()
    assert "| ips | searched |" in (whole / "README.md").read_text()


def test_ended_in_a_search_and_in_a_confirmation_it_ends_with_the_same_table(whole: Path, tmp_path: Path) -> None:
    inside = CtrlCIn("ce", epochs=3)
    document = run_comparison(comparison(), storage=tmp_path, view=inside.view)
    assert document["state"] == "INTERRUPTED"
    assert [row["state"] for row in document["rows"]] == ["INTERRUPTED", "PENDING"]
    with pytest.raises(KeyboardInterrupt):
        run_comparison(comparison(), storage=tmp_path, confirming=CtrlCLater(after=3).view)
    assert [row["state"] for row in read_comparison(tmp_path / "mine")["rows"]] == ["SEARCHED", "PENDING"]
    assert resume_comparison(tmp_path / "mine")["state"] == "COMPLETE"
    mine, theirs = (timeless(read_comparison(folder)) for folder in (tmp_path / "mine", whole))
    assert mine == theirs


def test_one_that_is_done_is_left_alone_and_one_begun_otherwise_is_refused(whole: Path) -> None:
    before = {path: path.read_bytes() for path in whole.rglob("*") if path.is_file()}
    again = CtrlCLater()
    run_comparison(comparison(), storage=whole.parent, confirming=again.view)
    assert again.done == []
    assert {path: path.read_bytes() for path in before if path.name != "run.lock"} == {
        path: content for path, content in before.items() if path.name != "run.lock"
    }
    with pytest.raises(RunError, match=r"unit = 'seconds': comparison 'mine' was begun with 'images'"):
        run_comparison(comparison(unit="seconds"), storage=whole.parent)
    with pytest.raises(RunError, match=r"entries.0.experiment.seed = 7: comparison 'mine' was begun with 0"):
        run_comparison(comparison(seed=7), storage=whole.parent)
    with RunLock(whole), pytest.raises(RunError, match="run 'mine' is in use by process"):
        run_comparison(comparison(), storage=whole.parent)


def test_a_budget_that_pays_for_no_two_trainings_is_refused_and_nothing_is_written(
    local_ray: None, tmp_path: Path
) -> None:
    with pytest.raises(InvalidSetting, match=r"--budget = '300img': pays for fewer than 2 trainings.* at least 512img"):
        run_comparison(comparison(amount=300), storage=tmp_path / "runs")
    assert not list(tmp_path.rglob("*"))


def test_seconds_are_measured_and_a_costlier_epoch_gives_fewer(local_ray: None) -> None:
    costs = rehearsed(comparison(unit="seconds", amount=600.0))
    assert costs["ce"] == 1
    assert costs["ips"] > 0


def test_a_dry_run_says_what_would_be_trained_and_writes_nothing(cli: Cli, tmp_path: Path) -> None:
    planned = cli(
        "compare", "ips", "--data", "digits", "--label-fraction", "0.15", "--budget", "600img", "--no-controls",
        "--max-epochs", "1", "--gpus-per-trial", "0", "--name", "small", "--dry-run", cwd=tmp_path,
    )  # fmt: skip
    assert planned.returncode == 0, planned.stderr
    assert "ips: 600 images, trainings of 1 epochs" in planned.stdout
    assert not list(tmp_path.iterdir())


def test_the_command_compares_by_seconds_and_states_of_the_labels_and_answers_as_a_document(
    cli: Cli, tmp_path: Path
) -> None:
    """A budget of seconds of training for each search, at a tenth and at a fifth of the labels."""
    command = (
        "compare", "ips", "--data", "digits", "--label-fraction", "0.1,0.2", "--budget", "4s", "--no-controls",
        "--max-epochs", "1", "--seeds", "2", "--top", "1", "--gpus-per-trial", "0", "--max-concurrent", "1",
        "--set", "student.arguments.width=0.25", "--name", "small", "--json",
    )  # fmt: skip
    done = cli(*command, cwd=tmp_path, timeout=600)
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert json.loads(cli("status", "small", "--json", cwd=tmp_path).stdout) == document
    refused = cli(*command, "--seed", "3", cwd=tmp_path)
    assert refused.returncode == 2
    assert "give the changed comparison another --name" in refused.stderr
    assert (document["state"], document["budget"]) == ("COMPLETE", {"unit": "seconds", "amount": 4.0})
    cells = [(row["name"], row["label_fraction"]) for row in document["rows"]]
    assert cells == [("ce", 0.1), ("ips", 0.1), ("ce", 0.2), ("ips", 0.2)]
    for row in document["rows"]:
        results = Results(tmp_path / "runs" / "small" / row["run"])
        assert results.experiment["data"]["label_fraction"] == row["label_fraction"]
        assert results.why == "the budget of 4 s of training is spent"
        trained = [trial.seconds for trial in results.trials]
        assert sum(trained) >= 4 > sum(trained) - max(trained)  # one at a time: it ends with the trial that spends it
        assert row["seconds"] == pytest.approx(sum(trained))
    for ips, ce in zip(document["rows"][1::2], document["rows"][0::2], strict=True):
        tests = [{seed["seed"]: seed["test"] for seed in row["settings"][WINNER]["per_seed"]} for row in (ips, ce)]
        assert ips["gains"][WINNER]["differences"] == pytest.approx(
            [tests[0][seed] - tests[1][seed] for seed in (2, 4)]
        )
        assert ips["gains"][WINNER]["tests"] == 2
