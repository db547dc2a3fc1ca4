"""LPIPS, where what it needs is on this disk: nothing is ever downloaded."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Iterable

_log = logging.getLogger(__name__)

# The file under which torchvision keeps AlexNet's weights; the linear layers on top come with torchmetrics.
ALEXNET = "alexnet-owt-7be5be79.pth"


def alexnet_file() -> Path:
    """Where torchvision looks for AlexNet's weights before it downloads them (`TORCH_HOME` moves it)."""
    return Path(torch.hub.get_dir()) / "checkpoints" / ALEXNET


def lpips(pairs: Iterable[tuple[torch.Tensor, torch.Tensor]]) -> dict[str, float]:
    """`lpips`, the mean over pairs of pictures uint8 [3, H, W] (of any size), lower is closer; {} without weights.

    Zhang et al., "The Unreasonable Effectiveness of Deep Features as a Perceptual Metric", CVPR 2018, arXiv 1801.03924,
    version 0.1 on AlexNet, as torchmetrics computes it.
    """
    if not alexnet_file().is_file():
        return {}
    from torchmetrics.image.lpip import LearnedPerceptualImagePatchSimilarity

    try:
        metric = LearnedPerceptualImagePatchSimilarity(net_type="alex", normalize=True)
    except Exception as error:  # a damaged file can make the reader raise nearly anything
        _log.warning("LPIPS is left out: %s cannot be read (%s)", alexnet_file(), type(error).__name__)
        return {}
    with torch.no_grad():
        for one, other in pairs:
            metric = metric.to(one.device)
            metric.update(one[None].float() / 255, other[None].float() / 255)
    return {"lpips": float(metric.compute())}
