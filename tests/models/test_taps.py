"""Features tapped from networks of every family, and second copies of their later layers."""

from __future__ import annotations

import copy
import gc
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn.functional import max_pool2d

from kdsearch import models
from kdsearch.errors import UserError
from kdsearch.models.chain import Chain
from kdsearch.settings import NetworkSettings

TINY = f"{Path(__file__).parent}/tiny_networks.py:"

# Sub-modules that should be tapped, read off the libraries' code, with channels and size for images of 32×32.
FAMILIES = {
    "resnet8": [("layer1", 16, (32, 32)), ("layer2", 32, (16, 16)), ("layer3", 64, (8, 8))],
    "wrn_16_2": [("block1", 32, (32, 32)), ("block2", 64, (16, 16)), ("relu", 128, (8, 8))],
    f"{TINY}resnet": [
        ("layer1", 64, (8, 8)),
        ("layer2", 128, (4, 4)),
        ("layer3", 256, (2, 2)),
        ("layer4", 512, (1, 1)),
    ],
    f"{TINY}vgg": [
        ("features.6", 16, (16, 16)),
        ("features.13", 24, (8, 8)),
        ("features.20", 32, (4, 4)),
        ("features.27", 32, (2, 2)),
    ],
    f"{TINY}shufflenet_v2": [("stage2", 16, (16, 16)), ("stage3", 32, (8, 8)), ("conv5", 96, (4, 4))],
    f"{TINY}mobilenet_v2": [
        ("features.1", 8, (32, 32)),
        ("features.3", 8, (16, 16)),
        ("features.5", 8, (8, 8)),
        ("features.8", 1280, (4, 4)),
    ],
    "mobilenetv2_050": [
        ("blocks.1", 16, (16, 16)),
        ("blocks.2", 16, (8, 8)),
        ("blocks.4", 48, (4, 4)),
        ("bn2", 1280, (2, 2)),
    ],
    f"{TINY}vit": [(f"blocks.{block}", 24, (17, 1)) for block in (1, 2, 3, 5)],
    f"{TINY}mvit_v2": [
        ("stages.0", 8, (64, 1)),
        ("stages.1", 16, (16, 1)),
        ("stages.2", 32, (4, 1)),
        ("norm", 64, (1, 1)),
    ],
}


def build(name, channels=3, size=(32, 32), **arguments):
    settings = NetworkSettings(name=name, arguments=arguments)
    return models.build(settings, outputs=5, channels=channels, size=size)


def stages_of(network, shape=(1, 3, 32, 32)):
    return models.find_stages(network, torch.zeros(shape))


@pytest.mark.parametrize("name", FAMILIES)
def test_the_stages_of_every_family_are_found(name):
    stages = stages_of(build(name))
    assert [(stage.name, stage.channels, stage.size) for stage in stages] == FAMILIES[name]
    assert all(stage.is_tokens == ("vit" in name) for stage in stages)


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("name", FAMILIES)
def test_taps_give_the_networks_own_logits_and_features_of_the_stages(name, batch):
    network = build(name).eval()
    stages = stages_of(network)
    images = torch.rand(batch, 3, 32, 32)
    logits, features = models.Taps(network, stages)(images)
    assert torch.equal(logits, network(images))
    assert [tuple(feature.shape) for feature in features] == [(batch, s.channels, *s.size) for s in stages]


def test_features_are_those_computed_by_hand():
    network = build("resnet8").train()
    images = torch.rand(4, 3, 32, 32)
    first = network.layer1(torch.relu(network.bn1(network.conv1(images))))
    second = network.layer2(first)
    third = network.layer3(second)
    _, features = models.Taps(network, stages_of(network))(images)
    for feature, expected in zip(features, (first, second, third), strict=True):
        torch.testing.assert_close(feature, expected, rtol=0, atol=0)


def test_tokens_are_transposed_with_the_class_token_first():
    network = build(f"{TINY}vit", depth=4).eval()
    images = torch.rand(2, 3, 32, 32)
    tokens = network.forward_features(images)  # behind the last block and the final norm
    _, features = models.Taps(network, stages_of(network))(images)
    last = network.norm(features[-1].squeeze(-1).transpose(1, 2))
    torch.testing.assert_close(last, tokens)
    assert [stage.name for stage in stages_of(network)] == [f"blocks.{index}" for index in range(4)]


def test_an_mvit_with_class_token_keeps_its_stages():
    stages = stages_of(build(f"{TINY}mvit_v2", class_token=True))
    assert [stage.size for stage in stages] == [(65, 1), (17, 1), (5, 1), (2, 1)]


