"""Weights out of files and exports."""

from __future__ import annotations

import json
import os
import pickle

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

from kdsearch import models
from kdsearch.errors import BadWeights
from kdsearch.settings import NetworkSettings, TeacherSettings

SIZE = (8, 8)


def build(name="resnet8", outputs=10, channels=1, size=SIZE, **settings):
    return models.build(NetworkSettings(name=name, **settings), outputs=outputs, channels=channels, size=size)


def same(one, other):
    mine, theirs = one.state_dict(), other.state_dict()
    return mine.keys() == theirs.keys() and all(torch.equal(mine[name], theirs[name]) for name in mine)


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(5)
    return build()


@pytest.fixture
def export(network, tmp_path):
    folder = tmp_path / "run" / "best"
    folder.mkdir(parents=True)
    save_file(network.state_dict(), folder / "student.safetensors")
    student = {
        "name": "resnet8",
        "stem": "auto",
        "input_size": None,
        "arguments": {},
        "outputs": 10,
        "channels": 1,
        "size": [8, 8],
        "mean": [0.3],
        "std": [0.4],
    }
    (folder / "metrics.json").write_text(json.dumps({"student": student}))
    return folder


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: state,
        lambda state: {"state_dict": state, "epoch": 3},
        lambda state: {"model": state},
        lambda state: {"model": {"state_dict": {f"module.{name}": tensor for name, tensor in state.items()}}},
        lambda state: {f"_orig_mod.module.{name}": tensor for name, tensor in state.items()},
    ],
)
def test_state_dicts_load_from_checkpoints_of_usual_forms(network, tmp_path, wrap):
    path = tmp_path / "weights.pth"
    torch.save(wrap(network.state_dict()), path)
    assert same(build(weights=str(path)), network)


def test_a_safetensors_file_loads(network, tmp_path):
    path = tmp_path / "weights.safetensors"
    save_file(network.state_dict(), path)
    assert same(build(weights=str(path)), network)


def test_a_misfit_names_the_tensors_and_leaves_the_network_as_it_was(network, tmp_path):
    state = dict(network.state_dict())
    state["fc.weight"] = torch.zeros(7, 64)
    state["head.bias"] = state.pop("fc.bias")
    path = tmp_path / "weights.safetensors"
    save_file(state, path)
    other = build()
    before = {name: tensor.clone() for name, tensor in other.state_dict().items()}
    with pytest.raises(BadWeights) as caught:
        models.load_weights(other, path)
    message = str(caught.value)
    assert "lack fc.bias" in message
    assert "head.bias" in message
    assert "fc.weight 7×64 instead of 10×64" in message
    assert all(torch.equal(before[name], tensor) for name, tensor in other.state_dict().items())


def test_weights_of_another_network_name_a_few_tensors_only(network, tmp_path):
    path = tmp_path / "weights.safetensors"
    save_file(network.state_dict(), path)
    with pytest.raises(BadWeights, match=r"lack layer1\.1\.\S+, \S+, \S+ and \d+ more") as caught:
        build("resnet56", weights=str(path))
    assert len(str(caught.value)) < 600


