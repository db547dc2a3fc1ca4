"""Searches that confirm what they found, on a real local Ray: within their budget, ended anywhere and gone on with."""

from __future__ import annotations

import json
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from kdsearch.cli import main
from kdsearch.cli.confirm import Display
from kdsearch.errors import InvalidSetting
from kdsearch.experiment import Experiment
from kdsearch.results import Results, RunLock
from kdsearch.results.confirm_log import TRAINING, Done, Log
from kdsearch.results.confirm_state import ASKED, CONFIRMED, FOLDER, INTERRUPTED, RUNNING, confirmation_state
from kdsearch.results.confirmation import read_confirmation
from kdsearch.results.progress import budget_in_words, progress
from kdsearch.tuning import resume, search
from kdsearch.tuning.confirm import confirm
from tests.interrupting import CtrlC, CtrlCLater
from tests.local_ray import started

# 1437 images of digits, a fifth of them validation; of 15 % of the labels two batches of 64, each looked at twice.
EPOCH, EPOCHS = 2 * 64 * 2, 2
TRAINING_IMAGES = EPOCH * EPOCHS
KEPT = (2 * 2 + 3 * 2) * TRAINING_IMAGES
"""Two settings on two seeds decide; winner, paper and control on two others are reported."""
BUDGET = KEPT + 4 * TRAINING_IMAGES


def experiment(**changes: Any) -> Experiment:
    search: dict[str, Any] = {
        "scheduler": "none",
        "grace_period": 1,
        "images": BUDGET,
        "confirm": {"top": 2, "seeds": 2},
    }
    sections: dict[str, Any] = {
        "method": "ips",
        "name": "run",
        "data": {"name": "digits", "label_fraction": 0.15},
        "student": {"name": "resnet8", "arguments": {"width": 0.25}},
        "space": {"alpha": {"low": 0.3, "high": 3.0}, "learning_rate": {"low": 0.02, "high": 0.1, "log": True}},
        "training": {"epochs": EPOCHS},
        "search": search | changes.pop("search", {}),
        "resources": {"gpus_per_trial": 0, "max_concurrent": 1},
    }
    return Experiment(**(sections | changes))


@pytest.fixture(scope="module", autouse=True)
def local_ray() -> Iterator[None]:
    with started(cpus=1):
        yield


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nobody interrupted; tests work on copies."""
    storage = tmp_path_factory.mktemp("whole")
    search(experiment(), storage=storage)
    return storage / "run"


@pytest.fixture
def copy(whole: Path, tmp_path: Path) -> Path:
    shutil.copytree(whole, tmp_path / "runs" / "run")
    return tmp_path / "runs" / "run"


@pytest.fixture
def typed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Callable[..., Any]:
    """`typed("status", …)` runs the command in this process, in a folder of its own: output, errors, exit code."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "160")
    monkeypatch.delenv("KDSEARCH_STORAGE", raising=False)

    def run(*arguments: str) -> tuple[str, str, Any]:
        monkeypatch.setattr(sys, "argv", ["kdsearch", *arguments])
        code: Any = 0
        try:
            main()
        except SystemExit as ended:
            code = ended.code or 0
        said = capsys.readouterr()
        return said.out, said.err, code

    return run


def state_of(folder: Path) -> dict[str, Any]:
    found = confirmation_state(Results(folder))
    assert found is not None
    return found


def timeless(value: Any) -> Any:
    """A document without what a clock says."""
    if isinstance(value, dict):
        return {name: timeless(entry) for name, entry in value.items() if name not in ("seconds", "time")}
    return [timeless(entry) for entry in value] if isinstance(value, list) else value


def test_search_and_confirmation_together_stay_within_the_budget(whole: Path) -> None:
    results, log = Results(whole), Log(whole / FOLDER)
    searched = sum(trial.images or 0 for trial in results.trials)
    lines = [json.loads(line) for line in log.path.read_text().splitlines()]
    confirmed = sum(line["what"] == TRAINING for line in lines) * TRAINING_IMAGES
    assert searched == BUDGET - KEPT
    assert 0 < confirmed <= KEPT
    assert results.why == f"the budget of {BUDGET - KEPT:,} images is spent; the rest is for the confirmation"
    stored = yaml.safe_load((whole / "experiment.yaml").read_text())["search"]
    assert (stored["images"], stored["confirm"]) == (BUDGET, {"top": 2, "seeds": 2})
    assert budget_in_words(progress(results).budget) == (
        f"32 trials or {BUDGET - KEPT:,} images, beside {KEPT:,} images for the confirmation"
    )
    assert progress(results).fraction == 1


