"""A picture enlarged 2, 3 or 4 times."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.nn import functional

from kdsearch.data.restoration.batches import PatchBatches
from kdsearch.data.restoration.splits import PictureSplit
from kdsearch.tasks.base import Evidence, Task
from kdsearch.tasks.fidelity import luma, psnr, ssim, to_bytes, without_border
from kdsearch.tasks.perception import lpips
from kdsearch.tasks.tiles import enlarge

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import nn

    from kdsearch.data.base import Batching, DataSet, Split
    from kdsearch.settings import NetworkSettings
    from kdsearch.tasks.base import Panels, Predict

SHOWN = 4
SHOWN_SIDE = 192
"""Side in high-resolution pixels of the cuts that panels show."""


class SuperResolution(Task):
    """L1 for training; PSNR of luma on whole pictures as the metric."""

    name = "super_resolution"
    metric = "psnr"
    mode = "max"
    worst = 0.0
    data = "photographs"
    student = "attention_sr"
    whole_images = False

    def loss(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Mean absolute error of [B, 3, H, W] in [0, 1]."""
        return functional.l1_loss(outputs, targets)

    def outputs(self, data: DataSet) -> int:
        """The colours of a picture."""
        return data.channels

    def shape(self, data: DataSet) -> tuple[int | None, ...]:
        """(3, scale·h, scale·w)."""
        return (data.channels, *(data.scale * side for side in data.size))

    def input_size(self, module: nn.Module, network: NetworkSettings, data: DataSet) -> None:
        """Pictures are never resized: what a resizing invents or loses is what the task is about."""
        return

    def batches(self, data: DataSet, batching: Batching) -> PatchBatches:
        """Pairs of patches: images [B, 3, h, w] and targets [B, 3, scale·h, scale·w], both in [0, 1]."""
        assert not batching.partners, "a patch has no class, and so no partner"
        return PatchBatches(data, batching)

    def evaluate(self, predict: Predict, split: Split, device: torch.device) -> dict[str, float]:
        """`psnr` in dB and `ssim` of luma without a border of `scale` pixels, `loss`; means over whole pictures."""
        scale = _pictures(split).degradation.scale
        rows = []
        for low, high in _pairs(split, device):
            enlarged = enlarge(predict, low, scale)
            loss = functional.l1_loss(enlarged, high.float() / 255)
            rows.append((*_fidelity(to_bytes(enlarged), high, scale), float(loss)))
        means = (sum(column) / len(rows) for column in zip(*rows, strict=True))
        return dict(zip(("psnr", "ssim", "loss"), means, strict=True))

    def final_metrics(self, predict: Predict, split: Split, device: torch.device) -> dict[str, float]:
        """`lpips`, the mean over whole pictures, where the weights it needs are on this disk; else nothing."""
        scale = _pictures(split).degradation.scale
        return lpips((to_bytes(enlarge(predict, low, scale)), high) for low, high in _pairs(split, device))

    def evidence(self, predict: Predict, data: DataSet, device: torch.device) -> Evidence:
        """`bicubic`: psnr and ssim of bicubic interpolation on the same pictures, which every network has to beat."""
        rows = [_fidelity(bicubic(low, data.scale), high, data.scale) for low, high in _pairs(data.validation, device)]
        means = [sum(column) / len(rows) for column in zip(*rows, strict=True)]
        return Evidence({"bicubic": dict(zip(("psnr", "ssim"), means, strict=True))})

    def panels(self, predict: Predict, data: DataSet, device: torch.device, teacher: Predict | None = None) -> Panels:
        """The middle of up to four validation pictures: `input` (its pixels enlarged), `bicubic`, `target`, …"""
        columns: dict[str, list[torch.Tensor]] = {name: [] for name in ("input", "bicubic", "target")}
        networks = {"student": predict} if teacher is None else {"teacher": teacher, "student": predict}
        columns |= {name: [] for name in networks}
        for low, high in _shown(data, device):
            columns["input"].append(low.repeat_interleave(data.scale, 1).repeat_interleave(data.scale, 2))
            columns["bicubic"].append(bicubic(low, data.scale))
            columns["target"].append(high)
            for name, network in networks.items():
                columns[name].append(to_bytes(enlarge(network, low, data.scale)))
        return {name: [picture.cpu().numpy() for picture in pictures] for name, pictures in columns.items()}


def bicubic(low: torch.Tensor, scale: int) -> torch.Tensor:
    """uint8 [3, h, w] → uint8 [3, scale·h, scale·w] by Keys' cubic kernel with a = −1/2: the literature's baseline."""
    # PyTorch takes a = −1/2 where it is asked for antialiasing, of which enlarging needs none, and −3/4 elsewhere.
    size = [scale * side for side in low.shape[1:]]
    return to_bytes(functional.interpolate(low[None].float() / 255, size, mode="bicubic", antialias=True)[0])


def _fidelity(enlarged: torch.Tensor, high: torch.Tensor, scale: int) -> tuple[float, float]:
    one, other = (without_border(luma(picture), scale) for picture in (enlarged, high))
    return psnr(one, other), ssim(one, other)


def _pictures(split: Split) -> PictureSplit:
    assert isinstance(split, PictureSplit), "super-resolution is evaluated on pictures in two resolutions"
    return split


@torch.no_grad()
def _pairs(split: Split, device: torch.device) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Every picture in low and in high resolution, uint8 on the device."""
    for low, high in _pictures(split).pairs():
        yield low.to(device), high.to(device)


def _shown(data: DataSet, device: torch.device) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """The middle of up to four validation pictures; all cuts have one size."""
    split = _pictures(data.validation)
    count = min(SHOWN, len(split))
    sides = [side // data.scale for place in range(count) for side in split.part.size(place)]
    side = min(SHOWN_SIDE // data.scale, *sides)
    for place in range(count):
        low, high = split.pair(place)
        top, left = ((length - side) // 2 for length in low.shape[1:])
        cut = (slice(None), slice(top, top + side), slice(left, left + side))
        wide = tuple(slice(data.scale * part.start, data.scale * part.stop) for part in cut[1:])
        yield low[cut].to(device), high[:, wide[0], wide[1]].to(device)
