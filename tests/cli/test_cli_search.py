"""`kdsearch search`, `train` and `evaluate` as a person types them; mistakes, and the main job on a real local Ray."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from kdsearch.cli import main
from tests.conftest import ONE_CPU, Cli

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.fixture
def typed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Callable[..., str]:
    """`typed("search", …)` runs the command in this process in an empty folder; its exit code must be 2.

    Returns what it said, after checking that it was one sentence and that nothing was written.
    """
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")

    def run(*arguments: str) -> str:
        before = sorted(tmp_path.rglob("*"))
        monkeypatch.setattr(sys, "argv", ["kdsearch", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        said = capsys.readouterr()
        assert ended.value.code == 2, said.err
        assert "Traceback" not in said.err
        assert sorted(tmp_path.rglob("*")) == before
        assert len(said.err.strip().splitlines()) == 1, said.err
        return said.err.strip()

    return run


def tree(root: Path, classes: dict[str, int]) -> None:
    """A folder of pictures, so many of each class."""
    for number, (name, count) in enumerate(classes.items()):
        (root / name).mkdir(parents=True)
        for index in range(count):
            pixels = np.full((12, 12, 3), 40 * number + index, dtype=np.uint8)
            Image.fromarray(pixels).save(root / name / f"{index}.png")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["search", "isp"], "error: unknown method 'isp'; did you mean 'ips'?"),
        (["search", "ips", "--student", "resnet9"], "error: unknown network 'resnet9'; did you mean"),
        (["search", "ips", "--data", "digit"], "error: unknown data set 'digit'; did you mean 'digits'?"),
        (["search", "ips", "--task", "segmentations"], "error: unknown task 'segmentations'"),
        (["search", "ips", "--set", "training.epoch=3"], "did you mean 'epochs'"),
        (["search", "ips", "--set", "space.temprature=3"], "did you mean 'temperature'"),
        (["search", "ips", "--set", "space.temperature.high=0.5"], "low = 1 must be below high = 0.5"),
        (["search", "ips", "--set", "space.temperature.low=0"], "log range cannot touch 0"),
        (["search", "ips", "--set", "space.swap_probability=1.5"], "space.swap_probability = 1.5: must be at most 1"),
        (["search", "ips", "--set", "search.grace_period=40"], "search.grace_period = 40: cannot exceed"),
        (["search", "ips", "--gpus-per-trial", "1.5"], "1.5: above 1 it must be a whole number"),
        (["search", "ips", "--gpus-per-trial", "64"], "resources.gpus_per_trial = 64.0: no node of the pool has more"),
        (["search", "kd", "--set", "teacher=null"], "teacher is missing: method 'kd' learns from one"),
        (["search", "ips", "--budget", "3 parsecs"], "--budget = '3 parsecs'"),
        (["search", "ips", "--set", "novalue"], "--set = 'novalue': write KEY=VALUE"),
        (["search", "ips", "--name", "../out"], "name = '../out'"),
        (["search", "ips", "--try", "nothing.yaml"], "nothing.yaml cannot be read"),
        (["search", "ips", "--warm-start", "nothing"], "unknown run 'nothing'"),
        (["search", "nothing.yaml"], "'nothing.yaml' is no file"),
        (["search", "ips", "--data", "folder"], "data.root"),
        (["search", "ips", "--data", "folder", "--data-root", "nowhere"], "nowhere"),
        (["search", "ips", "--data", "cifar100", "--data-root", "nowhere"], "nowhere"),
        (["search", "ips", "--student", "my_net.py:build"], "there is no file 'my_net.py'"),
        (["search", "ips", "--data", "digits", "--label-fraction", "0"], "data.label_fraction = 0"),
        (["train", "ips", "--to", "out", "--hyperparameters", "nothing.yaml"], "nothing.yaml cannot be read"),
        (["evaluate", "nowhere"], "'nowhere' is not an export"),
        (["resume", "nothing"], "unknown run 'nothing'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_mistake_gets_one_sentence_exit_code_2_and_writes_nothing(
    arguments: list[str], sentence: str, typed: Callable[..., str]
) -> None:
    assert sentence in typed(*arguments)


def test_a_run_name_that_exists_is_refused(typed: Callable[..., str], tmp_path: Path) -> None:
    (tmp_path / "runs" / "mine").mkdir(parents=True)
    assert "run 'mine' exists" in typed("search", "ips", "--name", "mine")


@pytest.mark.parametrize(
    ("classes", "sentence"),
    [({}, "hold"), ({"only": 9}, "one class"), ({"a": 9, "b": 2}, "'b'")],
    ids=["empty", "one class", "too few"],
)
def test_a_folder_that_cannot_be_learned_from_is_refused(
    classes: dict[str, int], sentence: str, typed: Callable[..., str], tmp_path: Path
) -> None:
    (tmp_path / "pictures").mkdir()
    tree(tmp_path / "pictures", classes)
    assert sentence in typed("search", "ips", "--data", "folder", "--data-root", "pictures")


def test_an_unreadable_image_is_named(typed: Callable[..., str], tmp_path: Path) -> None:
    tree(tmp_path / "pictures", {"a": 9, "b": 9})
    (tmp_path / "pictures" / "b" / "4.png").write_bytes(b"no picture")
    said = typed("search", "ips", "--data", "folder", "--data-root", "pictures")
    assert "b/4.png" in said


def test_weights_that_do_not_fit_are_named(typed: Callable[..., str], tmp_path: Path) -> None:
    import torch
    from safetensors.torch import save_file

    save_file({"conv1.weight": torch.zeros(3, 3)}, tmp_path / "weights.safetensors")
    said = typed("search", "kd", "--teacher", "resnet8:weights.safetensors")
    assert "conv1.weight" in said
    assert "weights.safetensors" in said


def test_the_main_job_leaves_a_student_that_reproduces_its_accuracy(cli: Cli, tmp_path: Path) -> None:
    """The first search of a person, cut down; then each command that reads it."""
    searched = cli("search", "ips", "--trials", "4", "--max-epochs", "4", cwd=tmp_path)
    assert searched.returncode == 0, searched.stderr
    run = "ips-digits-resnet8-1"
    assert f"kdsearch export {run} --to DIR" in searched.stdout
    facts = json.loads((tmp_path / "runs" / run / "best" / "metrics.json").read_text())
    status = json.loads(cli("status", run, "--json", cwd=tmp_path).stdout)
    assert [trial["number"] for trial in status["trials"]] == [0, 1, 2, 3]
    assert status["state"] == "COMPLETE"
    best = max(trial["best"] for trial in status["trials"] if trial["state"] == "COMPLETE")
    assert facts["value"] == best
    again = json.loads(cli("evaluate", f"runs/{run}/best", "--json", cwd=tmp_path).stdout)
    assert again["metrics"]["accuracy"] == facts["value"]
    exported = cli("export", run, "--to", "mine", "--json", cwd=tmp_path)
    assert json.loads(exported.stdout)["value"] == facts["value"]
    trial = facts["search"]["trial"]
    left = [folder.name for folder in (tmp_path / "runs" / run / "trials").iterdir() if (folder / "best").exists()]
    assert left == [f"{trial:04d}"]
    assert not list((tmp_path / "runs").rglob("*.ckpt*"))


@pytest.mark.slow
def test_the_winner_of_a_search_is_what_train_makes_of_its_hyperparameters(cli: Cli, tmp_path: Path) -> None:
    """One seed for every trial: the setting and the seed give the winner's very weights, without Ray."""
    small = ("--set", "data.label_fraction=0.2", "--trials", "3", "--max-epochs", "3")
    cli("search", "ips", *small, "--name", "run", "--seed", "5", cwd=tmp_path)
    best = tmp_path / "runs" / "run" / "best"
    trained = cli(
        "train", "runs/run/experiment.yaml", "--hyperparameters", str(best / "hyperparameters.yaml"), "--to", "again",
        "--json", cwd=tmp_path,
    )  # fmt: skip
    assert trained.returncode == 0, trained.stderr
    assert json.loads(trained.stdout)["value"] == json.loads((best / "metrics.json").read_text())["value"]
    assert (tmp_path / "again" / "student.safetensors").read_bytes() == (best / "student.safetensors").read_bytes()


