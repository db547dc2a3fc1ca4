"""How images and weights lie in memory, and where channels last would corrupt it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from kdsearch.data import load
from kdsearch.errors import InvalidSetting
from kdsearch.experiment import Experiment
from kdsearch.settings import TrainingSettings
from kdsearch.training.layout import has_narrow_strides, memory_format
from kdsearch.training.trainer import Trainer

CPU, GPU = torch.device("cpu"), torch.device("cuda")
LAST, PLANES = torch.channels_last, torch.contiguous_format


@pytest.mark.parametrize(
    ("asked", "device", "channels", "layout"),
    [
        (None, CPU, 16, LAST), (None, CPU, 15, PLANES), (True, CPU, 15, PLANES), (False, CPU, 16, PLANES),
        (None, GPU, 16, PLANES), (True, GPU, 4, LAST),
    ],
)  # fmt: skip
def test_channels_come_last_on_a_cpu_unless_that_is_not_safe(
    asked: bool | None, device: torch.device, channels: int, layout: torch.memory_format
) -> None:
    network = nn.Sequential(nn.Conv2d(3, channels, 3), nn.Conv2d(channels, 32, 1, stride=2))
    assert memory_format(TrainingSettings(channels_last=asked), device, network) is layout


@pytest.mark.parametrize(
    ("convolution", "narrow"),
    [
        (nn.Conv2d(4, 8, 1, stride=2), True), (nn.Conv2d(32, 32, 1, stride=(1, 2), groups=4), True),
        (nn.Conv2d(4, 8, 1), False), (nn.Conv2d(3, 8, 3, stride=2), False), (nn.Conv2d(32, 32, 1, stride=2), False),
    ],
)  # fmt: skip
def test_only_strided_convolutions_of_one_pixel_and_few_channels_are_unsafe(
    convolution: nn.Module, narrow: bool
) -> None:
    assert has_narrow_strides(nn.Sequential(nn.ReLU(), convolution)) is narrow


def experiment(width: float) -> Experiment:
    return Experiment(
        method="ce",
        data={"name": "digits", "label_fraction": 0.1},
        student={"name": "resnet8", "arguments": {"width": width}},
        training={"epochs": 1, "batch_size": 32},
        search={"grace_period": 1},
    )


def test_batches_and_weights_of_a_training_lie_alike() -> None:
    data = load(experiment(1).data)
    for width, layout in ((1.0, LAST), (0.25, PLANES)):
        made = Trainer(experiment(width), {}, data=data, device=CPU)
        batch = next(iter(made.batches.epoch(0)))
        assert made.memory_format is layout
        assert made.student.layer1[0].conv1.weight.is_contiguous(memory_format=layout)
        assert made.average is not None
        assert made.average.module.layer1[0].conv1.weight.is_contiguous(memory_format=layout)
        assert batch.images.is_contiguous(memory_format=layout)


HEADED = """
from torch import nn

from kdsearch.methods.ce import CrossEntropy


class Headed(CrossEntropy):
    name = "headed"

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.head = nn.Conv2d(8, 8, 1, stride=2)
"""


def test_a_method_whose_own_parts_are_unsafe_is_refused(tmp_path: Path) -> None:
    (tmp_path / "headed.py").write_text(HEADED)
    made = Experiment(**experiment(1).model_dump(mode="json") | {"method": f"{tmp_path}/headed.py:Headed"})
    with pytest.raises(
        InvalidSetting, match=r"training.channels_last = True: a strided 1×1 convolution of this method"
    ):
        Trainer(made, {}, data=load(made.data), device=CPU)


def test_gradients_are_those_of_the_other_layout() -> None:
    """Of the safe ones: what oneDNN computes with channels last is what it computes with planes."""
    torch.manual_seed(0)
    for channels in (16, 24, 64):
        planes = nn.Conv2d(channels, 32, 1, stride=2, bias=False)
        last = nn.Conv2d(channels, 32, 1, stride=2, bias=False)
        last.load_state_dict(planes.state_dict())
        images = torch.randn(8, channels, 9, 9)
        planes(images).square().sum().backward()
        last.to(memory_format=LAST)(images.contiguous(memory_format=LAST)).square().sum().backward()
        assert planes.weight.grad is not None
        assert last.weight.grad is not None
        torch.testing.assert_close(last.weight.grad, planes.weight.grad, rtol=1e-4, atol=1e-4)
