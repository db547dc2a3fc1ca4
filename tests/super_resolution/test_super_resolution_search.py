"""`kdsearch search sr_kd` as a person types it: mistakes, and the job itself on a real local Ray."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from kdsearch.cli import main
from tests.conftest import Cli
from tests.super_resolution.conftest import picture, save

SMALL = (
    "--set", "data.samples=16", "--set", "data.patch_size=32", "--set", "data.blur=0.5", "--max-epochs", "3",
    "--set", "teacher.epochs=1", "--set", "search.grace_period=1",
)  # fmt: skip


@pytest.fixture
def refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Callable[..., str]:
    """What `kdsearch search sr_kd …` says in an empty folder; its exit code must be 2 and nothing be written."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))

    def run(*arguments: str) -> str:
        before = sorted(tmp_path.rglob("*"))
        monkeypatch.setattr(sys, "argv", ["kdsearch", "search", "sr_kd", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        said = capsys.readouterr()
        assert ended.value.code == 2, said.err
        assert "Traceback" not in said.err
        assert sorted(tmp_path.rglob("*")) == before
        assert len(said.err.strip().splitlines()) == 1, said.err
        return said.err.strip()

    return run


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--set", "data.patch_size=30"], "data.patch_size = 30: must be a multiple of data.scale = 4"),
        (["--set", "data.scale=5"], "data.scale = 5"),
        (["--set", "space.perceptual_weight=0.5"], "vgg19-dcbb9e9d.pth': hold perceptual_weight at 0, or fetch them"),
        (["--set", "augmentation.mixup=0.5"], "augmentation.mixup = 0.5: is not for super-resolution"),
        (["--data", "images", "--data-root", "nowhere"], "there is no folder 'nowhere'"),
        (["--student", "resnet8"], "resnet8"),
        (["--teacher", "swinir:none.pth"], "there is no weights file"),
        (["--task", "classification"], "method 'sr_kd' is for super_resolution"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_mistake_gets_one_sentence(arguments: list[str], sentence: str, refused: Callable[..., str]) -> None:
    assert sentence in refused(*arguments)


def test_a_teacher_of_another_scale_or_a_truncated_one_is_refused_before_any_trial(
    refused: Callable[..., str], tmp_path: Path
) -> None:
    from spandrel.architectures.SwinIR import SwinIR

    network = SwinIR(img_size=16, window_size=8, embed_dim=12, depths=[2], num_heads=[2], upscale=2,
                     upsampler="pixelshuffle")  # fmt: skip
    torch.save({"params": network.state_dict()}, tmp_path / "x2.pth")
    said = refused("--teacher", "swinir:./x2.pth")
    assert "x2.pth' enlarges 2 times and data.scale is 4: set data.scale = 2, or take weights for ×4" in said
    (tmp_path / "cut.pth").write_bytes((tmp_path / "x2.pth").read_bytes()[:5000])
    assert "cut.pth' is damaged" in refused("--teacher", "swinir:./cut.pth")


def test_a_picture_of_unknown_depth_is_refused(refused: Callable[..., str], tmp_path: Path) -> None:
    for place in range(4):
        save(picture(80, 80, place), tmp_path / "pictures" / f"{place}.png")
    Image.fromarray(np.zeros((80, 80), dtype=np.int32)).save(tmp_path / "pictures" / "deep.tif")
    said = refused("--data", "images", "--data-root", "pictures", "--set", "data.patch_size=32")
    assert "deep.tif has 32 bits a pixel (mode I) of unknown range: save it with 8 or 16 bits" in said


@pytest.mark.slow
def test_the_first_search_leaves_a_student_that_reproduces_its_psnr_and_pictures(cli: Cli, tmp_path: Path) -> None:
    searched = cli("search", "sr_kd", "--trials", "3", "--name", "run", *SMALL, cwd=tmp_path)
    assert searched.returncode == 0, searched.stderr
    assert "training the teacher attention_sr once, 1 epochs" in searched.stdout
    best = tmp_path / "runs" / "run" / "best"
    facts = json.loads((best / "metrics.json").read_text())
    assert (facts["task"], facts["metric"]) == ("super_resolution", "psnr")
    assert facts["value"] == facts["validation"]["psnr"]
    assert facts["value"] > facts["bicubic"]["psnr"] - 1
    again = cli("evaluate", str(best), "--json", cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    assert json.loads(again.stdout)["metrics"]["psnr"] == pytest.approx(facts["value"], abs=1e-9)
    tested = json.loads(cli("evaluate", str(best), "--split", "test", "--json", cwd=tmp_path).stdout)
    assert 15 < tested["metrics"]["psnr"] < 60
    samples = next(path for path in best.rglob("*samples*.png"))
    with Image.open(samples) as grid:
        assert grid.width > 5 * 192


@pytest.mark.slow
def test_a_folder_is_streamed_and_swinir_teaches_from_a_checkpoint(cli: Cli, tmp_path: Path) -> None:
    from spandrel.architectures.SwinIR import SwinIR

    network = SwinIR(img_size=16, window_size=8, embed_dim=12, depths=[2], num_heads=[2], upscale=2,
                     upsampler="pixelshuffledirect")  # fmt: skip
    torch.save({"params": network.state_dict()}, tmp_path / "light_x2.pth")
    for place in range(6):
        save(picture(81, 70 + place, place), tmp_path / "DIV2K" / "DIV2K_train_HR" / f"{place:04d}.png")
    save(picture(90, 83, 7), tmp_path / "DIV2K" / "DIV2K_valid_HR" / "0801.png")
    searched = cli(
        "search", "sr_kd", "--data", "images", "--data-root", "DIV2K", "--teacher", "swinir:./light_x2.pth",
        "--set", "data.scale=2", "--set", "data.in_memory=false", "--set", "data.workers=1", "--trials", "2",
        "--set", "teacher.arguments={}", "--name", "run", *SMALL, cwd=tmp_path,
    )  # fmt: skip
    assert searched.returncode == 0, searched.stderr
    facts = json.loads((tmp_path / "runs" / "run" / "best" / "metrics.json").read_text())
    assert facts["student"]["scale"] == 2