@pytest.mark.slow
def test_a_teacher_is_trained_once_and_kept_for_the_next_search(cli: Cli, tmp_path: Path) -> None:
    small = ("--set", "data.label_fraction=0.2", "--set", "teacher.epochs=2")
    flags = ("--teacher", "resnet8", "--trials", "2", "--max-epochs", "1", *small)
    first = cli("search", "kd", *flags, cwd=tmp_path)
    assert first.returncode == 0, first.stderr
    assert "training the teacher resnet8 once, 2 epochs" in first.stdout
    second = cli("search", "kd", *flags, cwd=tmp_path)
    assert second.returncode == 0, second.stderr
    assert "training the teacher" not in second.stdout
    assert "asking the teacher once" in first.stdout
    assert "asking the teacher" not in second.stdout
    kept = list((tmp_path / "runs" / ".teachers").iterdir())
    assert sorted(path.is_dir() for path in kept) == [False, True]  # its outputs, and itself


@pytest.mark.slow
def test_pictures_in_a_folder_are_streamed_to_the_trials(cli: Cli, tmp_path: Path) -> None:
    tree(tmp_path / "pictures", {"dark": 24, "light": 24})
    searched = cli(
        "search", "ce", "--data", "folder", "--data-root", "pictures", "--trials", "2", "--max-epochs", "2",
        "--set", "data.in_memory=false", "--set", "data.workers=1", "--set", "training.batch_size=8", cwd=tmp_path,
    )  # fmt: skip
    assert searched.returncode == 0, searched.stderr
    again = cli("evaluate", "runs/ce-folder-resnet8-1/best", "--json", cwd=tmp_path)
    assert again.returncode == 0, again.stderr


