"""Networks of timm and torchvision: names, stems, channels, sizes."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import nn

from kdsearch import models
from kdsearch.errors import BadWeights, InvalidSetting, UnknownName, UserError
from kdsearch.settings import NetworkSettings

VGG = f"{Path(__file__).parent}/tiny_networks.py:vgg"
TINY_VIT = {"patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 2}


def build(name, outputs=10, channels=3, size=(32, 32), **settings):
    return models.build(NetworkSettings(name=name, **settings), outputs=outputs, channels=channels, size=size)


def resolved(network, name, channels, size, **settings):
    return models.resolve_size(network, NetworkSettings(name=name, **settings), channels, size)


@pytest.mark.parametrize(("name", "parameters"), [("mobilenetv2", 2_351_972), ("mobilenetv2_050", 815_780)])
def test_mobilenets_have_the_published_number_of_parameters(name, parameters):
    assert models.count_parameters(build(name, outputs=100)) == parameters


def test_resnet101_with_the_small_stem_has_42_70_million_parameters():
    network = build("resnet101", outputs=100)
    assert round(models.count_parameters(network) / 1e6, 2) == 42.70
    assert network.conv1.kernel_size == (3, 3)
    assert network.conv1.stride == (1, 1)
    assert isinstance(network.maxpool, nn.Identity)


@pytest.mark.parametrize("name", ["resnet18", "torchvision:resnet18"])
@pytest.mark.parametrize(
    ("stem", "size", "side"),
    [("auto", 64, 64), ("auto", 65, 17), ("small", 96, 96), ("large", 32, 8)],
)
def test_the_stem_follows_the_setting_and_the_size_of_the_images(name, stem, size, side):
    network = build(name, size=(size, size), stem=stem)
    first = models.find_stages(network, torch.zeros(1, 3, size, size))[0]
    assert (first.name, first.size) == ("layer1", (side, side))


@pytest.mark.parametrize(
    ("name", "deepest"),
    [("mobilenetv2_050", 2), ("torchvision:mobilenet_v2", 2), ("torchvision:shufflenet_v2_x0_5", 4), ("resnet26d", 4)],
)
def test_the_small_stem_keeps_the_full_resolution_up_to_the_first_block(name, deepest):
    """Their strides behind the stem are 2^4 (MobileNetV2) and 2^3 (ShuffleNetV2, ResNet)."""
    network = build(name, stem="small")
    assert models.find_stages(network, torch.zeros(1, 3, 32, 32))[-1].size == (deepest, deepest)


def test_the_small_stem_keeps_weights_whose_shape_stays():
    torch.manual_seed(0)
    plain = timm.create_model("mobilenetv2_050", num_classes=10)
    torch.manual_seed(0)
    network = build("mobilenetv2_050")
    assert network.conv_stem.stride == (1, 1)
    assert plain.conv_stem.stride == (2, 2)
    assert torch.equal(network.conv_stem.weight, plain.conv_stem.weight)


@pytest.mark.parametrize("name", [VGG, "resnet8"])
def test_the_small_stem_leaves_networks_alone_whose_first_convolution_has_stride_1(name):
    strides = {
        stem: [part.stride for part in build(name, stem=stem).modules() if isinstance(part, (nn.Conv2d, nn.MaxPool2d))]
        for stem in ("small", "large")
    }
    assert strides["small"] == strides["large"]


def test_the_small_stem_leaves_transformers_alone():
    network = build("vit_tiny_patch16_224", stem="small", arguments=TINY_VIT)
    assert network.patch_embed.proj.kernel_size == (8, 8)


@pytest.mark.parametrize("channels", [1, 5])
@pytest.mark.parametrize("name", ["mobilenetv2_050", "torchvision:shufflenet_v2_x0_5", "torchvision:squeezenet1_1"])
def test_networks_take_any_number_of_channels(name, channels):
    network = build(name, channels=channels)
    assert network.eval()(torch.zeros(2, channels, 32, 32)).shape == (2, 10)


@pytest.mark.parametrize("name", ["mobilenetv2_050", "torchvision:shufflenet_v2_x0_5"])
def test_a_state_dict_loads_strictly_into_what_the_same_settings_build(name):
    network = build(name, channels=1)
    again = build(name, channels=1)
    again.load_state_dict(network.state_dict(), strict=True)
    images = torch.rand(2, 1, 32, 32)
    assert torch.equal(network.eval()(images), again.eval()(images))


def test_transformers_are_built_for_the_size_of_the_images():
    network = build("vit_tiny_patch16_224", size=(24, 40), arguments=TINY_VIT)
    assert network.patch_embed.grid_size == (3, 5)
    assert resolved(network, "vit_tiny_patch16_224", 3, (24, 40)) == (24, 40)


def test_images_that_would_vanish_are_enlarged_with_one_message(caplog):
    with caplog.at_level(logging.WARNING, logger="kdsearch"):
        network = build("mobilenetv2", channels=1, size=(8, 8))
        build("mobilenetv2", channels=1, size=(8, 8))
    assert resolved(network, "mobilenetv2", 1, (8, 8)) == (32, 32)
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 1
    assert "8×8" in said[0]
    assert "32×32" in said[0]
    assert "mobilenetv2" in said[0]


@pytest.mark.parametrize(
    ("name", "arguments", "size", "expected"),
    [
        ("resnet18", {}, (8, 8), (8, 8)),  # three strides behind the small stem: one pixel is left
        ("resnet18", {}, (7, 7), (7, 7)),
        ("resnet18", {}, (4, 4), (32, 32)),
        (VGG, {}, (16, 16), (32, 32)),  # five max-pools
        ("vit_tiny_patch16_224", {**TINY_VIT, "patch_size": 16}, (28, 28), (32, 32)),  # the border would be cut off
        ("vit_tiny_patch16_224", TINY_VIT, (40, 24), (40, 24)),
        ("vit_tiny_patch16_224", TINY_VIT, (40, 20), (64, 32)),
    ],
)
def test_the_size_is_as_it_is_or_the_next_multiple_of_32(name, arguments, size, expected):
    network = build(name, channels=1, size=size, arguments=arguments)
    assert resolved(network, name, 1, size, arguments=arguments) == expected


def test_input_size_is_obeyed():
    network = build("vit_tiny_patch16_224", size=(32, 32), input_size=48, arguments=TINY_VIT)
    assert network.patch_embed.grid_size == (6, 6)
    assert resolved(network, "vit_tiny_patch16_224", 3, (32, 32), input_size=48, arguments=TINY_VIT) == (48, 48)


def test_a_size_that_cannot_be_is_refused_with_the_reason():
    with pytest.raises(UserError, match=r":vgg fails on images of 16×16 pixels: RuntimeError: .* too small"):
        build(VGG, input_size=16)
    with pytest.raises(UserError, match=r"inception_v3 fails on images of 32×32 pixels: .*another input_size may help"):
        build("torchvision:inception_v3")
    with pytest.raises(InvalidSetting, match="square"):
        build("torchvision:vit_b_32", size=(32, 64))


def test_building_leaves_statistics_and_gradients_untouched():
    network = build("mobilenetv2_050")
    assert network.bn1.num_batches_tracked == 0
    assert torch.equal(network.bn1.running_mean, torch.zeros_like(network.bn1.running_mean))
    assert all(parameter.requires_grad and parameter.grad is None for parameter in network.parameters())
    assert all(part.training for part in network.modules())


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("resnt20", "resnet20"),
        ("mobilnetv2_050", "mobilenetv2_050"),
        ("torchvision:resnt18", "resnet18"),
        ("resnet50.a1_in1kk", "resnet50.a1_in1k"),
    ],
)
def test_an_unknown_name_gets_the_nearest_and_no_endless_list(name, meant):
    with pytest.raises(UnknownName, match=f"did you mean '{meant}'") as caught:
        build(name)
    assert len(str(caught.value)) < 800


@pytest.mark.parametrize("name", ["mobilenetv2_050", "torchvision:resnet18"])
def test_arguments_reach_the_network_and_wrong_ones_are_named(name):
    with pytest.raises(InvalidSetting, match="depht"):
        build(name, arguments={"depht": 3})


def test_networks_with_several_outputs_give_one():
    network = build("torchvision:googlenet", channels=1)
    assert network.train()(torch.rand(2, 1, 32, 32)).shape == (2, 10)


@pytest.mark.parametrize("name", ["mobilenetv2_050", "torchvision:resnet18", "resnet8"])
def test_pretrained_weights_that_cannot_be_had_are_an_error_of_one_sentence(name, monkeypatch, tmp_path):
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    with pytest.raises(BadWeights, match=name) as caught:
        build(name, weights="pretrained")
    assert "\n" not in str(caught.value)


def test_pretrained_timm_weights_are_adapted_to_classes_channels_and_stem(monkeypatch, tmp_path):
    """From the hub's cache, where a downloaded file would lie."""
    import huggingface_hub.constants

    published = timm.create_model("mobilenetv2_050")
    folder = tmp_path / f"models--{published.pretrained_cfg['hf_hub_id'].replace('/', '--')}"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text("1" * 40)
    (folder / "snapshots" / ("1" * 40)).mkdir(parents=True)
    save_file(published.state_dict(), folder / "snapshots" / ("1" * 40) / "model.safetensors")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))

    network = build("mobilenetv2_050", channels=1, weights="pretrained")
    assert network.conv_stem.stride == (1, 1)
    torch.testing.assert_close(network.conv_stem.weight, published.conv_stem.weight.sum(1, keepdim=True))
    assert torch.equal(network.conv_head.weight, published.conv_head.weight)
    assert network.classifier.weight.shape == (10, 1280)


