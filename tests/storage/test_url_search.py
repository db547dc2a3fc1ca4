"""Searches whose storage is at a URL, on a real Ray: what they find, and what befalls them."""

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest
from safetensors.numpy import load_file

from kdsearch.errors import LeaseLost, RunError, StorageError
from kdsearch.experiment import Experiment
from kdsearch.results import Results, export_run, find_run, lease
from kdsearch.results.copies import Home
from kdsearch.results.remote import Remote
from kdsearch.tuning import resume, search, upload
from tests.conftest import ONE_CPU
from tests.faults import harness
from tests.faults.objectives import FaultyObjectives

if TYPE_CHECKING:
    from pathlib import Path

    from tests.storage.conftest import Server

pytestmark = pytest.mark.slow

VALUE = "kdsearch.tuning.record:Record.value"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "SETTLE_SECONDS", 0.1)
    monkeypatch.setattr(lease, "RENEW_SECONDS", 0.2)
    monkeypatch.setattr(upload, "EVERY_SECONDS", 0.2)
    monkeypatch.setattr(upload, "LONGEST_WAIT_SECONDS", 0.5)


@pytest.fixture(scope="module")
def expected(cluster: str, tmp_path_factory: pytest.TempPathFactory) -> list[tuple[Any, ...]]:
    """What a search finds whose storage is a folder."""
    storage = tmp_path_factory.mktemp("whole")
    search(Experiment(**harness.EXPERIMENT), storage=storage, objectives=FaultyObjectives())
    return harness.found(storage / "run")


def elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """From here on this is another machine: it has no working copy of anything."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "elsewhere"))


def expire(run: Remote) -> None:
    """As if its holder had been silent for long."""
    content = json.loads(run.read(lease.FILE) or b"")
    run.write(lease.FILE, json.dumps(content | {"expires": time.time() - 1}).encode())


def test_a_search_at_a_url_finds_what_one_in_a_folder_finds(
    cluster: str, url: str, expected: list[tuple[Any, ...]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = search(Experiment(**harness.EXPERIMENT), storage=url, objectives=FaultyObjectives())
    assert harness.found(results.folder) == expected
    run = Remote.at(url) / "run"
    names = set(run.entries())
    assert {name for name in names if not name.startswith("trials/")} == {
        "best/README.md", "best/hyperparameters.yaml", "best/metrics.json", "best/student.safetensors",
        "events.out.tfevents.0.experiment", "experiment.yaml", "run.lease", "start.json", "study.journal",
    }  # fmt: skip
    winner = f"trials/{expected[0][2]:04d}/best/"
    assert {name for name in names if "/best/" in name} == {winner + "facts.json", winner + "student.safetensors"}
    assert not any(name.endswith(".ckpt") for name in names), "what nobody needs any more is removed"
    texts = [run.read(name) or b"" for name in names]
    assert not any(b"testing-secret" in text for text in texts)
    elsewhere(monkeypatch, tmp_path)
    seen = Results(find_run("run", url))
    assert seen.status() == results.status()
    exported = export_run(find_run("run", url, weights=True), tmp_path / "taken home")
    assert load_file(exported / "student.safetensors")["temperature"].tolist() == expected[0][3]
    with pytest.raises(RunError, match=f"run 'run' exists in {re.escape(str(Remote.at(url)))}"):
        search(Experiment(**harness.EXPERIMENT), storage=url, objectives=FaultyObjectives())


POINTS: dict[str, list[dict[str, Any]]] = {
    "between study and URL, and again while it goes on": [
        {"faults": [(VALUE, "after", 9)]},
        {"faults": [("kdsearch.tuning.ledger:Ledger.restore", "after", 1)]},
        {"faults": [("kdsearch.results.export:_replace", "after", 1)]},
    ],
    "before the last journal is sent, and before what trials left is removed": [
        {"faults": [("kdsearch.tuning.upload:Upload.flush", "before", 1)]},
        {"faults": [("kdsearch.tuning.upload:Upload.discard", "before", 1)]},
    ],
}


@pytest.mark.parametrize("point", POINTS)
def test_a_killed_search_goes_on_on_another_machine_from_the_url_alone(
    point: str,
    cluster: str,
    url: str,
    expected: list[tuple[Any, ...]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for number, plan in enumerate(POINTS[point]):
        if number:
            monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / f"machine-{number}"))
            expire(Remote.at(url) / "run")
        harness.die(url, "resume" if number else "search", address=cluster, **plan)
    elsewhere(monkeypatch, tmp_path)
    with pytest.raises(RunError, match="in use by another process, whose lease runs until"):
        resume(find_run("run", url), objectives=FaultyObjectives())
    expire(Remote.at(url) / "run")
    results = resume(find_run("run", url), objectives=FaultyObjectives())
    assert results.folder.is_relative_to(tmp_path / "elsewhere")
    assert harness.found(results.folder) == expected
    harness.assert_told_once(results.folder)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "third"))
    assert harness.found(find_run("run", url, weights=True)) == expected


def test_a_killed_search_goes_on_on_its_own_machine_at_once_with_what_the_url_never_got(
    cluster: str, url: str, expected: list[tuple[Any, ...]]
) -> None:
    harness.die(url, address=cluster, faults=[(VALUE, "after", 14)])
    results = resume(find_run("run", url), objectives=FaultyObjectives())
    assert harness.found(results.folder) == expected
    harness.assert_told_once(results.folder)


def test_while_it_runs_others_see_it_are_refused_and_a_lost_trial_goes_on_from_what_lies_at_the_url(
    cluster: str, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    marker, run = tmp_path / "held", Remote.at(url) / "run"
    driver = harness.start(url, address=cluster, objectives={"hold_at": str(marker)})
    try:
        deadline = time.time() + 100
        while not marker.is_file() or run.read("study.journal") is None:
            assert time.time() < deadline
            assert driver.poll() is None, driver.communicate()
            time.sleep(0.1)
        elsewhere(monkeypatch, tmp_path)
        while len(Results(find_run("run", url)).trials) < 1:
            assert time.time() < deadline
            time.sleep(0.2)
        assert Results(find_run("run", url)).state == "RUNNING"
        with pytest.raises(RunError, match=r"in use by another process, whose lease runs until \d\d:\d\d:\d\d"):
            resume(find_run("run", url), objectives=FaultyObjectives())
        with pytest.raises(RunError, match="exists in"):
            search(Experiment(**harness.EXPERIMENT), storage=url, objectives=FaultyObjectives())
        # A value that no trial reaches by itself: who reports it took it from the checkpoint at the URL.
        history = json.loads((run.read("trials/0000/last.ckpt") or b"")[32:])
        assert [report["epoch"] for report in history] == [1, 2]
        history[0]["value"] = 5.0
        content = json.dumps(history).encode()
        run.write("trials/0000/last.ckpt", hashlib.sha256(content).digest() + content)
        os.kill(json.loads(marker.read_text())["process"], signal.SIGKILL)
        output = driver.communicate(timeout=200)
        assert driver.returncode == 0, output
    finally:
        if driver.poll() is None:
            driver.kill()
            driver.communicate()
    ended = Results(find_run("run", url))
    assert ended.state == "COMPLETE"
    assert ended.trials[0].best == 5.0


class Follower:
    """Does something once, when a trial begins."""

    def __init__(self, number: int, act: Any) -> None:
        self._number, self._act = number, act

    def trial_started(self, trial: Any) -> None:
        if trial.number == self._number:
            self._number = -1
            self._act()

    def epoch_told(self, trial: Any, report: Any) -> None: ...

    def trial_ended(self, trial: Any, value: float | None) -> None: ...


def test_a_store_that_goes_away_and_comes_back_costs_nothing(
    cluster: str, url: str, server: Server, expected: list[tuple[Any, ...]]
) -> None:
    said: list[str] = []
    waits = threading.Event()

    def announce(sentence: str) -> None:
        said.append(sentence)
        if "tries again" in sentence or "the search goes on here" in sentence:
            waits.set()

    def cut_off() -> None:
        server.go_away()
        threading.Thread(target=lambda: (waits.wait(60), server.come_back())).start()

    results = search(
        Experiment(**harness.EXPERIMENT),
        storage=url,
        objectives=FaultyObjectives(),
        watchers=[Follower(3, cut_off)],
        announce=announce,
    )
    assert waits.is_set()
    assert harness.found(results.folder) == expected
    assert (Remote.at(url) / "run").read("study.journal") == (results.folder / "study.journal").read_bytes()
    assert all("\n" not in sentence for sentence in said)
    assert sum("the search goes on here" in sentence for sentence in said) <= 1


def test_who_loses_the_lease_ends_and_leaves_the_run_to_the_other(
    cluster: str, url: str, tmp_path: Path, expected: list[tuple[Any, ...]]
) -> None:
    run = Remote.at(url) / "run"

    def take_over() -> None:
        run.write(lease.FILE, json.dumps({"owner": "another", "expires": time.time() + 60}).encode())
        deadline = time.time() + 30
        while any(thread.name == "upload" for thread in threading.enumerate()):  # it ends when it finds out
            assert time.time() < deadline
            time.sleep(0.05)

    with pytest.raises(LeaseLost, match="another process took over") as told:
        search(
            Experiment(**harness.EXPERIMENT),
            storage=url,
            objectives=FaultyObjectives(),
            watchers=[Follower(4, take_over)],
        )
    folder = Home(url).driven("run")
    assert str(folder) in str(told.value)
    assert Results(folder).state == "INTERRUPTED"
    expire(run)
    assert harness.found(resume(find_run("run", url), objectives=FaultyObjectives()).folder) == expected


def test_a_storage_that_cannot_be_used_ends_before_anything_is_written(
    server: Server, url: str, tmp_path: Path
) -> None:
    bucket = url.replace("//bucket/", "//bouquet/")
    with pytest.raises(StorageError, match="there is no bucket 'bouquet'"):
        search(Experiment(**harness.EXPERIMENT), storage=bucket, objectives=FaultyObjectives())
    assert not list((tmp_path / "cache").rglob("experiment.yaml"))


@pytest.mark.timeout(600)
def test_the_command_line_searches_at_a_url_and_takes_home_what_it_found(
    environment: None, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the real trainer, a teacher that is trained first, a choice of students, and a confirmation at the end."""

    def kdsearch(*arguments: str, code: int = 0) -> str:
        command = [sys.executable, "-m", "kdsearch", *arguments]
        environment = os.environ | ONE_CPU
        ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, cwd=tmp_path)
        assert ended.returncode == code, ended.stdout + ended.stderr
        return ended.stdout + ended.stderr

    small = ("--set", "data.label_fraction=0.2", "--set", "teacher.epochs=1", "--max-epochs", "1")
    small += ("--student", "resnet8,resnet14", "--confirm-top", "1", "--confirm-seeds", "2")
    said = kdsearch("search", "kd", "--trials", "4", *small, "--name", "mine", "--storage", url)
    assert f"mine --storage '{url}'" in said
    assert "mine  confirmed on 2 fresh seeds" in said
    status = json.loads(kdsearch("status", "mine", "--json", "--storage", url))
    assert [trial["state"] for trial in status["trials"]] == ["COMPLETE"] * 4
    found = json.loads(kdsearch("best", "mine", "--json", "--storage", url))
    assert [row["student"] for row in found["students"]] == ["resnet8", "resnet14"]
    kdsearch("export", "mine", "--to", "home", "--storage", url)
    kept = Remote.at(url) / "mine" / "best"
    assert (tmp_path / "home" / "student.safetensors").read_bytes() == kept.read("student.safetensors")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "elsewhere"))
    assert json.loads(Remote.at(url).read("mine/confirm.json") or b"")["seeds"]["reporting"]
    kdsearch("report", "mine", "--storage", url)
    assert "confirmed" in (tmp_path / "report.html").read_text()
    wrong = kdsearch("status", "mine", "--storage", url.replace("//bucket/", "//bouquet/"), code=2)
    assert wrong.startswith("error: ")
    assert wrong.count("\n") == 1
