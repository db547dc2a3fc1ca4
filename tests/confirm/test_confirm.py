"""Confirmations of a small search on digits, on a real local Ray; ended midway and gone on with."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from safetensors.torch import load_file

from kdsearch import data as data_sets
from kdsearch.cli import main
from kdsearch.cli.confirm import show_confirmation
from kdsearch.errors import RunError, SearchFailed
from kdsearch.experiment import Experiment
from kdsearch.results import Results, RunLock, export_run
from kdsearch.results.confirm_log import FILE, TEST, TRAINING, Done, Log
from kdsearch.results.confirmation import FOLDER, read_confirmation
from kdsearch.results.report import report
from kdsearch.training.evaluation import evaluate_export
from kdsearch.training.trainer import Trainer
from kdsearch.tuning import search
from kdsearch.tuning.confirm import Quiet, confirm
from kdsearch.tuning.confirm_student import Job, read_test, train
from kdsearch.tuning.objective import TrainerObjectives
from kdsearch.tuning.winner import take_home
from tests.conftest import ONE_CPU, Cli
from tests.local_ray import started
from tests.places import told_places

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


EXPERIMENT: dict[str, Any] = {
    "method": "ips",
    "name": "run",
    "data": {"name": "digits", "label_fraction": 0.15},
    "space": {"alpha": {"low": 0.3, "high": 3.0}, "learning_rate": {"low": 0.02, "high": 0.1, "log": True}},
    "training": {"epochs": 2},
    "search": {"trials": 4, "scheduler": "none", "grace_period": 1},
    "resources": {"gpus_per_trial": 0},
}


@pytest.fixture(scope="module", autouse=True)
def local_ray() -> Iterator[None]:
    """One Ray with two CPUs for all of this file."""
    with started(cpus=2):
        yield


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that has ended; tests work on copies."""
    storage = tmp_path_factory.mktemp("searched")
    search(Experiment(**EXPERIMENT), storage=storage)
    return storage / "run"


