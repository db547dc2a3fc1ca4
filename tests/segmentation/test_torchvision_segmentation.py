"""torchvision's segmentation networks: one tensor of the image's size, torchvision's own numbers, weights from disk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torchvision import models as published  # type: ignore[import-untyped]

from kdsearch import models
from kdsearch.errors import BadWeights, InvalidSetting, UnknownName, UserError
from kdsearch.settings import NetworkSettings

NAMES = published.list_models(module=published.segmentation)
SMALL = "lraspp_mobilenet_v3_large"
DEEPLAB = "deeplabv3_mobilenet_v3_large"


def build(name: str, classes: int = 6, size: tuple[int, int] = (72, 96), **changes: Any) -> nn.Module:
    settings = NetworkSettings(
        name=f"torchvision:{name}", **{key: v for key, v in changes.items() if key != "channels"}
    )
    channels = changes.get("channels", 3)
    return models.build(
        settings, outputs=classes, channels=channels, size=size, task="segmentation", shape=(classes, *size)
    )


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder where torchvision keeps what it downloads."""
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    (tmp_path / "checkpoints").mkdir()
    return tmp_path / "checkpoints"


def as_published(name: str, **options: Any) -> nn.Module:
    torch.manual_seed(3)
    network: nn.Module = published.get_model(name, weights=None, weights_backbone=None, **options)
    return network.eval()


def file_name(name: str) -> str:
    return Path(published.get_model_weights(name)["DEFAULT"].url).name


@pytest.mark.parametrize("name", [DEEPLAB, SMALL, "fcn_resnet50"])
def test_it_is_torchvisions_network_without_the_auxiliary_head(name: str) -> None:
    theirs, ours = as_published(name, num_classes=6), build(name).eval()
    ours.load_state_dict(theirs.state_dict())
    images = torch.randn(2, 3, 72, 96)
    with torch.no_grad():
        torch.testing.assert_close(ours(images), theirs(images)["out"])
    assert ours(images).shape == (2, 6, 72, 96)


def test_every_network_of_torchvision_is_there_and_others_are_not() -> None:
    assert DEEPLAB in NAMES
    assert len(NAMES) == 6
    assert all(models.sources.find(f"torchvision:{name}", "segmentation") for name in NAMES)
    with pytest.raises(UnknownName, match="deeplabv3_resnet50"):
        build("deeplabv3_resnet5")
    with pytest.raises(InvalidSetting, match="takes none"):
        build(SMALL, arguments={"aux_loss": True})


def test_numbers_of_parameters_are_those_that_torchvision_publishes() -> None:
    """For the 21 classes of VOC; of the second torchvision counts the auxiliary head too."""
    sizes = {name: sum(p.numel() for p in build(name, 21).parameters()) for name in (SMALL, DEEPLAB)}
    assert sizes[SMALL] == published.get_model_weights(SMALL)["DEFAULT"].meta["num_params"] == 3_221_538
    auxiliary = sum(p.numel() for p in as_published(DEEPLAB, aux_loss=True).aux_classifier.parameters())  # type: ignore
    assert sizes[DEEPLAB] + auxiliary == published.get_model_weights(DEEPLAB)["DEFAULT"].meta["num_params"]


def test_small_images_get_a_stem_that_does_not_shrink_them_and_grey_ones_one_channel() -> None:
    strides = {
        size: next(m.stride for m in build(SMALL, size=(size, size)).modules() if isinstance(m, nn.Conv2d))
        for size in (48, 96)
    }
    assert strides == {48: (1, 1), 96: (2, 2)}
    assert build(SMALL, channels=1).eval()(torch.zeros(1, 1, 72, 96)).shape == (1, 6, 72, 96)


def test_pretrained_weights_that_are_not_on_disk_are_refused_and_nothing_is_downloaded(cache: Path) -> None:
    with pytest.raises(BadWeights, match=f"not on this machine: put {file_name(SMALL)} into"):
        build(SMALL, weights="pretrained")
    (cache / file_name(SMALL)).write_bytes(b"half a file")
    with pytest.raises(BadWeights, match="damaged"):
        build(SMALL, weights="pretrained")
    with pytest.raises(BadWeights, match="3 channels, not 1"):
        build(SMALL, weights="pretrained", channels=1)


@pytest.mark.parametrize("name", [DEEPLAB, SMALL])
def test_pretrained_weights_on_disk_are_taken_but_for_the_logits_of_other_classes(name: str, cache: Path) -> None:
    options = {"aux_loss": True} if name == DEEPLAB else {}
    theirs = as_published(name, num_classes=21, **options)
    torch.save(theirs.state_dict(), cache / file_name(name))
    images = torch.randn(1, 3, 72, 96)
    with torch.no_grad():
        torch.testing.assert_close(build(name, 21, weights="pretrained").eval()(images), theirs(images)["out"])
    other = build(name, 6, weights="pretrained")
    state = theirs.state_dict()
    redrawn = [key for key, value in other.state_dict().items() if not torch.equal(value, state[key])]
    assert redrawn
    assert all(key.startswith("classifier.") and state[key].shape[0] == 21 for key in redrawn)
    normalisation = models.normalisation(
        NetworkSettings(name=f"torchvision:{name}", weights="pretrained"), other, "segmentation"
    )
    assert normalisation == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def test_weights_of_other_classes_do_not_fit(tmp_path: Path) -> None:
    """What becomes of a teacher that was trained for other classes."""
    torch.save(build(SMALL, 5).state_dict(), tmp_path / "teacher.pth")
    with pytest.raises(BadWeights, match=r"low_classifier\.weight 5×40×1×1 instead of 6×40×1×1"):
        build(SMALL, 6, weights=str(tmp_path / "teacher.pth"))


def test_a_network_that_gives_maps_of_another_size_is_refused(tmp_path: Path) -> None:
    (tmp_path / "half.py").write_text(
        "from torch import nn\ndef half(classes, channels):\n    return nn.Conv2d(channels, classes, 2, stride=2)\n"
    )
    with pytest.raises(UserError, match=r"gives \[1, 6, 8, 8\] for one image, and \[1, 6, 16, 16\] is needed"):
        models.build(
            NetworkSettings(name=f"{tmp_path}/half.py:half"),
            outputs=6,
            channels=3,
            size=(16, 16),
            task="segmentation",
            shape=(6, 16, 16),
        )
