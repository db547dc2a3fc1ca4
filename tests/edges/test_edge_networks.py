"""U-Nets: those of segmentation-models-pytorch by name, and a small one of our own."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from kdsearch import models
from kdsearch.errors import BadWeights, InvalidSetting, UnknownName, UserError
from kdsearch.models.from_smp import SMPSource
from kdsearch.models.own.unet import unet
from kdsearch.settings import NetworkSettings


def build(name: str, size: tuple[int, int] = (64, 96), **given: Any) -> nn.Module:
    settings = NetworkSettings(name=name, **{key: given.pop(key) for key in ("weights", "arguments") if key in given})
    outputs, channels = given.pop("outputs", 1), given.pop("channels", 3)
    return models.build(
        settings, outputs=outputs, channels=channels, size=size, task="edges", shape=(outputs, *size), **given
    )


@pytest.mark.parametrize(
    ("name", "parameters"), [("smp:unet:mobilenet_v2", 6_628_945), ("smp:unet:resnet34", 24_436_369)]
)
def test_the_reports_networks_have_the_reports_parameters(name: str, parameters: int) -> None:
    assert models.count_parameters(build(name)) == parameters


@pytest.mark.parametrize(
    "name", ["smp:fpn:mobilenet_v2", "smp:linknet:mobilenet_v2", "smp:unet:tu-mobilenetv3_small_050"]
)
def test_any_architecture_goes_on_any_encoder(name: str) -> None:
    network = build(name, outputs=3, channels=1).eval()
    assert network(torch.randn(2, 1, 64, 96)).shape == (2, 3, 64, 96)


def test_arguments_reach_the_network() -> None:
    network = build("smp:unet:mobilenet_v2", arguments={"decoder_attention_type": "scse"})
    assert any("SCSE" in type(part).__name__ for part in network.modules())


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("smp:unett:resnet34", "did you mean 'unet'"),
        ("smp:unet:mobilenetv2", "did you mean 'mobilenet_v2'"),
        ("smp:unet:tu-nothing", "unknown encoder"),
        ("smp:unet", "unknown encoder"),
    ],
)
def test_a_name_that_does_not_exist_is_refused(name: str, said: str) -> None:
    with pytest.raises(UnknownName, match=said):
        build(name)


def test_a_size_that_the_strides_do_not_divide_is_refused_with_sizes_that_they_do() -> None:
    with pytest.raises(InvalidSetting, match=r"data.image_size = '100×70'.*multiples of 32, such as 64 or 96"):
        build("smp:fpn:mobilenet_v2", size=(100, 70))
    odd = build("smp:unet:mobilenet_v2", size=(100, 70)).eval()  # a U-Net joins maps of any size
    assert odd(torch.zeros(1, 3, 100, 70)).shape == (1, 1, 100, 70)


def test_a_size_at_which_a_network_fails_is_refused_without_a_word_of_our_own_files() -> None:
    with pytest.raises(UserError, match=r"smp:pan:mobilenet_v2 fails on images of 32×32 pixels: \w+") as raised:
        build("smp:pan:mobilenet_v2", size=(32, 32))
    assert ".py" not in str(raised.value)


def test_an_argument_that_the_network_does_not_take_is_refused() -> None:
    with pytest.raises(InvalidSetting, match="arguments"):
        build("smp:unet:mobilenet_v2", arguments={"encoder_depth": 9})


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of the hub."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    return tmp_path


def cached(hub: Path, encoder: str) -> Path:
    """Where the hub keeps the weights of an encoder."""
    from segmentation_models_pytorch.encoders import encoders  # type: ignore[import-untyped]

    published = encoders[encoder]["pretrained_settings"]["imagenet"]
    folder = hub / f"models--{published['repo_id'].replace('/', '--')}" / "snapshots" / published["revision"]
    folder.mkdir(parents=True)
    return folder


def test_pretrained_weights_that_are_not_on_disk_are_refused_with_the_way_to_them(hub: Path) -> None:
    with pytest.raises(BadWeights, match=r"hf download smp-hub/mobilenet_v2.imagenet --revision"):
        build("smp:unet:mobilenet_v2", weights="pretrained")
    with pytest.raises(BadWeights, match="publishes no ImageNet weights"):
        build("smp:unet:tu-mobilenetv3_small_050", weights="pretrained")


@pytest.mark.parametrize("channels", [1, 3])
def test_pretrained_weights_on_disk_are_the_encoders(hub: Path, channels: int) -> None:
    torch.manual_seed(0)
    published: Any = SMPSource("unet:mobilenet_v2").build(outputs=1, channels=3, size=(64, 64), arguments={})
    state = {name: tensor.contiguous() for name, tensor in published.encoder.state_dict().items()}
    folder = cached(hub, "mobilenet_v2")
    save_file(state, folder / "model.safetensors")
    (folder / "config.json").write_text('{"mean": [0.4, 0.5, 0.6], "std": [0.1, 0.2, 0.3]}')
    settings = NetworkSettings(name="smp:unet:mobilenet_v2", weights="pretrained")
    network: Any = build("smp:unet:mobilenet_v2", weights="pretrained", channels=channels)
    own = network.encoder.state_dict()
    assert all(torch.equal(own[name], state[name]) for name in state if name != "features.0.0.weight")
    first = state["features.0.0.weight"] if channels == 3 else state["features.0.0.weight"].sum(1, keepdim=True)
    torch.testing.assert_close(own["features.0.0.weight"], first)
    mean, _ = models.normalisation(settings, network, "edges") or ((), ())
    assert mean == pytest.approx((0.4, 0.5, 0.6) if channels == 3 else (0.5,))


def test_truncated_weights_are_refused(hub: Path) -> None:
    (cached(hub, "mobilenet_v2") / "model.safetensors").write_bytes(b"\x10\x00\x00\x00\x00\x00\x00\x00{}")
    with pytest.raises(BadWeights, match="cannot be used"):
        build("smp:unet:mobilenet_v2", weights="pretrained")


@pytest.mark.parametrize("size", [(64, 64), (33, 50), (8, 9)])
def test_our_own_takes_images_of_any_size(size: tuple[int, int]) -> None:
    network = build("unet", size=size, outputs=2, channels=1)
    answer = network(torch.randn(2, 1, *size))
    assert answer.shape == (2, 2, *size)
    answer.sum().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())


def test_our_own_is_as_wide_and_deep_as_it_is_told() -> None:
    def by_hand(width: int, depth: int, classes: int, channels: int) -> int:
        def block(inputs: int, outputs: int) -> int:
            return 9 * outputs * (inputs + outputs) + 4 * outputs

        widths = [width * 2**level for level in range(depth + 1)]
        down = sum(block(*pair) for pair in zip([channels, *widths], widths, strict=False))
        up = sum(block(fine + coarse, fine) for fine, coarse in itertools.pairwise(widths))
        return down + up + widths[0] * classes + classes

    for width, depth in ((4, 2), (8, 3), (5, 0)):
        network = build("unet", arguments={"width": width, "depth": depth}, outputs=3)
        assert models.count_parameters(network) == by_hand(width, depth, 3, 3)


def test_what_our_own_answers_depends_on_far_pixels_and_on_near_ones() -> None:
    network = build("unet", size=(32, 32)).eval()
    images = torch.randn(1, 3, 32, 32, requires_grad=True)
    network(images)[0, 0, 16, 16].backward()
    assert images.grad is not None
    seen = images.grad[0].abs().sum(0) > 0
    assert seen[16, 16]
    assert seen[2, 16]
    assert seen[16, 29]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"depth": 7}, "vanish"),
        ({"width": 0}, "at least one channel"),
        ({"depth": -1}, "0 to 8"),
        ({"wdth": 3}, "wdth"),
    ],
)
def test_arguments_that_make_no_network_are_refused(arguments: dict[str, int], said: str) -> None:
    with pytest.raises(Exception, match=said) as raised:
        build("unet", arguments=arguments)
    assert getattr(raised.value, "exit_code", None) == 2


def test_its_docstring_states_its_size() -> None:
    for width in (4, 8, 16):
        parameters = models.count_parameters(unet(1, (96, 96), width=width))
        assert f"{parameters:,}" in (unet.__doc__ or "")