@pytest.fixture(scope="module")
def confirmed(searched: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of it that was confirmed without interruption."""
    return confirmed_copy(searched, tmp_path_factory.mktemp("confirmed"))


def confirmed_copy(searched: Path, storage: Path) -> Path:
    folder = copied(searched, storage)
    confirm(folder, top=2, seeds=2)
    return folder


def copied(run: Path, storage: Path) -> Path:
    shutil.copytree(run, storage / "run")
    return storage / "run"


class Follower(Quiet):
    """Counts what is done, and may end it as Ctrl-C does."""

    def __init__(self, end_after: int | None = None) -> None:
        self.done: list[Done] = []
        self.end_after = end_after

    def ended(self, done: Done) -> None:
        self.done.append(done)
        if len(self.done) == self.end_after:
            raise KeyboardInterrupt

    @property
    def counts(self) -> Counter[str]:
        return Counter(done.what for done in self.done)


def timeless(value: Any) -> Any:
    """A document without what a clock says."""
    if isinstance(value, dict):
        return {name: timeless(entry) for name, entry in value.items() if name not in ("time", "seconds")}
    return [timeless(entry) for entry in value] if isinstance(value, list) else value


def by_student(document: dict[str, Any]) -> dict[str, Any]:
    """A document whose readings stand in the order of their students: trainings end in any order."""
    document = timeless(document)
    document["test_readings"].sort(key=lambda reading: (reading["trial"], reading["seed"]))
    return document


def stored(folder: Path) -> dict[str, Any]:
    document = read_confirmation(folder)
    assert document is not None
    return document


def test_a_confirmation_trains_what_it_says_and_reads_test_once_for_each_student(confirmed: Path) -> None:
    document, log = stored(confirmed), Log(confirmed / FOLDER)
    assert document["seeds"] == {"deciding": [1, 3], "reporting": [2, 4]}
    parts = document["settings"]
    lines = [json.loads(line) for line in (confirmed / FOLDER / FILE).read_text().splitlines()]
    done = Counter((line["what"], line["trial"], line["seed"]) for line in lines)
    assert set(done.values()) == {1}
    deciding = {(TRAINING, entry["trial"], seed) for entry in document["candidates"] for seed in (1, 3)}
    reporting = {(what, part["trial"], seed) for part in parts.values() for seed in (2, 4) for what in (TRAINING, TEST)}
    assert set(done) == deciding | reporting
    assert len(document["candidates"]) == 2
    assert len(document["test_readings"]) == len(parts) * 2
    assert len(log.readings) == len(parts) * 2
    means = {entry["trial"]: entry["validation"]["mean"] for entry in document["candidates"]}
    assert means[parts["winner"]["trial"]] == max(means.values())
    for part, gained in document["gains"].items():
        pairs = zip(parts["winner"]["per_seed"], parts[part]["per_seed"], strict=True)
        assert gained["test"]["differences"] == pytest.approx([one["test"] - other["test"] for one, other in pairs])


def test_the_best_of_the_run_becomes_the_confirmed_one_and_reproduces_both_its_figures(
    confirmed: Path, tmp_path: Path
) -> None:
    folder = copied(confirmed, tmp_path)
    document, facts = stored(folder), json.loads((folder / "best" / "metrics.json").read_text())
    winner, student = document["settings"]["winner"], document["student"]
    row = next(row for row in winner["per_seed"] if row["seed"] == student["seed"])
    assert (facts["search"]["trial"], facts["seed"]) == (winner["trial"], student["seed"])
    assert facts["value"] == row["validation"] == min(entry["validation"] for entry in winner["per_seed"])
    (reading,) = facts["test_readings"]
    assert reading["metrics"]["accuracy"] == row["test"]
    assert facts["confirmation"]["settings"]["winner"]["test"] == winner["test"]
    assert "## Confirmed on fresh seeds" in (folder / "best" / "README.md").read_text()
    assert evaluate_export(folder / "best")["metrics"]["accuracy"] == row["validation"]
    again = evaluate_export(folder / "best", "test")
    assert again["metrics"]["accuracy"] == row["test"]
    assert again["test_readings"] == 2
    exported = export_run(folder, tmp_path / "mine")
    assert json.loads((exported / "metrics.json").read_text())["confirmation"]["gains"].keys() == {*document["gains"]}


def test_the_confirmed_student_is_what_a_training_alone_makes_of_its_setting_and_seed(confirmed: Path) -> None:
    experiment, facts = Experiment(**EXPERIMENT), json.loads((confirmed / "best" / "metrics.json").read_text())
    trainer = Trainer(experiment, facts["hyperparameters"], seed=facts["seed"])
    while not trainer.finished:
        trainer.epoch()
    assert trainer.best is not None
    kept = load_file(confirmed / "best" / "student.safetensors")
    assert kept.keys() == trainer.best.state.keys()
    assert all((kept[name] == tensor).all() for name, tensor in trainer.best.state.items())


@pytest.mark.slow
def test_ended_at_any_point_and_gone_on_with_it_equals_one_that_was_not(
    searched: Path, confirmed: Path, tmp_path: Path
) -> None:
    """Ended while deciding, while reporting and while reading test: nothing is done twice."""
    folder, followers = copied(searched, tmp_path), []
    for end_after in (1, 4, 5):
        followers.append(Follower(end_after))
        with pytest.raises(KeyboardInterrupt):
            confirm(folder, top=2, seeds=2, watcher=followers[-1])
        assert not (folder / "confirm.json").exists()
        assert "confirmation" not in json.loads((folder / "best" / "metrics.json").read_text())
    followers.append(Follower())
    document = confirm(folder, top=2, seeds=2, watcher=followers[-1])
    whole = stored(confirmed)
    assert by_student(json.loads(json.dumps(document))) == by_student(whole)
    students = 2 * len(whole["settings"])
    assert sum((follower.counts for follower in followers), Counter()) == {TRAINING: 4 + students, TEST: students}
    names = ["student.safetensors", "hyperparameters.yaml"]
    assert [(folder / "best" / name).read_bytes() for name in names] == [
        (confirmed / "best" / name).read_bytes() for name in names
    ]


def test_a_second_call_does_nothing_again_and_more_seeds_add_to_what_there_is(confirmed: Path, tmp_path: Path) -> None:
    folder = copied(confirmed, tmp_path)
    before = {name: (folder / name).read_bytes() for name in ("confirm.json", "best/metrics.json", "best/README.md")}
    follower = Follower()
    confirm(folder, top=2, seeds=2, watcher=follower)
    assert not follower.done
    assert {name: (folder / name).read_bytes() for name in before} == before
    evaluate_export(folder / "best", "test")
    document = confirm(folder, top=1, seeds=3, watcher=follower)
    assert document["candidates"] == []
    best, others = document["settings"]["winner"], len(document["settings"])
    earlier = stored(confirmed)["settings"]
    known = {(part["trial"], seed) for part in earlier.values() for seed in (2, 4)}
    wanted = {(part["trial"], seed) for part in document["settings"].values() for seed in (2, 4, 6)}
    assert {(done.trial, done.seed) for done in follower.done if done.what == TEST} == wanted - known
    assert best["validation"]["count"] == 3
    assert len(document["test_readings"]) == len(known | wanted) + 1 >= 3 * others  # and the one by evaluate
    facts = json.loads((folder / "best" / "metrics.json").read_text())
    again = (facts["search"]["trial"], facts["seed"]) == (
        stored(confirmed)["student"]["trial"], stored(confirmed)["student"]["seed"],
    )  # fmt: skip
    assert len(facts["test_readings"]) == (2 if again else 1)


def test_a_search_that_ends_anew_keeps_the_confirmed_best_unless_there_are_more_trials(
    searched: Path, confirmed: Path, tmp_path: Path
) -> None:
    folder = copied(confirmed, tmp_path)
    take_home(Results(folder), "accuracy")
    assert "confirmation" in json.loads((folder / "best" / "metrics.json").read_text())
    document = json.loads((folder / "best" / "metrics.json").read_text())
    document["confirmation"]["trials"] -= 1
    (folder / "best" / "metrics.json").write_text(json.dumps(document))
    take_home(Results(folder), "accuracy")
    assert "confirmation" not in json.loads((folder / "best" / "metrics.json").read_text())


def test_a_training_goes_on_from_its_checkpoint(tmp_path: Path) -> None:
    experiment = Experiment(**EXPERIMENT)
    objectives = TrainerObjectives(experiment, data_sets.load(experiment.data, experiment.task), threads=1)
    job = Job(0, experiment.paper(), 7, tmp_path / "0000-7", keep=True)
    whole = train(objectives, job)
    weights = load_file(job.folder / "best" / "student.safetensors")
    assert not list(tmp_path.rglob("*.ckpt*"))
    half = objectives.trainer(experiment.paper(), 7)
    half.epoch()
    half.save(job.folder)
    epochs = []
    unpatched = Trainer.epoch
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "epoch", lambda self: epochs.append(unpatched(self)))
        again = train(objectives, job)
    assert [report.epoch for report in epochs] == [2]
    assert (again.value, again.epoch, again.metrics) == (whole.value, whole.epoch, whole.metrics)
    kept = load_file(job.folder / "best" / "student.safetensors")
    assert all((kept[name] == tensor).all() for name, tensor in weights.items())


def test_a_student_that_only_decides_leaves_nothing_and_one_that_diverges_says_why(tmp_path: Path) -> None:
    experiment = Experiment(**EXPERIMENT)
    objectives = TrainerObjectives(experiment, data_sets.load(experiment.data, experiment.task), threads=1)
    assert train(objectives, Job(0, experiment.paper(), 7, tmp_path / "a", keep=False)).value is not None
    hot = experiment.paper() | {"learning_rate": 1e30}
    done = train(objectives, Job(0, hot, 7, tmp_path / "b", keep=True))
    assert done.value is None
    assert done.error is not None
    assert "the loss is not finite" in done.error
    assert not list(tmp_path.iterdir())


def test_a_reading_has_every_metric_and_class_of_the_test_split(tmp_path: Path) -> None:
    experiment = Experiment(**EXPERIMENT)
    data = data_sets.load(experiment.data, experiment.task)
    objectives = TrainerObjectives(experiment, data, threads=1)
    job = Job(0, experiment.paper(), 7, tmp_path / "0000-7", keep=True)
    train(objectives, job)
    read = read_test(objectives, job)
    counts = data.test.targets.bincount(minlength=10).tolist()
    classes = read.per_class["per_class_accuracy"]
    hits = sum((classes[name] or 0) * count for name, count in zip(data.classes, counts, strict=True))
    assert hits / len(data.test) == pytest.approx(read.value)
    assert read.metrics.keys() == {"accuracy", "loss"}


def test_what_fails_ends_it_with_its_reason_and_what_had_ended_is_kept(searched: Path, tmp_path: Path) -> None:
    folder = copied(searched, tmp_path)
    (folder / FOLDER).mkdir()
    (folder / FOLDER / "students").write_text("no folder")
    with pytest.raises(SearchFailed, match=r"trial \d with seed \d failed: .*\nwhat had ended is kept"):
        confirm(folder, top=1, seeds=2)
    (folder / FOLDER / "students").unlink()
    assert confirm(folder, top=1, seeds=2)["settings"]["winner"]["test"]["count"] == 2


def test_in_a_chain_the_best_stays_what_taught_the_next_generation(
    confirmed: Path, searched: Path, tmp_path: Path
) -> None:
    chain = tmp_path / "chain"
    chain.mkdir()
    (chain / "chain.yaml").write_text("")
    folder = copied(searched, chain)
    shutil.copytree(confirmed / FOLDER, folder / FOLDER)
    before = (folder / "best" / "metrics.json").read_bytes()
    document = confirm(folder, top=2, seeds=2)
    assert (folder / "best" / "metrics.json").read_bytes() == before
    assert document["run"] == "chain/run"


def test_a_run_that_is_driven_is_left_alone(searched: Path, tmp_path: Path) -> None:
    folder = copied(searched, tmp_path)
    with RunLock(folder), pytest.raises(RunError, match="is in use by process"):
        confirm(folder, top=1, seeds=2)
    assert not (folder / FOLDER).exists()


@pytest.fixture
def typed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[str, str, Any]]:
    """`typed("confirm", …)` runs the command in this process: what it said on both streams, and its exit code."""
    monkeypatch.setenv("COLUMNS", "100")

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


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--seeds", "1"], "error: --seeds = 1: must be at least 2"),
        (["--top", "0"], "error: --top = 0: must be at least 1"),
        (["--storage", "nowhere"], "error: unknown run 'run'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_mistake_gets_one_sentence_and_exit_code_2(
    arguments: list[str], sentence: str, searched: Path, typed: Callable[..., tuple[str, str, Any]]
) -> None:
    out, err, code = typed("confirm", "run", "--storage", str(searched.parent), *arguments)
    assert (code, out) == (2, "")
    assert err.startswith(sentence)
    assert len(err.strip().splitlines()) == 1
    assert not (searched / FOLDER).exists()


def test_the_command_shows_what_was_found_and_json_is_the_document(
    confirmed: Path, tmp_path: Path, typed: Callable[..., tuple[str, str, Any]]
) -> None:
    folder = copied(confirmed, tmp_path)
    out, err, code = typed("confirm", str(folder), "--top", "2", "--seeds", "2")
    assert (code, err) == (0, "")
    document = stored(confirmed)
    winner = document["settings"]["winner"]
    mean, low, high = (f"{winner['test'][name]:.4f}" for name in ("mean", "low", "high"))
    searched = f"{winner['search']:.4f}"
    assert re.search(rf"^winner +{winner['trial']} +{searched} +{mean} +{low} to {high} ", out, re.M)
    for sentence in ("Optimism of the search: ", "accuracy per class, the hardest first:", "The test split was read "):
        assert sentence in out
    out, err, code = typed("confirm", str(folder), "--top", "2", "--seeds", "2", "--json")
    assert (code, err) == (0, "")
    assert json.loads(out) == document


def test_tables_fit_a_narrow_terminal(confirmed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a terminal of 80 columns no line of a table is wider."""
    import io

    from rich.console import Console

    stream = io.StringIO()
    screen = Console(file=stream, force_terminal=True, width=80, color_system=None, highlight=False, markup=False)
    for module in ("kdsearch.cli.output", "kdsearch.cli.table"):
        monkeypatch.setattr(f"{module}.console", lambda **_: screen)
    show_confirmation(Results(confirmed), stored(confirmed))
    said = [line for line in stream.getvalue().splitlines() if "kdsearch export" not in line]
    assert max(map(len, said)) <= 80
    assert any(re.search(r"95 % interval +gain", line) for line in said)


@pytest.mark.slow
def test_ctrl_c_prints_the_command_that_goes_on_and_that_command_does(searched: Path, tmp_path: Path, cli: Cli) -> None:
    folder = copied(searched, tmp_path / "runs")
    experiment = yaml.safe_load((folder / "experiment.yaml").read_text())
    experiment["training"] |= {"epochs": 8, "checkpoint_seconds": 0}
    (folder / "experiment.yaml").write_text(yaml.safe_dump(experiment))
    command = [str(Path(sys.executable).with_name("kdsearch")), "confirm", "run", "--top", "1", "--seeds", "2"]
    process = subprocess.Popen(
        command,
        cwd=tmp_path,
        env=os.environ | ONE_CPU,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # Tests that run in the background of a shell are deaf to it, and so would be what they start.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    deadline = time.monotonic() + 200
    while not list((folder / FOLDER).rglob("last.ckpt")):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to every process of the command
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    (line,) = [line for line in said.splitlines() if "kdsearch confirm" in line]
    resumed = cli(*line.split("kdsearch ", 1)[1].split(), "--json", cwd=tmp_path)
    assert resumed.returncode == 0, resumed.stderr
    assert json.loads(resumed.stdout)["settings"]["winner"]["test"]["count"] == 2
    assert not list((folder / FOLDER).rglob("*.ckpt*"))


def test_what_is_given_to_others_tells_no_places(confirmed: Path, tmp_path: Path) -> None:
    exported = export_run(confirmed, tmp_path / "student")
    for form in ("html", "md"):
        (tmp_path / f"report.{form}").write_text(report(Results(confirmed), form))  # type: ignore[arg-type]
    pages = [tmp_path / "report.html", tmp_path / "report.md", confirmed / "confirm.json"]
    files = [*pages, *(confirmed / "confirm").glob("*"), *(confirmed / "best").iterdir(), *exported.iterdir()]
    assert len([file for file in files if file.is_file()]) >= 13
    assert told_places(files, confirmed.parent, tmp_path) == []
