"""Chains, runs and files that came from someone else: nothing in them is run, and nothing is written outside."""

from __future__ import annotations

import contextlib
import json
import os
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from optuna.trial import TrialState
from safetensors.numpy import save_file

from kdsearch import models
from kdsearch.chain import Chain
from kdsearch.cli import main
from kdsearch.consent import code_of
from kdsearch.errors import BadWeights, RunError, UserError
from kdsearch.experiment import Experiment
from kdsearch.results import Results, write_export
from kdsearch.results.links import refuse_links
from kdsearch.results.report import report
from kdsearch.tuning import resume
from kdsearch.tuning.chain import resume_chain, run_chain
from kdsearch.tuning.confirm import confirm
from kdsearch.tuning.series import Quiet, check_own, searched
from tests.results.build_run import EXPERIMENT, RunBuilder, facts

SENTENCE = "names (code|a cluster) that would .*; read it, and if you trust it say --allow-code$"


@pytest.fixture
def evil(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file that notes when it is run, and the folder where one stands."""
    code = "import pathlib\npathlib.Path(__file__).with_name('was-run').touch()\ndef build(**given): ...\n"
    (tmp_path / "evil.py").write_text(code)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "was-run"


def export(folder: str, network: str) -> str:
    Path(folder).mkdir()
    known = facts()
    known["student"]["name"] = network
    Path(folder, "metrics.json").write_text(json.dumps(known))
    save_file({"weight": np.zeros(2, dtype=np.float32)}, Path(folder, "student.safetensors"))
    return folder


CHAINS: list[dict[str, Any]] = [
    {"generations": [{"student": "evil.py:build"}, {"student": "resnet8"}]},
    {"generations": [{"student": "resnet8"}, {"student": {"name": "evil.py:build", "arguments": {"width": 3}}}]},
    {"generations": [{"student": "resnet8", "method": "evil.py:build"}, {"student": "resnet8"}]},
    {"generations": [{"weights": "theirs"}, {"student": "resnet8"}]},
    {"generations": [{"student": "resnet8", "weights": "evil:build"}, {"student": "evil:build"}]},
    {"data": "evil.py:build", "generations": [{"student": "resnet8"}, {"student": "resnet8"}]},
    {"data": {"name": "evil.py:build"}, "generations": [{"student": "resnet8"}, {"student": "resnet8"}]},
    {"resources": {"address": "192.0.2.7:6379"}, "generations": [{"student": "resnet8"}, {"student": "resnet8"}]},
]


@pytest.mark.parametrize("content", CHAINS)
def test_code_that_a_chain_names_is_refused_and_not_run(
    content: dict[str, Any], evil: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    export("theirs", "evil.py:build")
    Path("chain.yaml").write_text(yaml.safe_dump(content))
    with pytest.raises(UserError, match=SENTENCE):
        Chain.load("chain.yaml")
    monkeypatch.setattr("sys.argv", ["kdsearch", "chain", "chain.yaml", "--dry-run"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert "--allow-code" in capsys.readouterr().err
    Path("runs/theirs").mkdir(parents=True)
    Path("chain.yaml").rename("runs/theirs/chain.yaml")
    with pytest.raises(UserError, match=SENTENCE):
        resume_chain(Path("runs/theirs"))
    assert not evil.exists()


def test_a_chain_whose_code_is_allowed_or_named_is_read(evil: Path) -> None:
    Path("chain.yaml").write_text(yaml.safe_dump(CHAINS[0]))
    assert Chain.load("chain.yaml", allow_code=True).generations[0].student.name == "evil.py:build"  # type: ignore[union-attr]
    assert Chain.load("chain.yaml", named=["evil.py:build"]).name == "chain"


def test_a_chain_of_ones_own_does_not_wake_what_lies_under_its_name(evil: Path) -> None:
    mine = Chain(name="small", generations=[{"student": "resnet8"}, {"student": "resnet8"}])
    Path("runs/small").mkdir(parents=True)
    Path("runs/small/chain.yaml").write_text(yaml.safe_dump(CHAINS[2]))
    with pytest.raises(UserError, match=SENTENCE):
        run_chain(mine, storage="runs")
    assert not evil.exists()


def begun(folder: Path, **sections: Any) -> Path:
    """A search that is begun, as its folder says."""
    (folder / "trials").mkdir(parents=True)
    made = Experiment(method="ce", name=folder.name).model_dump(mode="json")
    (folder / "experiment.yaml").write_text(yaml.safe_dump(made | sections))
    return folder


@pytest.mark.parametrize("sections", [{"method": "evil.py:build"}, {"student": {"name": "evil.py:build"}}])
def test_a_generation_that_names_other_code_than_its_chain_is_refused(sections: dict[str, Any], evil: Path) -> None:
    run = begun(Path("runs/theirs/1-resnet8"), **sections)
    clean = Experiment(method="ce", name="1-resnet8")
    with pytest.raises(UserError, match=SENTENCE):
        searched(run, clean, lambda earlier: contextlib.nullcontext(Quiet()))
    assert not evil.exists()
    check_own(begun(Path("runs/theirs/2-resnet8"), resources={"address": "192.0.2.7:6379"}), clean)  # it is not used
    own = clean.model_copy(update={"method": "evil.py:build"}) if "method" in sections else clean
    assert code_of(own.model_dump(mode="json")) == (["evil.py:build"] if "method" in sections else [])


def test_a_run_is_confirmed_and_reported_without_its_code(evil: Path) -> None:
    run = RunBuilder(Path("run"), experiment=EXPERIMENT | {"method": "evil.py:build", "student": "evil.py:build"})
    for role in ("paper", "control", "search"):
        run.trial([0.5, 0.6, 0.7], TrialState.COMPLETE, 0.7, role=role)
    run.describe(state="COMPLETE", ended=1_700_001_000.0)
    with pytest.raises(UserError, match=SENTENCE):
        confirm("run", top=1, seeds=2)
    for form in ("html", "md"):
        assert "evil.py" in report(Results("run"), form)
    assert not evil.exists()


LINKED = ["study.journal", "run.lock", "trials/0000", "best", "confirm"]


@pytest.mark.parametrize("link", LINKED)
@pytest.mark.parametrize("absolute", [True, False])
def test_a_link_out_of_a_run_is_not_written_through(link: str, absolute: bool, tmp_path: Path) -> None:
    precious = tmp_path / "home"
    (precious / "best").mkdir(parents=True)
    (precious / "best" / "thesis.txt").write_text("years of work")
    (precious / "last.ckpt").write_text("also mine")
    run = begun(tmp_path / "runs" / "theirs")
    place = run / link
    target = precious / "last.ckpt" if link in ("study.journal", "run.lock") else precious
    place.symlink_to(target if absolute else os.path.relpath(target, place.parent))
    before = {path: path.read_bytes() for path in precious.rglob("*") if path.is_file()}
    for drive in (resume, confirm):
        with pytest.raises(RunError, match=r"leads out of the run's folder, to .*/home"):
            drive(run)
    with pytest.raises(RunError, match="leads out of the run's folder"):
        searched(run, Experiment(method="ce", name="theirs"), lambda earlier: contextlib.nullcontext(Quiet()))
    assert {path: path.read_bytes() for path in precious.rglob("*") if path.is_file()} == before


def test_links_inside_a_run_and_a_storage_that_is_one_are_no_reason(tmp_path: Path) -> None:
    run = begun(tmp_path / "disk" / "mine")
    (run / "latest").symlink_to("trials")
    (run / "round").symlink_to(run)
    (tmp_path / "runs").symlink_to(tmp_path / "disk")
    refuse_links(tmp_path / "runs" / "mine")  # raises nothing
    (run / "out").symlink_to(tmp_path)
    with pytest.raises(RunError, match="leads out of the run's folder"):
        refuse_links(tmp_path / "runs" / "mine")


def safetensors(header: dict[str, Any], data: bytes, length: int | None = None) -> bytes:
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


LIES: dict[str, tuple[dict[str, Any], bytes, int | None]] = {
    "a tensor beyond the end": ({"w": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}}, b"\0" * 8, None),
    "a huge shape": ({"w": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 16]}}, b"\0" * 16, None),
    "a shape that overflows": ({"w": {"dtype": "F32", "shape": [2**62, 8], "data_offsets": [0, 0]}}, b"", None),
    "offsets that run backwards": ({"w": {"dtype": "F32", "shape": [2], "data_offsets": [8, 0]}}, b"\0" * 8, None),
    "two tensors in one place": (
        {name: {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]} for name in "ab"}, b"\0" * 8, None
    ),
    "bytes that nobody owns": ({"w": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}, b"\0" * 64, None),
    "a header longer than the file": ({"w": {}}, b"", 2**40),
    "a type that does not exist": ({"w": {"dtype": "CODE", "shape": [2], "data_offsets": [0, 8]}}, b"\0" * 8, None),
}  # fmt: skip


@pytest.mark.parametrize("lie", LIES)
def test_a_header_that_lies_about_sizes_is_refused(lie: str, tmp_path: Path) -> None:
    content = safetensors(*LIES[lie])
    path = tmp_path / "weights.safetensors"
    path.write_bytes(content)
    network = torch.nn.Linear(2, 1)
    before = network.weight.clone()
    with pytest.raises(BadWeights):
        models.load_weights(network, path)
    assert torch.equal(network.weight, before)
    with pytest.raises(BadWeights):
        write_export(tmp_path / "export", weights=path, facts=facts(), hyperparameters={})
    assert not (tmp_path / "export").exists()


@pytest.mark.parametrize("name", ["../x", "/tmp/x", "a/../../x", "..", ".", "-x", "x\0y", "x\ny", "~", ""])
def test_no_name_leaves_the_storage(name: str, tmp_path: Path) -> None:
    with pytest.raises(UserError):
        Experiment(method="ce", name=name)
    with pytest.raises(UserError):
        Chain(name=name, generations=[{"student": "resnet8"}, {"student": "resnet8"}])
    (tmp_path / "chain.yaml").write_text(
        yaml.safe_dump({"name": name, "generations": [{"student": "resnet8"}, {"student": "resnet8"}]})
    )
    if name:  # an empty one is one that is left out
        with pytest.raises(UserError):
            Chain.load(tmp_path / "chain.yaml")