def test_channels_last_features_are_turned():
    network = swin()
    stages = stages_of(network)
    assert [stage.size for stage in stages] == [(8, 8), (4, 4), (2, 2)]
    assert [stage.channels for stage in stages] == [12, 24, 48]
    images = torch.rand(2, 3, 32, 32)
    features = models.Taps(network.eval(), stages)(images)[1]
    expected = network.layers[0](network.patch_embed(images))
    torch.testing.assert_close(features[0], expected.permute(0, 3, 1, 2))


def swin():
    from timm.models.swin_transformer import SwinTransformer

    return SwinTransformer(
        img_size=32, patch_size=4, num_classes=5, embed_dim=12, depths=(1, 1, 1), num_heads=(1, 2, 4), window_size=4
    )


class Written(nn.Module):
    """A network as one writes it: functional activations, one pooling module for all, writing in place."""

    def __init__(self, in_place=True):
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3, padding=1)
        self.second = nn.Conv2d(4, 6, 3, padding=1)
        self.third = nn.Conv2d(6, 8, 3, padding=1)
        self.pool = nn.MaxPool2d(2)
        self.head = nn.Linear(8, 5)
        self.in_place = in_place

    def forward(self, images):
        activate = torch.relu_ if self.in_place else torch.relu
        features = self.pool(activate(self.first(images)))
        features = self.pool(activate(self.second(features)))
        features = activate(self.third(features))
        return self.head(features.mean((2, 3)))


def test_features_that_the_network_overwrites_are_copied():
    torch.manual_seed(0)
    network = Written()
    stages = stages_of(network)
    assert [stage.name for stage in stages] == ["first", "second", "third"]
    assert all(stage.overwritten for stage in stages)
    images = torch.rand(2, 3, 32, 32)
    logits, features = models.Taps(network, stages)(images)
    torch.testing.assert_close(features[0], network.first(images))
    assert features[0].min() < 0
    (logits.sum() + sum(feature.sum() for feature in features)).backward()
    assert not any(stage.overwritten for stage in stages_of(Written(in_place=False)))


