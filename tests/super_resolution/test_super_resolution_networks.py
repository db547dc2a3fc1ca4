"""Networks that enlarge: their sizes, SwinIR out of checkpoints, and where their low-resolution features are."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional

from kdsearch import models
from kdsearch.errors import BadWeights, InvalidSetting, UnknownName, UserError
from kdsearch.models import count_parameters
from kdsearch.models.own.attention_sr import attention_sr
from kdsearch.models.upsampling import captured, find_low_features
from kdsearch.settings import NetworkSettings


def build(name: str, scale: int = 4, weights: Path | None = None, size: int = 16, **arguments: str | int) -> nn.Module:
    settings = NetworkSettings(name=name, weights=weights and str(weights), arguments=arguments)
    return models.build(
        settings,
        outputs=3,
        channels=3,
        size=(size, size),
        task="super_resolution",
        scale=scale,
        shape=(3, scale * size, scale * size),
    )


def swinir(**changes: object) -> nn.Module:
    """A SwinIR of classical layout that is small enough for a test."""
    from spandrel.architectures.SwinIR import SwinIR

    torch.manual_seed(0)
    arguments = {
        "img_size": 16, "window_size": 8, "mlp_ratio": 2, "embed_dim": 12, "depths": [2, 2], "num_heads": [2, 2],
        "upscale": 4, "upsampler": "pixelshuffle", "resi_connection": "1conv",
    }  # fmt: skip
    network: nn.Module = SwinIR(**{**arguments, **changes})
    return network


def checkpoint(network: nn.Module, path: Path) -> Path:
    """As the authors publish theirs: the state dict under `params`."""
    torch.save({"params": network.state_dict()}, path)
    return path


@pytest.mark.parametrize(("width", "millions"), [(32, 0.310), (48, 0.696), (64, 1.235)])
def test_the_student_has_the_parameters_that_the_report_states(width: int, millions: float) -> None:
    assert round(count_parameters(attention_sr(4, width=width)) / 1e6, 3) == millions


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_the_student_begins_as_bicubic_interpolation_and_learns_beside_it(scale: int) -> None:
    torch.manual_seed(0)
    network, images = attention_sr(scale, width=8, blocks=2), torch.rand(2, 3, 12, 10)
    enlarged = functional.interpolate(images, scale_factor=scale, mode="bicubic", align_corners=False)
    assert torch.equal(network(images), enlarged)
    nn.init.normal_(network.tail.weight, std=0.1)
    assert not torch.allclose(network(images), enlarged, atol=1e-2)
    network(images).sum().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [({"width": 0}, "arguments.width = 0"), ({"blocks": 1.5}, "arguments.blocks = 1.5"), ({"depth": 3}, "depth")],
)
def test_wrong_arguments_of_the_student_are_named(arguments: dict[str, int], sentence: str) -> None:
    with pytest.raises(UserError) as caught:
        build("attention_sr", **arguments)
    assert sentence in str(caught.value)


@pytest.mark.parametrize("name", ["attention_sr", "swinir"])
def test_a_network_that_enlarges_is_not_for_other_tasks(name: str) -> None:
    with pytest.raises(InvalidSetting, match="not 1: it is for super_resolution"):
        models.build(NetworkSettings(name=name), outputs=10, channels=3, size=(32, 32))


@pytest.mark.parametrize(("variant", "millions"), [("light", 0.93), ("classical", 11.90)])
def test_swinir_has_the_parameters_that_are_published(variant: str, millions: float, tmp_path: Path) -> None:
    made = build("swinir", variant=variant)
    assert round(count_parameters(made) / 1e6, 2) == millions
    if variant == "light":  # through a file, without a word of the variant
        images = torch.rand(1, 3, 16, 16)
        again = build("swinir", weights=checkpoint(made, tmp_path / "002_light.pth"))
        with torch.no_grad():
            torch.testing.assert_close(again.eval()(images), made.eval()(images))


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"upscale": 2},
        {"upscale": 3, "embed_dim": 24, "num_heads": [4, 4]},
        {"upsampler": "pixelshuffledirect", "depths": [2, 2, 2], "num_heads": [2, 2, 2]},
    ],
    ids=["classical", "times 2", "times 3", "light"],
)
def test_the_architecture_is_read_from_the_checkpoint(changes: dict[str, object], tmp_path: Path) -> None:
    published = swinir(**changes).eval()
    scale = int(changes.get("upscale", 4))  # type: ignore[call-overload]
    loaded = build("swinir", scale, checkpoint(published, tmp_path / "weights.pth")).eval()
    images = torch.rand(1, 3, 19, 26)  # no multiples of the window: padded, and the padding cut off
    with torch.no_grad():
        assert loaded(images).shape == (1, 3, 19 * scale, 26 * scale)
        torch.testing.assert_close(loaded(images), published(images))


def test_an_export_of_swinir_loads_again(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    network = swinir()
    save_file({name: tensor.contiguous() for name, tensor in network.state_dict().items()}, tmp_path / "s.safetensors")
    loaded = build("swinir", weights=tmp_path / "s.safetensors")
    assert all(
        torch.equal(*pair) for pair in zip(loaded.state_dict().values(), network.state_dict().values(), strict=True)
    )


def test_a_truncated_checkpoint_is_refused(tmp_path: Path) -> None:
    path = checkpoint(swinir(), tmp_path / "weights.pth")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(BadWeights, match="is damaged"):
        build("swinir", weights=path)


def test_a_checkpoint_that_lacks_tensors_is_refused(tmp_path: Path) -> None:
    state = swinir().state_dict()
    for lacking in ("conv_after_body.weight", "layers.1.residual_group.blocks.1.attn.qkv.weight", "norm.weight"):
        torch.save({"params": {name: each for name, each in state.items() if name != lacking}}, tmp_path / "w.pth")
        with pytest.raises(BadWeights, match=r"w\.pth"):
            build("swinir", weights=tmp_path / "w.pth")


def test_code_in_a_checkpoint_never_runs(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return Path.touch, (tmp_path / "ran",)  # type: ignore[return-value]

    torch.save({"params": swinir().state_dict(), "trap": Trap()}, tmp_path / "w.pth")
    with pytest.raises(BadWeights, match="more than tensors"):
        build("swinir", weights=tmp_path / "w.pth")
    assert not (tmp_path / "ran").exists()


def test_another_scale_another_network_or_no_file_is_said(tmp_path: Path) -> None:
    path = checkpoint(swinir(upscale=2), tmp_path / "x2.pth")
    with pytest.raises(BadWeights, match=r"x2\.pth' enlarges 2 times and data\.scale is 4: set data\.scale = 2"):
        build("swinir", 4, path)
    torch.save(attention_sr(4, width=8, blocks=1).state_dict(), tmp_path / "other.pth")
    with pytest.raises(BadWeights, match=r"other\.pth' holds no SwinIR: its tensors begin with head\.weight"):
        build("swinir", weights=tmp_path / "other.pth")
    with pytest.raises(BadWeights, match="there is no weights file"):
        build("swinir", weights=tmp_path / "none.pth")
    with pytest.raises(BadWeights, match="never downloaded"):
        build("swinir", weights=Path("pretrained"))
    with pytest.raises(UnknownName, match="did you mean 'light'"):
        build("swinir", variant="lite")
    with pytest.raises(UnknownName, match="argument of swinir 'depth'"):
        build("swinir", depth=3)


class Interpolating(nn.Module):
    """Features enlarged by a function; the last convolution sees them large."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(inplace=True))
        self.last = nn.Conv2d(6, 3, 3, padding=1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.last(functional.interpolate(self.features(images), scale_factor=2))  # type: ignore[no-any-return]


class Shuffling(nn.Module):
    """A sub-pixel convolution whose shuffle is a function, as the last thing that happens."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 5, 3, padding=1)
        self.last = nn.Conv2d(5, 12, 3, padding=1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return functional.pixel_shuffle(self.last(self.first(images).relu()), 2)


class Transposed(nn.Module):
    """A skip that is a layer of its own and comes first, then features enlarged by a transposed convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.skip = nn.Upsample(scale_factor=2, mode="bilinear")
        self.first = nn.Conv2d(3, 7, 3, padding=1)
        self.up = nn.ConvTranspose2d(7, 3, 2, stride=2)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        large = self.skip(images)
        return large + self.up(self.first(images).relu())  # type: ignore[no-any-return]


def expected_features(network: nn.Module, images: torch.Tensor) -> torch.Tensor:
    """What each network of this file computes before it enlarges, written out."""
    if isinstance(network, Interpolating):
        return network.features(images)  # type: ignore[no-any-return]
    if isinstance(network, (Shuffling, Transposed)):
        return network.first(images).relu()
    head = network.head(images)  # type: ignore[operator]
    return head + network.body(head)  # type: ignore[no-any-return,operator]


@pytest.mark.parametrize(
    ("network", "channels"),
    [
        (Interpolating(), 6),
        (Shuffling(), 5),
        (Transposed(), 7),
        (attention_sr(2, width=8, blocks=1), 8),
        (attention_sr(3, width=9, blocks=1), 9),
        (attention_sr(4, width=10, blocks=1), 10),
    ],
    ids=lambda value: type(value).__name__,
)
def test_the_features_before_the_upsampler_are_found(network: nn.Module, channels: int) -> None:
    where = find_low_features(network, 3, 12)
    assert (where.channels, where.side) == (channels, 12)
    images = torch.rand(2, 3, 12, 10)
    with captured(network, where) as features:
        outputs = network(images)
    assert len(features) == 1
    torch.testing.assert_close(features[0], expected_features(network, images))
    features[0].sum().backward()
    assert next(network.parameters()).grad is not None
    torch.testing.assert_close(network(images), outputs)
    assert len(features) == 1  # the hook is gone


@pytest.mark.parametrize(("upsampler", "channels"), [("pixelshuffle", 64), ("pixelshuffledirect", 12)])
def test_the_features_of_swinir_are_what_its_first_sub_pixel_convolution_is_given(
    upsampler: str, channels: int
) -> None:
    network = swinir(upsampler=upsampler)
    where = find_low_features(network, 3, 16)
    assert (where.channels, where.side) == (channels, 16)
    assert where.name == "upsample.0"
    assert find_low_features(network, 3, 20).side == 24  # padded to the window


def test_a_network_without_an_upsampler_has_no_such_features() -> None:
    enlarged_first = nn.Sequential(
        nn.Upsample(scale_factor=2), nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 3, 3, padding=1)
    )
    with pytest.raises(UserError, match="no features at low resolution"):
        find_low_features(enlarged_first, 3, 8)
    with pytest.raises(UserError, match="never enlarges"):
        find_low_features(nn.Sequential(nn.Conv2d(3, 3, 3, padding=1)), 3, 8)
