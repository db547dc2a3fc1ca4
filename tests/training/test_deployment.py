"""Students as programs of other runtimes: read back here, and compared with the network of the export."""

from __future__ import annotations

import json
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from kdsearch import models
from kdsearch.errors import UserError
from kdsearch.models.runtimes import write_program
from kdsearch.results import write_export
from kdsearch.settings import NetworkSettings
from kdsearch.training.deployment import deploy
from tests.places import told_places
from tests.results.build_run import facts

NEEDS_ONNX = pytest.mark.skipif(
    any(find_spec(name) is None for name in ("onnx", "onnxscript", "onnxruntime")), reason="onnx is not installed"
)
FORMATS = [pytest.param("torch_export", id="torch_export"), pytest.param("onnx", id="onnx", marks=NEEDS_ONNX)]


def exported(
    folder: Path, name: str = "resnet8", channels: int = 1, size: tuple[int, int] = (8, 8), **more: Any
) -> nn.Module:
    """An export of a network of three classes with random weights and statistics; that network."""
    torch.manual_seed(0)
    described = NetworkSettings(name=name)
    network = models.build(described, outputs=3, channels=channels, size=size)
    for module in network.modules():  # as training leaves them: what is folded wrongly shows
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean)
            nn.init.uniform_(module.running_var, 0.5, 2)
    student = {**facts()["student"], "name": name, "outputs": 3, "channels": channels, "size": size, "input": size}
    write_export(
        folder,
        weights=network.state_dict(),
        facts=facts(student={**student, "mean": [0.3] * channels, "std": [0.4] * channels}, **more),
        hyperparameters={"temperature": 4.0},
    )
    return network.eval()


def answer(form: str, path: Path, images: torch.Tensor) -> torch.Tensor:
    if form == "torch_export":
        module: nn.Module = torch.export.load(path).module()
        found: torch.Tensor = module(images)
        return found
    import onnxruntime  # type: ignore[import-not-found, unused-ignore]

    session = onnxruntime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])
    return torch.from_numpy(session.run(["outputs"], {"images": images.numpy()})[0])


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize(
    ("name", "channels", "size"),
    [("resnet8", 1, (8, 8)), pytest.param("mobilenetv3_small_050", 3, (32, 32), marks=pytest.mark.slow)],
)
def test_a_program_answers_as_the_student_for_any_number_of_images(
    tmp_path: Path, form: str, name: str, channels: int, size: tuple[int, int]
) -> None:
    network = exported(tmp_path / "export", name, channels, size)
    noted = deploy(tmp_path / "export", form)
    assert noted["largest_difference"] <= 1e-4
    for count in (1, 3, 9):
        images = torch.rand(count, channels, *size) * 4 - 2
        with torch.no_grad():
            expected = network(images)
        assert torch.allclose(answer(form, tmp_path / "export" / noted["file"], images), expected, atol=1e-4)


@pytest.mark.parametrize("form", FORMATS)
def test_what_a_user_of_the_program_must_know_is_noted(tmp_path: Path, form: str) -> None:
    exported(tmp_path / "export")
    deploy(tmp_path / "export", form)
    noted = json.loads((tmp_path / "export" / "metrics.json").read_text())["deployed"][form]
    path = tmp_path / "export" / noted["file"]
    assert noted["bytes"] == path.stat().st_size
    assert noted["input"] == {"name": "images", "type": "float32", "shape": ["batch", 1, 8, 8]}
    assert noted["output"]["shape"] == ["batch", 3]
    assert noted["preprocessing"] == {"scale": "to [0, 1]", "resize": [8, 8], "mean": [0.3], "std": [0.4]}
    assert noted["latency"]["seconds"] > 0
    card = (tmp_path / "export" / "README.md").read_text()
    assert f"## {path.name}" in card
    assert "mean [0.3]" in card