def test_pretrained_torchvision_weights_are_adapted_to_classes_channels_and_stem(monkeypatch, tmp_path):
    """From the cache, where a downloaded file would lie."""
    import torchvision

    published = torchvision.models.resnet18()
    url = torchvision.models.ResNet18_Weights.DEFAULT.url
    file = tmp_path / "hub" / "checkpoints" / url.rpartition("/")[2]
    file.parent.mkdir(parents=True)
    torch.save(published.state_dict(), file)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))

    network = build("torchvision:resnet18", channels=1, size=(96, 96), weights="pretrained")
    assert torch.equal(network.layer3[0].conv1.weight, published.layer3[0].conv1.weight)
    torch.testing.assert_close(network.conv1.weight, published.conv1.weight.sum(1, keepdim=True))
    assert network.fc.weight.shape == (10, 512)

    small = build("torchvision:resnet18", weights="pretrained")
    assert small.conv1.kernel_size == (3, 3)
    assert torch.equal(small.layer1[0].conv1.weight, published.layer1[0].conv1.weight)


def test_pretrained_weights_bring_their_normalisation():
    settings = NetworkSettings(name="mobilenetv2_050", weights="pretrained")
    colour, grey, five = (timm.create_model("mobilenetv2_050", in_chans=channels) for channels in (3, 1, 5))
    assert models.normalisation(settings, colour) == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    (mean,), (std,) = models.normalisation(settings, grey)
    assert mean == pytest.approx(0.449)
    assert std == pytest.approx(0.226)
    assert models.normalisation(settings, five) is None
    assert models.normalisation(NetworkSettings(name="mobilenetv2_050"), colour) is None
    settings = NetworkSettings(name="torchvision:resnet18", weights="pretrained")
    assert models.normalisation(settings, colour) == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
