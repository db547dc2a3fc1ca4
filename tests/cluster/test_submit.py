"""What `kdsearch submit` checks on this machine, before any cluster is asked."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from kdsearch.cli.travel import pack, travelling
from kdsearch.errors import UserError
from kdsearch.experiment import Experiment

if TYPE_CHECKING:
    from tests.conftest import Cli


@pytest.fixture
def laptop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "work"
    (folder / "nets").mkdir(parents=True)
    (folder / "nets" / "mine.py").write_text("def build(classes): ...\n")
    (folder / "teacher").mkdir()
    (folder / "teacher" / "student.safetensors").write_text("weights")
    (folder / "other.txt").write_text("not named")
    (tmp_path / "above.py").write_text("")
    monkeypatch.chdir(folder)
    return folder


def test_what_is_named_by_a_relative_path_travels_and_nothing_else(laptop: Path, tmp_path: Path) -> None:
    experiment = Experiment(
        method="kd",
        student="nets/mine.py:build",
        teacher={"name": "resnet8", "weights": "teacher"},
        data={"name": "/shared/my_data.py:load", "root": "/shared/pictures"},
    )
    files = travelling(experiment, ["nets/mine.py", "/shared/first.yaml"])
    assert files == ["nets/mine.py", "teacher"]
    digest = pack(files, tmp_path / "packed")
    packed = [path.relative_to(tmp_path / "packed") for path in (tmp_path / "packed").rglob("*") if path.is_file()]
    assert sorted(map(str, packed)) == ["nets/mine.py", "teacher/student.safetensors"]
    assert pack(files, tmp_path / "again") == digest
    (laptop / "nets" / "mine.py").write_text("def build(classes): pass\n")
    assert pack(files, tmp_path / "changed") != digest


@pytest.mark.parametrize(
    ("sections", "sentence"),
    [
        ({"student": "gone.py:build"}, "'gone.py' is to travel with the job, but there is no such file here"),
        (
            {"student": "../above.py:build"},
            "'../above.py' lies outside .*: files that travel lie in the folder you work",
        ),
        (
            {"data": {"name": "image_folder", "root": "pictures"}},
            "data.root = 'pictures': folders of data do not travel",
        ),
    ],
)
def test_what_cannot_travel_is_refused(sections: dict[str, object], sentence: str, laptop: Path) -> None:
    with pytest.raises(UserError, match=sentence):
        travelling(Experiment(method="ce", **sections), [])


def test_what_is_too_large_does_not_travel(laptop: Path, tmp_path: Path) -> None:
    with (laptop / "big.pt").open("wb") as file:
        file.truncate(101 * 2**20)
    with pytest.raises(UserError, match=r"big\.pt are 101 MiB, and more than 100 do not travel"):
        pack(["big.pt"], tmp_path / "packed")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("ce", "--trails", "3"), "No such option: --trails"),
        (("ce", "--sampler", "tpee"), "did you mean 'tpe'?"),
        (("ce", "--storage", "runs"), "--storage = 'runs': must be an absolute path on the cluster, or an address"),
        (("--resume", "kd-1", "--name", "kd-2"), "--resume goes on with a run as it was begun"),
        (("--resume", "kd-1", "--sampler", "tpe"), "No such option: --sampler"),
    ],
)
def test_a_command_line_is_checked_before_any_cluster_is_asked(
    arguments: tuple[str, ...], sentence: str, cli: Cli, tmp_path: Path
) -> None:
    answer = cli("submit", *arguments, "--address", "http://127.0.0.1:9", cwd=tmp_path)
    assert (answer.returncode, answer.stdout) == (2, "")
    assert sentence in " ".join(answer.stderr.replace("│", " ").split())


@pytest.mark.slow
def test_a_dry_run_checks_and_estimates_here_and_needs_no_cluster(cli: Cli, tmp_path: Path) -> None:
    flags = ("--trials", "4", "--max-epochs", "3", "--student", "resnet8", "--dry-run", "--json")
    answer = cli("submit", "ce", *flags, "--address", "http://127.0.0.1:9", cwd=tmp_path)
    assert answer.returncode == 0, answer.stderr
    estimate = json.loads(answer.stdout)
    assert estimate["epochs_high"] == 12
    assert estimate["rehearsal"]["parameters"] > 0
    assert list(tmp_path.iterdir()) == []
