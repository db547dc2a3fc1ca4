"""Networks of the user's own, from a file or a module."""

from __future__ import annotations

import copy
import pickle
import sys

import pytest
import torch

from kdsearch import models
from kdsearch.errors import UnknownName, UserError
from kdsearch.settings import NetworkSettings

FILE = """
from dataclasses import dataclass

from torch import nn
from neighbour import WIDTH


@dataclass
class Plan:
    width: int


class LeNet(nn.Module):
    def __init__(self, classes, channels, plan):
        super().__init__()
        self.first = nn.Conv2d(channels, plan.width, 3, stride=2, padding=1)
        self.second = nn.Conv2d(plan.width, 2 * plan.width, 3, stride=2, padding=1)
        self.head = nn.Linear(2 * plan.width, classes)

    def forward(self, images):
        features = self.second(self.first(images).relu()).relu()
        return self.head(features.mean((2, 3)))


def net(classes, channels=3, width=WIDTH):
    return LeNet(classes, channels, Plan(width))


def sized(classes, channels, size):
    return nn.Sequential(nn.Flatten(), nn.Linear(channels * size[0] * size[1], classes))


def for_32_pixels(classes, channels):
    return nn.Sequential(nn.Flatten(), nn.Linear(channels * 32 * 32, classes))


def needy(classes, depth):
    return LeNet(classes, 3, Plan(depth))


def broken(classes):
    return classes.undefined


def no_network():
    return 3


def ten_classes():
    return LeNet(10, 3, Plan(4))


class Breaks(nn.Module):
    def forward(self, images):
        return images.missing


def breaks_later():
    return Breaks()
"""


@pytest.fixture
def file(tmp_path):
    (tmp_path / "my_net.py").write_text(FILE)
    (tmp_path / "neighbour.py").write_text("WIDTH = 6\n")
    yield tmp_path / "my_net.py"
    sys.modules.pop("neighbour", None)


def build(name, outputs=7, channels=3, size=(32, 32), **settings):
    return models.build(NetworkSettings(name=str(name), **settings), outputs=outputs, channels=channels, size=size)


def test_a_function_of_a_file_gets_what_its_signature_names(file):
    network = build(f"{file}:net", channels=1)
    assert network.first.weight.shape == (6, 1, 3, 3)
    assert network.head.weight.shape == (7, 12)
    assert build(f"{file}:net", arguments={"width": 9}).first.out_channels == 9


def test_the_stem_of_a_users_network_changes_only_when_asked(file):
    assert build(f"{file}:net").first.stride == (2, 2)
    assert build(f"{file}:net", stem="small").first.stride == (1, 1)


def test_a_users_network_survives_copying_and_pickling(file):
    network = build(f"{file}:net")
    images = torch.rand(2, 3, 32, 32)
    for other in (copy.deepcopy(network), pickle.loads(pickle.dumps(network))):
        assert torch.equal(other(images), network(images))


def test_the_same_file_is_imported_once_and_a_changed_one_anew(file):
    first, again = build(f"{file}:net"), build(f"{file}:net")
    assert type(first) is type(again)
    file.write_text(FILE.replace("2 * plan.width", "3 * plan.width"))
    assert build(f"{file}:net").head.in_features == 18


def test_a_function_of_a_module_is_found():
    network = build("torchvision.models:shufflenet_v2_x0_5", arguments={"num_classes": 7})
    assert network(torch.rand(2, 3, 32, 32)).shape == (2, 7)


def test_a_network_that_fits_one_size_gets_images_of_that_size(file):
    assert build(f"{file}:sized", size=(5, 9))[1].in_features == 3 * 45
    network = build(f"{file}:for_32_pixels", channels=1, size=(8, 8))
    settings = NetworkSettings(name=f"{file}:for_32_pixels")
    assert models.resolve_size(network, settings, 1, (8, 8)) == (32, 32)


def line_of(text):
    return 1 + FILE[: FILE.index(text)].count("\n")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("broken", rf"broken failed: AttributeError: .*undefined.*my_net.py, line {line_of('classes.undefined')}\)"),
        ("breaks_later", rf"AttributeError: .*missing.*my_net.py, line {line_of('images.missing')}\)"),
        ("needy", "needs depth"),
        ("no_network", r"must return a torch.nn.Module, not int"),
        ("ten_classes", r"gives \[1, 10\] for one image, and \[1, 7\] is needed"),
    ],
)
def test_a_failure_in_the_users_code_is_one_sentence_that_says_where(file, name, message):
    with pytest.raises(UserError, match=message) as caught:
        build(f"{file}:{name}")
    assert "\n" not in str(caught.value)


def test_wrong_names_get_the_nearest(file):
    with pytest.raises(UnknownName, match="did you mean 'net'"):
        build(f"{file}:nett")
    with pytest.raises(UnknownName, match="did you mean 'width'"):
        build(f"{file}:net", arguments={"widht": 3})
    with pytest.raises(UserError, match=r"there is no file '.*my_nett\.py'"):
        build(str(file).replace("my_net", "my_nett") + ":net")
    with pytest.raises(UserError, match=r"there is no module 'no\.such'"):
        build("no.such:net")


def test_a_file_that_cannot_be_imported_names_its_line_and_leaves_no_module(file):
    file.write_text("import torch\n\nnonsense(\n")
    before = set(sys.modules)
    with pytest.raises(UserError, match=r"SyntaxError: .*my_net\.py, line 3\)"):
        build(f"{file}:net")
    file.write_text("import torch\nimport no_such_module\n")
    with pytest.raises(UserError, match=r"no_such_module.*my_net\.py, line 2\)"):
        build(f"{file}:net")
    assert not {name for name in set(sys.modules) - before if name.startswith("kdsearch_user")}
    assert str(file.parent) not in sys.path