class Hostile:
    """A pickle that makes a folder when it is loaded."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("how", ["torch", "pickle", "disguised"])
def test_a_hostile_file_is_refused_and_does_not_run(tmp_path, how):
    trace, path = tmp_path / "trace", tmp_path / ("weights.safetensors" if how == "disguised" else "weights.pth")
    if how == "torch":
        torch.save({"state_dict": Hostile(trace)}, path)
    else:
        path.write_bytes(pickle.dumps({"conv1.weight": Hostile(trace)}, protocol=2))
    with pytest.raises(BadWeights, match=r"mkdir|no safetensors file") as caught:
        build(weights=str(path))
    assert not trace.exists()
    assert "weights_only=False" not in str(caught.value), "no advice to load it without care"
    pickle.loads(pickle.dumps(Hostile(trace)))
    assert trace.exists(), "loaded without care it would have run"


@pytest.mark.parametrize("suffix", ["safetensors", "pth"])
@pytest.mark.parametrize("share", [0.0, 0.001, 0.5, 0.99])
def test_a_truncated_file_is_refused(network, tmp_path, suffix, share):
    path = tmp_path / f"weights.{suffix}"
    if suffix == "pth":
        torch.save(network.state_dict(), path)
    else:
        save_file(network.state_dict(), path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(BadWeights, match="damaged"):
        build(weights=str(path))


@given(st.binary(max_size=200))
def test_any_bytes_are_weights_or_bad_weights(tmp_path_factory, content):
    path = tmp_path_factory.mktemp("bytes") / "weights.pth"
    path.write_bytes(content)
    with pytest.raises(BadWeights):
        models.load_weights(torch.nn.Linear(1, 1), path)


@pytest.mark.parametrize("content", [{}, [1, 2], {"epoch": 3}, {"state_dict": {}}])
def test_a_file_without_a_state_dict_is_refused(tmp_path, content):
    path = tmp_path / "weights.pth"
    torch.save(content, path)
    with pytest.raises(BadWeights, match="holds no state dict"):
        build(weights=str(path))


def test_missing_files_and_folders_are_named(tmp_path):
    with pytest.raises(BadWeights, match="there is no weights file"):
        build(weights=str(tmp_path / "none.pth"))
    with pytest.raises(BadWeights, match="is no export"):
        build(weights=str(tmp_path))
    with pytest.raises(BadWeights, match="is no export"):
        build(str(tmp_path / "runs" / "x" / "best"))


def test_an_export_serves_as_weights_and_as_a_whole_teacher(network, export):
    assert same(build(weights=str(export)), network)
    assert same(build(str(export)), network)
    teacher = TeacherSettings(name=str(export), epochs=3)
    assert same(models.build(teacher, outputs=10, channels=1, size=SIZE), network)
    assert models.from_export(export) == NetworkSettings(name="resnet8", weights=str(export))


def test_an_export_brings_its_normalisation_and_the_size_it_was_trained_on(network, export):
    settings = NetworkSettings(name=str(export))
    assert models.normalisation(settings, network) == ((0.3,), (0.4,))
    assert models.normalisation(NetworkSettings(name="resnet8", weights=str(export)), network) == ((0.3,), (0.4,))
    assert models.normalisation(NetworkSettings(name="resnet8"), network) is None
    assert models.resolve_size(network, settings, 1, (20, 20)) == (8, 8)


def test_an_export_for_other_classes_does_not_fit(export):
    with pytest.raises(BadWeights, match=r"fc\.weight 10×64 instead of 7×64"):
        build(str(export), outputs=7)


@pytest.mark.parametrize(
    "content", ["", "{}", '{"student": 3}', '{"student": {"name": 3}}', '{"student": {"stem": "x"}}']
)
def test_an_export_with_a_damaged_description_is_refused(export, content):
    (export / "metrics.json").write_text(content)
    with pytest.raises(BadWeights, match=r"metrics\.json"):
        build(str(export))


@pytest.mark.parametrize(
    ("text", "name", "weights"),
    [
        ("resnet20", "resnet20", None),
        ("torchvision:resnet18", "torchvision:resnet18", None),
        ("torchvision:resnet18:pretrained", "torchvision:resnet18", "pretrained"),
        ("my.py:net", "my.py:net", None),
        ("nets/my.py:net:w/a.pth", "nets/my.py:net", "w/a.pth"),
        ("package.module:net", "package.module:net", None),
        ("runs/x/best", "runs/x/best", None),
        ("resnet20:runs/x/best", "resnet20", "runs/x/best"),
        ("swinir:weights.pth", "swinir", "weights.pth"),
        ("resnet101:weights.safetensors", "resnet101", "weights.safetensors"),
        ("resnet50.a1_in1k:pretrained", "resnet50.a1_in1k", "pretrained"),
        ("/abs/net.py:build:./best", "/abs/net.py:build", "./best"),
    ],
)
def test_networks_are_read_from_the_command_line(text, name, weights):
    fields = models.parse_network(text)
    settings = NetworkSettings(**fields)
    assert (settings.name, settings.weights) == (name, weights)