class Shrinking(nn.Module):
    """LeNet: unpadded convolutions, so that 32 pixels become 28, 14, 10 and 5."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(1, 6, 5)
        self.second = nn.Conv2d(6, 16, 5)
        self.head = nn.Linear(400, 5)

    def forward(self, images):
        features = max_pool2d(self.first(images).relu(), 2)
        return self.head(max_pool2d(self.second(features).relu(), 2).flatten(1))


def test_a_small_network_keeps_the_stage_of_its_first_convolution():
    assert [stage.size for stage in stages_of(Shrinking(), (1, 1, 32, 32))] == [(28, 28), (10, 10)]


@pytest.mark.parametrize("name", ["resnet8", f"{TINY}mobilenet_v2"])
def test_images_need_not_be_square(name):
    stages = stages_of(build(name), (2, 3, 24, 40))
    assert stages[0].size == (24, 40)
    assert stages[-1].size[1] > stages[-1].size[0]


def test_a_network_without_features_is_refused():
    with pytest.raises(UserError, match="no features to tap"):
        stages_of(nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 5)))


@pytest.mark.parametrize("name", ["resnet8", f"{TINY}vit", f"{TINY}mvit_v2"])
def test_gradients_flow_through_the_features(name):
    network = build(name)
    features = models.Taps(network, stages_of(network))(torch.rand(2, 3, 32, 32))[1]
    # Squared: behind a batch or layer normalisation the plain sum has no gradient.
    sum(feature.square().sum() for feature in features).backward()
    without = {name for name, parameter in network.named_parameters() if parameter.grad is None}
    # Only what follows the last feature gets none.
    assert all(name.startswith(("fc.", "head.", "norm.", "fc_norm.")) for name in without)
    assert len(without) <= 4


def test_finding_and_tapping_leave_the_network_as_it_was():
    network = build("resnet8")
    network.layer2.eval()  # a mode of one part must survive, too
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    modes = [part.training for part in network.modules()]
    torch.manual_seed(1)
    state = torch.get_rng_state()
    stages = stages_of(network)
    assert torch.equal(state, torch.get_rng_state())
    assert modes == [part.training for part in network.modules()]
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())
    taps = models.Taps(network, stages)
    taps(torch.rand(2, 3, 32, 32))
    assert network.state_dict().keys() == before.keys()
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in network.modules())


def test_hooks_are_gone_after_a_failed_call_as_well():
    network = build("resnet8")
    taps = models.Taps(network, stages_of(network))
    with pytest.raises(RuntimeError):
        taps(torch.rand(2, 7, 32, 32))
    assert not any(part._forward_hooks for part in network.modules())


def test_a_copy_of_the_network_is_tapped_apart_from_it():
    network = build("resnet8").eval()
    stages = stages_of(network)
    taps = models.Taps(network, stages)
    images = torch.rand(2, 3, 32, 32)
    snapshot = copy.deepcopy(network)
    before = models.Taps(snapshot, stages)(images)[1]
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1)
    after = models.Taps(snapshot, stages)(images)[1]
    assert all(torch.equal(one, other) for one, other in zip(before, after, strict=True))
    assert not torch.equal(taps(images)[1][0], after[0])


def test_thousands_of_taps_leave_nothing_behind():
    network = build("resnet8", size=(8, 8))
    stages = stages_of(network, (1, 3, 8, 8))
    images = torch.rand(1, 3, 8, 8)
    models.Taps(network, stages)(images)
    gc.collect()
    gc.disable()
    try:
        before = len(gc.get_objects())
        for _ in range(1000):
            models.Taps(network, stages)(images)
        assert len(gc.get_objects()) - before < 100, "without the collector: no cycles"
    finally:
        gc.enable()


def test_a_compiled_network_is_tapped_as_well():
    network = build("resnet8", size=(8, 8)).eval()
    images = torch.rand(2, 3, 8, 8)
    stages = stages_of(network, images.shape)
    taps = models.Taps(network, stages)
    expected = taps(images)[1]
    network.compile(backend="eager")
    network(images)
    for _ in range(2):
        features = taps(images)[1]
        assert all(torch.equal(one, other) for one, other in zip(features, expected, strict=True))
    assert stages_of(network, images.shape) == stages


@pytest.mark.parametrize("name", FAMILIES)
def test_the_remaining_layers_follow_each_stage(name):
    network = build(name)
    images = torch.rand(2, 3, 32, 32)
    stages = stages_of(network)
    features = models.Taps(network, stages)(images)[1]
    sizes = []
    for index in range(len(stages)):
        chain = models.remaining(network, index, stages, images)
        assert chain is not None
        assert chain(features[index]).shape == features[-1].shape
        sizes.append(models.count_parameters(chain))
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[-1] == 0


def test_the_remaining_layers_have_the_networks_parameters_in_number_and_spread_but_not_in_value():
    torch.manual_seed(0)
    network = build("resnet20")
    with torch.no_grad():
        network.layer3[0].bn1.weight.fill_(3.0)
        network.layer3[0].bn1.running_mean.fill_(3.0)
    stages = stages_of(network)
    chain = models.remaining(network, 1, stages, torch.zeros(1, 3, 32, 32))
    theirs, ours = network.layer3.state_dict(), chain.units[0].state_dict()
    assert {name: tensor.shape for name, tensor in theirs.items()} == {n: t.shape for n, t in ours.items()}
    weight, own = theirs["1.conv1.weight"], ours["1.conv1.weight"]
    assert weight.data_ptr() != own.data_ptr()
    assert not torch.equal(weight, own)
    assert own.std() == pytest.approx(weight.std().item(), rel=0.02)
    assert torch.equal(ours["0.bn1.weight"], torch.ones(64))
    assert torch.equal(ours["0.bn1.running_mean"], torch.zeros(64))
    assert chain.training
    assert all(parameter.requires_grad for parameter in chain.parameters())


def test_the_remaining_layers_are_drawn_from_the_global_seed():
    network = build("resnet8")
    stages = stages_of(network)
    copies = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        copies.append(models.remaining(network, 0, stages, torch.zeros(1, 3, 32, 32)).units[0][0].conv1.weight)
    assert torch.equal(copies[0], copies[1])
    assert not torch.equal(copies[0], copies[2])


def test_with_the_networks_weights_the_remaining_layers_give_the_last_feature():
    network = build(f"{TINY}mvit_v2").eval()
    stages = stages_of(network)
    images = torch.rand(2, 3, 32, 32)
    features = models.Taps(network, stages)(images)[1]
    chain: Chain = models.remaining(network, 0, stages, images).eval()
    chain.units.load_state_dict(
        nn.ModuleList([network.stages[1], network.stages[2], network.stages[3], network.norm]).state_dict()
    )
    torch.testing.assert_close(chain(features[0]), features[-1])


def test_where_something_happens_between_the_modules_there_are_no_remaining_layers():
    torch.manual_seed(0)
    network = Written()
    stages = stages_of(network)
    images = torch.zeros(1, 3, 32, 32)
    assert models.remaining(network, 0, stages, images) is None, "the activations are no modules"
    assert models.remaining(network, 2, stages, images) is not None, "nothing follows the last stage"