@pytest.mark.slow
def test_ctrl_c_prints_the_command_that_goes_on_and_that_command_does(cli: Cli, tmp_path: Path) -> None:
    flags = ["--trials", "6", "--max-epochs", "9", "--set", "data.label_fraction=0.5", "--name", "run"]
    command = [str(Path(sys.executable).with_name("kdsearch")), "search", "ips", *flags]
    process = subprocess.Popen(command, cwd=tmp_path, env=os.environ | ONE_CPU, stdout=subprocess.PIPE, text=True)
    journal = tmp_path / "runs" / "run" / "study.journal"
    deadline = time.monotonic() + 120
    while not (journal.exists() and journal.read_text().count("intermediate_value") >= 4):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGINT)
    said, _ = process.communicate(timeout=120)
    assert process.returncode == 0
    (line,) = [line for line in said.splitlines() if "kdsearch resume" in line]
    resumed = cli(*line.split("kdsearch ", 1)[1].split(), cwd=tmp_path)
    assert resumed.returncode == 0, resumed.stderr
    status = json.loads(cli("status", "run", "--json", cwd=tmp_path).stdout)
    assert status["state"] == "COMPLETE"
    assert len(status["trials"]) == 6
    assert not [trial for trial in status["trials"] if trial["state"] == "RUNNING"]


@pytest.mark.slow
def test_a_search_whose_trials_all_fail_exits_with_1_and_the_reasons(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(
        "import torch\n"
        "class Net(torch.nn.Module):\n"
        "    def __init__(self, classes):\n"
        "        super().__init__()\n"
        "        self.linear = torch.nn.Linear(64, classes)\n"
        "    def forward(self, images):\n"
        "        if self.training:\n"
        "            raise RuntimeError('no training today')\n"
        "        return self.linear(images.flatten(1))\n"
        "def build(classes):\n"
        "    return Net(classes)\n"
    )
    searched = cli("search", "ce", "--student", "net.py:build", "--trials", "2", "--max-epochs", "3", cwd=tmp_path)
    assert searched.returncode == 1
    assert searched.stderr.splitlines()[0] == "error: all 2 trials failed:"
    assert "RuntimeError: no training today" in searched.stderr


def test_a_dry_run_estimates_and_writes_nothing(cli: Cli, tmp_path: Path) -> None:
    estimated = cli("search", "kd", "--dry-run", cwd=tmp_path)
    assert estimated.returncode == 0, estimated.stderr
    for word in ("77,754 parameters", "trials      32", "time", "disk", "Nothing was written."):
        assert word in estimated.stdout
    assert not list(tmp_path.iterdir())