def test_a_detector_is_written_as_what_it_says_before_suppression(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = models.build(NetworkSettings(name="ssd"), outputs=12, channels=3, size=(64, 64), task="detection")
    student = {
        **facts()["student"],
        "name": "ssd",
        "task": "detection",
        "outputs": 12,
        "channels": 3,
        "size": [64, 64],
        "input": [64, 64],
        "mean": [0.5] * 3,
        "std": [0.2] * 3,
    }
    described = facts(student=student, task="detection")
    write_export(tmp_path / "best", weights=network.state_dict(), facts=described, hyperparameters={})
    noted = deploy(tmp_path / "best", "torch_export")
    assert noted["input"]["shape"] == ["batch", 3, 64, 64]
    assert noted["output"]["shape"] == ["batch", 12, 2 * (16**2 + 8**2 + 4**2)]
    assert "before non-maximum suppression" in (tmp_path / "best" / "README.md").read_text()


def test_a_network_that_enlarges_takes_pictures_of_any_size(tmp_path: Path) -> None:
    network_settings = NetworkSettings(name="attention_sr", arguments={"width": 4, "blocks": 2})
    network = models.build(network_settings, outputs=3, channels=3, size=(12, 12), task="super_resolution", scale=3)
    student = {
        **facts()["student"],
        "name": "attention_sr",
        "arguments": network_settings.arguments,
        "task": "super_resolution",
        "scale": 3,
        "outputs": 3,
        "channels": 3,
        "size": [12, 12],
        "input": None,
        "mean": [0.0] * 3,
        "std": [1.0] * 3,
    }
    described = facts(student=student, task="super_resolution")
    write_export(tmp_path / "best", weights=network.state_dict(), facts=described, hyperparameters={})
    noted = deploy(tmp_path / "best", "torch_export")
    assert noted["input"]["shape"] == ["batch", 3, "height", "width"]
    assert noted["output"]["shape"] == ["batch", 3, "3·height", "3·width"]
    assert "resize" not in noted["preprocessing"]
    images = torch.rand(2, 3, 9, 20)
    with torch.no_grad():
        assert torch.allclose(answer("torch_export", tmp_path / "best" / noted["file"], images), network.eval()(images))


def test_a_network_file_is_run_only_when_that_is_allowed(tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    (tmp_path / "net.py").write_text(
        "from pathlib import Path\nfrom torch import nn\n"
        f"def build(classes, channels):\n    Path({str(ran)!r}).touch()\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(64 * channels, classes))\n"
    )
    place = f"{tmp_path / 'net.py'}:build"
    exported(tmp_path / "run" / "best", place)
    (tmp_path / "run" / "experiment.yaml").write_text(f"student: {{name: '{place}'}}\n")
    ran.unlink()
    with pytest.raises(UserError, match="--allow-code"):
        deploy(tmp_path / "run" / "best", "torch_export", run=tmp_path / "run")
    assert not ran.exists()
    deploy(tmp_path / "run" / "best", "torch_export", run=tmp_path / "run", allow_code=True)
    assert (tmp_path / "run" / "best" / "student.pt2").is_file()


class Undecided(nn.Module):
    """What it does depends on the values it is given: no program without Python can hold that."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.flatten(1) if images.sum() > 0 else -images.flatten(1)


class Restless(nn.Module):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.flatten(1) + torch.rand_like(images.flatten(1))


@pytest.mark.parametrize(
    ("network", "why"), [(Undecided(), "cannot be written as"), (Restless(), "differs from PyTorch")]
)
def test_what_cannot_be_written_is_one_sentence_and_leaves_nothing(
    tmp_path: Path, network: nn.Module, why: str
) -> None:
    with pytest.raises(UserError, match=why) as raised:
        write_program("torch_export", network, (1, 4, 4), tmp_path / "student.pt2")
    assert "\n" not in str(raised.value)
    assert list(tmp_path.iterdir()) == []


def test_without_onnx_the_package_to_install_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(UserError, match="pip install onnx onnxscript onnxruntime"):
        write_program("onnx", nn.Flatten(), (1, 4, 4), tmp_path / "student.onnx")


@pytest.mark.parametrize("form", FORMATS)
def test_no_format_tells_where_it_was_made_and_by_whom(tmp_path: Path, form: str) -> None:
    """Of a network of a person's own file too, whose folder the run knows."""
    (tmp_path / "net.py").write_text(
        "from torch import nn\n"
        "class Net(nn.Sequential): ...\n"
        "def build(classes, channels):\n    return Net(nn.Flatten(), nn.Linear(64 * channels, classes))\n"
    )
    place = f"{tmp_path / 'net.py'}:build"
    exported(tmp_path / "run" / "best", place)
    (tmp_path / "run" / "experiment.yaml").write_text(f"student: {{name: '{place}'}}\n")
    deploy(tmp_path / "run" / "best", form, run=tmp_path / "run", allow_code=True)
    exported(tmp_path / "export")
    deploy(tmp_path / "export", form)
    files = [*(tmp_path / "run" / "best").iterdir(), *(tmp_path / "export").iterdir()]
    assert len(files) == 10
    assert told_places(files, tmp_path) == []
    assert told_places([tmp_path / "run" / "experiment.yaml"], tmp_path) != []  # it would be seen