def test_the_state_holds_what_the_confirmation_has_found(whole: Path) -> None:
    document, found = read_confirmation(whole), state_of(whole)
    assert document is not None
    winner = document["settings"]["winner"]
    assert found["state"] == CONFIRMED
    assert (found["top"], found["seeds"]) == (2, 2)
    assert (found["trial"], found["search"], found["test"]) == (winner["trial"], winner["search"], winner["test"])
    assert found["gains"] == {part: gained["test"] for part, gained in document["gains"].items()}
    assert Results(whole).status()["confirmation"] == found
    facts = json.loads((whole / "best" / "metrics.json").read_text())
    assert facts["confirmation"]["settings"]["winner"]["test"] == winner["test"]


@pytest.mark.slow
def test_ended_in_the_search_and_in_the_confirmation_it_ends_as_one_that_was_not(whole: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    assert search(experiment(), storage=tmp_path, watchers=[CtrlC(3)]).state == "INTERRUPTED"
    assert confirmation_state(Results(folder)) is None
    assert resume(folder, confirming=CtrlCLater(2).view).state == "COMPLETE"
    assert (state_of(folder)["state"], state_of(folder)["done"]) == (INTERRUPTED, 2)
    trials = [(trial.number, trial.best, trial.images) for trial in Results(folder).trials]
    rest = CtrlCLater()
    resume(folder, confirming=rest.view)
    assert state_of(folder)["state"] == CONFIRMED
    assert [(trial.number, trial.best, trial.images) for trial in Results(folder).trials] == trials
    mine, theirs = read_confirmation(folder), read_confirmation(whole)
    assert timeless(mine) == timeless(theirs)
    assert mine is not None
    trained = sum(done.what == TRAINING for done in rest.done)
    assert trained == len({(line["trial"], line["seed"]) for line in _lines(whole)}) - 2


def _lines(folder: Path) -> list[dict[str, Any]]:
    text = Log(folder / FOLDER).path.read_text()
    return [line for line in map(json.loads, text.splitlines()) if line["what"] == TRAINING]


def test_trials_that_are_added_are_confirmed_too(copy: Path) -> None:
    text = (copy / "experiment.yaml").read_text().replace(f"images: {BUDGET}", "images: null")
    (copy / "experiment.yaml").write_text(text.replace("trials: 32", "trials: 4"))
    before = state_of(copy)
    assert (before["state"], before["trials"]) == (CONFIRMED, 4)
    resume(copy, more_trials=1)
    assert (state_of(copy)["state"], state_of(copy)["trials"]) == (CONFIRMED, 5)


def test_a_budget_that_leaves_too_little_is_refused_with_the_least_and_nothing_is_written(
    typed: Callable[..., Any], tmp_path: Path
) -> None:
    least = KEPT + 2 * TRAINING_IMAGES
    with pytest.raises(InvalidSetting, match=f"give at least {least}img"):
        search(experiment(search={"images": least - 1}), storage=tmp_path / "runs")
    flags = ("--label-fraction", "0.15", "--max-epochs", "2", "--gpus-per-trial", "0", "--confirm-seeds", "2")
    for further in ((), ("--dry-run",)):
        _, err, code = typed("search", "ips", *flags, "--budget", f"{KEPT}img", "--confirm-top", "2", *further)
        assert (code, len(err.strip().splitlines())) == (2, 1), err
        assert f"give at least {least}img, or fewer --confirm-top, --confirm-seeds or --max-epochs" in err
    assert not list(tmp_path.rglob("*"))


def test_a_dry_run_says_how_the_budget_is_split(typed: Callable[..., Any], tmp_path: Path) -> None:
    flags = ("--label-fraction", "0.15", "--max-epochs", "2", "--gpus-per-trial", "0", "--confirm", "--dry-run")
    out, err, code = typed(
        "search", "ips", *flags, "--confirm-seeds", "2", "--confirm-top", "2", "--budget", f"{BUDGET}img,9h"
    )
    assert (code, err) == (0, "")
    assert "confirm     4 trainings decide and 6 report, at most" in out
    assert f"{BUDGET:,} images: {BUDGET - KEPT:,} images for the search, {KEPT:,} images for the confirmation" in out
    assert re.search(r"budget +9 h 00 m: 8 h 5\d m for the search, [\d.]+ (s|m \d\d s) for the confirmation \(est", out)
    assert not list(tmp_path.rglob("*"))


def test_status_best_and_ls_put_the_confirmed_value_beside_the_searchs(copy: Path, typed: Callable[..., Any]) -> None:
    found = state_of(copy)
    mean, low, high = (f"{found['test'][name]:.4f}" for name in ("mean", "low", "high"))
    row = (
        rf"^winner +{found['trial']} +{found['search']:.4f} +{mean} +{low} to {high} +{found['validation']['mean']:.4f}"
    )
    gained = re.escape(f"{found['gains']['control']['mean']:+.4f}")
    for command in ("status", "best"):
        out, _, code = typed(command, "run")
        assert code == 0
        assert "Confirmed on 2 fresh seeds; the gain is the winner's, on test:" in out
        assert re.search(row, out, re.M), out
        assert re.search(rf"^control .* {gained} +", out, re.M), out
        assert json.loads(typed(command, "run", "--json")[0])["confirmation"] == found
    listed, _, _ = typed("ls")
    assert re.search(rf"^run +complete .* {mean} +{low} to {high} +accuracy", listed, re.M), listed
    assert json.loads(typed("ls", "--json")[0])["runs"][0]["confirmation"] == found


def test_while_it_is_confirmed_and_when_that_was_interrupted_they_say_so_and_what_goes_on(
    copy: Path, typed: Callable[..., Any]
) -> None:
    lines = Log(copy / FOLDER).path.read_text().splitlines(keepends=True)
    (copy / "confirm.json").unlink()
    Log(copy / FOLDER).path.write_text("".join(lines[:3]))
    with RunLock(copy):
        assert state_of(copy)["state"] == RUNNING
        out, _, _ = typed("status", "run")
        assert re.search(r"Being confirmed on fresh seeds: 3 of \d+ trainings have ended\.", out)
        assert re.search(r"^run +complete .* running ", typed("ls")[0], re.M)
    assert state_of(copy)["state"] == INTERRUPTED
    for command in ("status", "best"):
        out, _, _ = typed(command, "run")
        assert "Its confirmation is not complete: 3 of " in out
        assert "Go on with:  kdsearch resume run\n" in out
    (copy / FOLDER / ASKED).write_text('{"top": 2, "seeds": 9}')
    assert "Go on with:  kdsearch confirm run --top 2 --seeds 9\n" in typed("status", "run")[0]
    (copy / "confirm.json").write_text("{")
    assert "it cannot be read: give kdsearch confirm again" in typed("status", "run")[0]
    assert json.loads(typed("ls", "--json")[0])["runs"][0]["confirmation"]["state"] == "DAMAGED"


def test_a_run_that_was_not_to_be_confirmed_says_nothing_until_it_is(copy: Path, typed: Callable[..., Any]) -> None:
    content = yaml.safe_load((copy / "experiment.yaml").read_text())
    del content["search"]["confirm"]
    (copy / "experiment.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    shutil.move(copy / FOLDER, copy.parent / FOLDER)
    shutil.move(copy / "confirm.json", copy.parent / "confirm.json")
    assert confirmation_state(Results(copy)) is None
    assert "onfirm" not in typed("status", "run")[0].replace("for the confirmation", "")
    shutil.move(copy.parent / FOLDER, copy / FOLDER)
    confirm(copy, top=2, seeds=2)
    assert state_of(copy)["state"] == CONFIRMED


def test_without_a_budget_the_search_runs_as_always_and_json_is_one_document_with_both(
    typed: Callable[..., Any], tmp_path: Path
) -> None:
    file = tmp_path / "mine.yaml"
    content = experiment(search={"images": None, "trials": 3, "confirm": None}).model_dump(mode="json") | {"name": None}
    file.write_text(yaml.safe_dump(content, sort_keys=False))
    command = ("search", "mine.yaml", "--name", "run", "--confirm-top", "1", "--confirm-seeds", "2", "--json")
    out, err, code = typed(*command)
    assert (code, err) == (0, "")
    document = json.loads(out)
    assert len(Results(tmp_path / "runs" / "run").trials) == 3
    assert document["confirmation"] == read_confirmation(tmp_path / "runs" / "run")
    assert document["search"] == json.loads(typed("best", "run", "--json")[0])
    assert document["search"]["confirmation"]["state"] == CONFIRMED
    out, _, code = typed("resume", "run")
    assert code == 0
    assert "run  confirmed on 2 fresh seeds" in out


@pytest.mark.slow
def test_ctrl_c_in_the_confirmation_prints_the_command_that_goes_on_and_that_command_does(
    typed: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """After the first training; that a terminal's signal comes to that, the tests of `kdsearch confirm` show."""
    content = experiment(search={"images": None, "trials": 2, "confirm": None}).model_dump(mode="json") | {"name": None}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(content, sort_keys=False))

    def pressed(display: Display, done: Done) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as interrupting:
        interrupting.setattr(Display, "ended", pressed)
        said, _, code = typed("search", "mine.yaml", "--name", "run", "--confirm-top", "1", "--confirm-seeds", "2")
    assert code == 0
    (line,) = [line for line in said.splitlines() if "Go on with:" in line]
    assert line.endswith("kdsearch resume run")
    assert len((tmp_path / "runs" / "run" / FOLDER / "results.jsonl").read_text().splitlines()) == 1
    out, err, code = typed("resume", "run", "--json")
    assert code == 0, err
    assert json.loads(out)["confirmation"]["settings"]["winner"]["test"]["count"] == 2
