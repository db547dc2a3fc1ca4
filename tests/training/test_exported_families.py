"""Round trips of every family of networks on every task: written, read by its runtime, compared with PyTorch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from torch import nn

from kdsearch import models
from kdsearch.models.runtimes import write_program
from kdsearch.settings import NetworkSettings
from tests.conformance import networks
from tests.training.test_deployment import FORMATS, answer


class Case(NamedTuple):
    build: Callable[[], nn.Module]
    side: int = 32
    open_lengths: tuple[int, ...] = (0,)
    """Dimensions of the input whose length is open in the program."""
    any_sides: bool = False


def of_task(
    task: str, name: str, outputs: int, side: int, scale: int = 1, **arguments: int | str
) -> Callable[[], nn.Module]:
    def build() -> nn.Module:
        settings = NetworkSettings(name=name, arguments=arguments)
        return models.build(settings, outputs=outputs, channels=3, size=(side, side), task=task, scale=scale)

    return build


def small(build: Callable[[int, int], nn.Module]) -> Callable[[], nn.Module]:
    return lambda: build(5, 3)


def small_swinir() -> nn.Module:
    """The published architecture with two layers: the code that is traced is the same."""
    from spandrel.architectures.SwinIR import SwinIR  # type: ignore[import-untyped, unused-ignore]

    return SwinIR(
        upscale=2, in_chans=3, img_size=16, window_size=8, embed_dim=12, depths=[2], num_heads=[2], mlp_ratio=2,
        img_range=1.0, upsampler="pixelshuffledirect", resi_connection="1conv",
    )  # fmt: skip


CASES = {
    "residual": Case(small(networks.residual)),
    "vgg": Case(small(networks.vgg)),
    "shufflenet": Case(small(networks.shufflenet)),
    "mobilenet": Case(small(networks.mobilenet)),
    "vision transformer": Case(small(networks.vit)),
    "multiscale vision transformer": Case(small(networks.mvit)),
    "unet, segmentation": Case(of_task("segmentation", "unet", 4, 32, width=4, depth=2)),
    "smp, edges": Case(of_task("edges", "smp:unet:mobilenet_v2", 1, 64), 64),
    "torchvision, segmentation": Case(of_task("segmentation", "torchvision:lraspp_mobilenet_v3_large", 4, 64), 64),
    "deeplab, segmentation": Case(of_task("segmentation", "torchvision:deeplabv3_mobilenet_v3_large", 4, 64), 64),
    "ssd, detection": Case(of_task("detection", "ssd", 3 + 9, 64), 64),
    "ssdlite, detection": Case(of_task("detection", "torchvision:ssdlite320_mobilenet_v3_large", 3 + 9, 96), 96),
    "attention_sr": Case(
        of_task("super_resolution", "attention_sr", 3, 16, scale=4, width=4, blocks=2), 16, (0, 2, 3), any_sides=True
    ),
    # A windowed transformer counts its windows with Python's numbers: one image, of one size.
    "swinir": Case(small_swinir, 16, (), any_sides=True),
}
QUICK = ("residual", "ssd, detection", "attention_sr")


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize(
    "name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in CASES]
)
def test_a_family_is_written_and_answers_as_in_pytorch(name: str, form: str, tmp_path: Path) -> None:
    case = CASES[name]
    torch.manual_seed(0)
    network = case.build()
    for module in network.modules():  # as training leaves them: what is folded wrongly shows
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, std=0.1)
            nn.init.uniform_(module.running_var, 0.5, 2)
    path = tmp_path / "program"
    program = write_program(form, network, (3, case.side, case.side), path, any_sides=case.any_sides)
    assert program.difference <= 1e-4
    assert tuple(place for place, length in enumerate(program.input) if length is None) == case.open_lengths
    shape = [3 if 0 in case.open_lengths else 1, 3, case.side, case.side]
    if 2 in case.open_lengths:
        shape[2:] = [case.side + 5, case.side + 11]
    images = torch.randn(shape)
    with torch.no_grad():
        expected = network(images)
    torch.testing.assert_close(answer(form, path, images), expected, atol=1e-4, rtol=1e-4)
