"""Detectors as networks that give one tensor: torchvision's own answers, its weights, and our small one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn
from torchvision.models import detection
from torchvision.models.detection.image_list import ImageList

from kdsearch import models
from kdsearch.errors import BadWeights, InvalidSetting, UnknownName, UserError
from kdsearch.models.multibox import take_apart
from kdsearch.settings import NetworkSettings

SSDLITE = "torchvision:ssdlite320_mobilenet_v3_large"
CLASSES = 4


def build(name: str, side: int = 96, *, channels: int = 3, classes: int = CLASSES, **fields: object) -> nn.Module:
    settings = NetworkSettings(name=name, **fields)
    return models.build(
        settings, outputs=classes + 9, channels=channels, size=(side, side), task="detection", shape=(classes + 9, None)
    )


@pytest.fixture
def torch_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for published weights in which there are none."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    (tmp_path / "hub" / "checkpoints").mkdir(parents=True)
    return tmp_path / "hub" / "checkpoints"


@pytest.mark.parametrize(
    ("name", "side"),
    [
        (SSDLITE, 96),
        (SSDLITE, 320),
        pytest.param("torchvision:ssd300_vgg16", 300, marks=pytest.mark.slow),  # torchvision draws all of VGG twice
    ],
)
def test_outputs_and_anchors_are_torchvisions(name: str, side: int) -> None:
    network = build(name, side).eval()
    theirs = getattr(detection, name.partition(":")[2])(weights=None, weights_backbone=None, num_classes=CLASSES + 1)
    theirs.load_state_dict(network.state_dict())
    theirs.eval()
    images = torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        outputs = network(images)
        features = list(theirs.backbone(images).values())
        head = theirs.head(features)
        anchors = theirs.anchor_generator(ImageList(images, [(side, side)] * 2), features)
    logits, offsets, places = take_apart(outputs)
    torch.testing.assert_close(places, anchors[0])
    torch.testing.assert_close(logits.transpose(1, 2), head["cls_logits"])
    torch.testing.assert_close(offsets, head["bbox_regression"])
    published = {320: 3234, 300: 8732}  # anchors of the papers' own sizes
    assert outputs.shape[2] == published.get(side, outputs.shape[2])


@pytest.mark.parametrize("name", [SSDLITE, "ssd"])
def test_the_output_has_one_form_in_training_and_in_evaluation(name: str) -> None:
    network = build(name)
    images = torch.randn(2, 3, 96, 96)
    training = network(images)
    evaluation = network.eval()(images)
    assert training.shape == evaluation.shape == (2, CLASSES + 9, training.shape[2])
    assert torch.equal(take_apart(training).anchors, take_apart(evaluation).anchors)
    assert training.requires_grad


@pytest.mark.parametrize("name", [SSDLITE, "ssd"])
def test_anchors_follow_the_size_of_the_images(name: str) -> None:
    network = build(name, 96).eval()
    with torch.no_grad():
        larger, direct = network(torch.zeros(1, 3, 128, 160)), build(name, 96).eval()
        torch.testing.assert_close(take_apart(larger).anchors, take_apart(direct(torch.zeros(1, 3, 128, 160))).anchors)
    anchors = take_apart(larger).anchors
    centre = (anchors[:, :2] + anchors[:, 2:]) / 2
    assert (centre > 0).all()
    assert (centre < torch.tensor([160, 128])).all()
    # Side by side they cover the image.
    assert centre[:, 0].max() > 140
    assert centre[:, 1].max() > 110


def test_the_state_dict_holds_weights_alone_and_loads_strictly() -> None:
    first, second = build("ssd"), build("ssd")
    assert "anchors" not in first.state_dict()
    second.load_state_dict(first.state_dict())
    images = torch.randn(2, 3, 96, 96)
    assert torch.equal(first.eval()(images), second.eval()(images))


def test_the_small_detector_is_built_as_it_is_asked_for() -> None:
    assert models.count_parameters(build("ssd", 64)) < 250_000
    wide, narrow = (build("ssd", 64, arguments={"width": width}) for width in (24, 8))
    assert models.count_parameters(wide) > 4 * models.count_parameters(narrow)
    assert build("ssd", 64, channels=1)(torch.zeros(2, 1, 64, 64)).shape[1] == CLASSES + 9
    assert build("ssd", 50)(torch.zeros(2, 3, 50, 50)).shape[1] == CLASSES + 9


def test_other_channels_get_another_first_layer() -> None:
    assert build(SSDLITE, channels=1)(torch.zeros(2, 1, 96, 96)).shape[:2] == (2, CLASSES + 9)


def test_a_detector_of_ones_own_is_told_the_number_of_classes(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "from kdsearch.models.own.ssd import ssd\ndef build(classes, channels, size):\n"
        "    assert classes == 4\n    return ssd(classes, channels, size, width=8)\n"
    )
    assert build(f"{tmp_path}/mine.py:build", 64)(torch.zeros(1, 3, 64, 64)).shape[1] == CLASSES + 9


@pytest.mark.parametrize("name", ["fasterrcnn_resnet50_fpn", "retinanet_resnet50_fpn_v2", "fcos_resnet50_fpn"])
def test_detectors_without_fixed_anchors_are_refused_with_those_that_work(name: str) -> None:
    with pytest.raises(UserError, match=r"take torchvision:ssd300_vgg16 or torchvision:ssdlite320_mobilenet_v3_large"):
        build(f"torchvision:{name}")


def test_a_misspelt_detector_is_answered_with_the_nearest() -> None:
    with pytest.raises(UnknownName, match="did you mean 'ssd300_vgg16'"):
        build("torchvision:ssd300_vgg61")


def test_a_network_for_classification_is_refused_for_detection() -> None:
    with pytest.raises(UserError, match=r"gives \[1, 4\] for one image, and \[1, 13, any\] is needed"):
        build("resnet8")


@pytest.mark.slow
def test_images_too_small_for_the_network_are_refused() -> None:
    with pytest.raises(UserError, match=r"another data\.image_size may help"):
        build("torchvision:ssd300_vgg16", 64)


def test_arguments_that_a_detector_does_not_take_are_refused() -> None:
    with pytest.raises(InvalidSetting, match="takes none"):
        build(SSDLITE, arguments={"score_thresh": 0.5})


def test_published_weights_that_are_not_there_are_refused_with_the_place(torch_home: Path) -> None:
    with pytest.raises(BadWeights, match=r"put ssdlite320_mobilenet_v3_large_coco-\w+\.pth into"):
        build(SSDLITE, weights="pretrained")


def published(classes: int = 91) -> Callable[[Path], dict[str, torch.Tensor]]:
    """Weights of the published form, at random, as a file of the published name."""

    def write(folder: Path) -> dict[str, torch.Tensor]:
        network = detection.ssdlite320_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=classes)
        name = detection.SSDLite320_MobileNet_V3_Large_Weights.DEFAULT.url.rpartition("/")[2]
        torch.save(network.state_dict(), folder / name)
        state: dict[str, torch.Tensor] = network.state_dict()
        return state

    return write


def test_published_weights_are_taken_over_but_for_the_logits_of_other_classes(torch_home: Path) -> None:
    state = published()(torch_home)
    own = build(SSDLITE, weights="pretrained").state_dict()
    redrawn = {key for key in own if own[key].shape != state[key].shape}
    assert redrawn
    assert all(key.startswith("head.classification_head") for key in redrawn)
    assert all(torch.equal(own[key], state[key]) for key in own.keys() - redrawn)
    same = build(SSDLITE, weights="pretrained", classes=90).state_dict()
    assert all(torch.equal(same[key], state[key]) for key in same)
    network = build(SSDLITE, weights="pretrained")
    settings = NetworkSettings(name=SSDLITE, weights="pretrained")
    assert models.normalisation(settings, network, "detection") == ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


def test_published_weights_want_three_channels_and_a_whole_file(torch_home: Path) -> None:
    with pytest.raises(BadWeights, match="3 channels, not 1"):
        build(SSDLITE, weights="pretrained", channels=1)
    published()(torch_home)
    (file,) = torch_home.iterdir()
    file.write_bytes(file.read_bytes()[:5000])
    with pytest.raises(BadWeights, match="is damaged"):
        build(SSDLITE, weights="pretrained")


def test_a_file_of_weights_loads(tmp_path: Path) -> None:
    first = build("ssd")
    torch.save(first.state_dict(), tmp_path / "weights.pth")
    second = build("ssd", weights=str(tmp_path / "weights.pth"))
    assert all(torch.equal(value, second.state_dict()[key]) for key, value in first.state_dict().items())
