"""The residual family of our own: sizes as published, and nothing else imported."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from kdsearch import models
from kdsearch.errors import InvalidSetting
from kdsearch.models.own.residual import PreactivationBlock
from kdsearch.settings import NetworkSettings

# Parameters at 100 classes as counted by the CRD benchmark's own code.
PUBLISHED = {
    "resnet8": 83_892,
    "resnet14": 181_108,
    "resnet20": 278_324,
    "resnet32": 472_756,
    "resnet44": 667_188,
    "resnet56": 861_620,
    "resnet110": 1_736_564,
    "resnet8x4": 1_233_540,
    "resnet32x4": 7_433_860,
    "wrn_16_2": 703_284,
    "wrn_40_1": 569_780,
    "wrn_40_2": 2_255_156,
}


def build(name, outputs=100, channels=3, size=(32, 32), **settings):
    return models.build(NetworkSettings(name=name, **settings), outputs=outputs, channels=channels, size=size)


@pytest.mark.parametrize(("name", "parameters"), PUBLISHED.items())
def test_own_networks_have_the_published_number_of_parameters(name, parameters):
    network = build(name)
    assert models.count_parameters(network) == parameters
    assert network.training
    assert network(torch.zeros(2, 3, 32, 32)).shape == (2, 100)


def test_resnet8_on_digits_has_77754_parameters_and_keeps_8_pixels():
    network = build("resnet8", outputs=10, channels=1, size=(8, 8))
    assert models.count_parameters(network) == 77_754
    assert models.resolve_size(network, NetworkSettings(name="resnet8"), 1, (8, 8)) == (8, 8)


def test_multiply_adds_equal_a_count_by_hand():
    # 3×3 convolutions: positions × 9 × inputs × outputs; shortcuts 1×1; the classifier.
    network = build("resnet8", outputs=10, channels=1, size=(8, 8))
    stem = 64 * 9 * 1 * 16
    first = 2 * 64 * 9 * 16 * 16
    second = 16 * (9 * 16 * 32 + 9 * 32 * 32 + 16 * 32)
    third = 4 * (9 * 32 * 64 + 9 * 64 * 64 + 32 * 64)
    assert models.multiply_adds(network, torch.zeros(1, 1, 8, 8)) == stem + first + second + third + 64 * 10


def test_names_of_tensors_are_those_of_published_state_dicts():
    names = set(build("resnet8").state_dict())
    assert {"conv1.weight", "bn1.running_mean", "layer2.0.downsample.0.weight", "layer3.0.bn2.bias", "fc.bias"} <= names
    names = set(build("wrn_16_2").state_dict())
    assert {"block1.layer.0.convShortcut.weight", "block3.layer.1.conv2.weight", "bn1.weight", "fc.weight"} <= names


def test_a_preactivation_block_of_equal_width_is_the_identity_where_its_last_convolution_is_zero():
    block = PreactivationBlock(4, 4, 1)
    torch.nn.init.zeros_(block.conv2.weight)
    images = torch.randn(2, 4, 5, 5)
    before = images.clone()
    assert torch.equal(block(images), before)
    assert torch.equal(images, before), "the input must not be written over"


IN_ANOTHER_PROCESS = """
import sys
from kdsearch.models import parse_network
parse_network("resnet8")
assert "torch" not in sys.modules, "names need no torch"
import torch
from kdsearch import models, settings
torch.manual_seed(7)
network = models.build(settings.NetworkSettings(name="resnet8"), outputs=10, channels=1, size=(8, 8))
images = torch.ones(2, 1, 8, 8)
stages = models.find_stages(network, images)
print(network(images).double().sum().item().hex(), models.Taps(network, stages)(images)[1][0].sum().item().hex())
loaded = [name for name in ("timm", "torchvision", "ray") if name in sys.modules]
assert not loaded, f"our own networks need no {loaded}"
"""


def test_the_same_seed_builds_the_same_network_in_another_process_without_timm_and_torchvision():
    done = subprocess.run([sys.executable, "-c", IN_ANOTHER_PROCESS], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    torch.manual_seed(7)
    network = build("resnet8", outputs=10, channels=1, size=(8, 8))
    images = torch.ones(2, 1, 8, 8)
    stages = models.find_stages(network, images)
    mine = [network(images).double().sum().item().hex(), models.Taps(network, stages)(images)[1][0].sum().item().hex()]
    assert mine == done.stdout.split()


def test_a_width_scales_the_channels_of_every_group():
    # By hand, for 8, 8, 16 and 32 channels: stem 88, groups 1,184 + 3,680 + 14,528, classifier 330.
    half = build("resnet8", outputs=10, channels=1, size=(8, 8), arguments={"width": 0.5})
    assert models.count_parameters(half) == 88 + 1_184 + 3_680 + 14_528 + 330
    with pytest.raises(InvalidSetting, match=r"width = 0.0: is a factor"):
        build("resnet8", arguments={"width": 0.0})


def test_building_consumes_no_randomness_beside_the_initialisation():
    torch.manual_seed(3)
    build("resnet8")
    after_build = torch.rand(1)
    torch.manual_seed(3)
    from kdsearch.models.own.residual import resnet8

    resnet8(100)
    assert torch.equal(after_build, torch.rand(1))


def test_the_package_names_exactly_what_it_exports():
    for name in models.__all__:
        assert callable(getattr(models, name))
    with pytest.raises(AttributeError):
        models.bild  # noqa: B018
