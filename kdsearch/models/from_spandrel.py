"""SwinIR, through spandrel, which builds it to fit a published checkpoint.

Liang et al., "SwinIR: Image Restoration Using Swin Transformer", ICCV workshops 2021, arXiv 2108.10257.
"""

from __future__ import annotations

import warnings
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from kdsearch.errors import BadWeights, InvalidSetting, UnknownName
from kdsearch.models.weights import read_state

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import torch
    from torch import nn

    from kdsearch.models.sources import Normalisation
    from kdsearch.settings import Scalar

SCALES = (2, 3, 4)
# Of arXiv 2108.10257: 11.90 and 0.93 million parameters at ×4 (both without the masks, which are no weights).
_COMMON: dict[str, Any] = {
    "img_size": 64,
    "window_size": 8,
    "mlp_ratio": 2,
    "img_range": 1.0,
    "resi_connection": "1conv",
}
VARIANTS: dict[str, dict[str, Any]] = {
    "classical": {
        "embed_dim": 180,
        "depths": [6] * 6,
        "num_heads": [6] * 6,
        "upsampler": "pixelshuffle",
    },
    "light": {"embed_dim": 60, "depths": [6] * 4, "num_heads": [6] * 4, "upsampler": "pixelshuffledirect"},
}


class SwinIRSource:
    """SwinIR of the architecture that `weights` ask for, or of a published one with random weights.

    It takes images of any size and reflects them at the right and at the bottom to a multiple of its window.
    """

    any_size = False

    def __init__(self, scale: int, weights: str | None = None) -> None:
        if scale not in SCALES:
            raise InvalidSetting(
                "network", "swinir", f"enlarges 2, 3 or 4 times, not {scale}: it is for super_resolution"
            )
        self.scale = scale
        self.weights = weights

    def build(
        self, *, outputs: int, channels: int, size: tuple[int, int], arguments: Mapping[str, Scalar]
    ) -> nn.Module:
        """Images [B, channels, h, w] → [B, channels, scale·h, scale·w].

        The only argument is `variant`: classical or light, for a network without weights. Raises BadWeights where the
        weights are of another network or another scale, UnknownName or InvalidSetting for another argument.
        """
        for name in set(arguments) - {"variant"}:
            raise UnknownName("argument of swinir", name, ["variant"])
        if self.weights is not None:
            return _published(self.weights, self.scale, channels)
        return _random(str(arguments.get("variant", "classical")), self.scale, channels)

    def pretrained(
        self, *, outputs: int, channels: int, size: tuple[int, int], arguments: Mapping[str, Scalar]
    ) -> nn.Module:
        raise BadWeights("swinir's published weights are never downloaded: name the file, swinir:./weights.pth")

    def normalisation(self) -> Normalisation | None:
        return None


def _random(variant: str, scale: int, channels: int) -> nn.Module:
    from spandrel.architectures.SwinIR import SwinIR  # type: ignore[import-untyped]

    if variant not in VARIANTS:
        raise UnknownName("variant of swinir", variant, VARIANTS)
    with _quiet():
        network: nn.Module = SwinIR(upscale=scale, in_chans=channels, **_COMMON, **VARIANTS[variant])
    return network


def _published(weights: str, scale: int, channels: int) -> nn.Module:
    """The network that a checkpoint was saved from, with its weights."""
    from spandrel.architectures.SwinIR import SwinIRArch

    state = read_state(weights)
    architecture: Any = SwinIRArch()
    if not architecture.detect(state):
        raise BadWeights(f"{weights!r} holds no SwinIR: its tensors begin with {_first(state)}")
    try:
        with _quiet():
            found = architecture.load(dict(state))
    except Exception as error:  # a checkpoint that lacks tensors can fail anywhere in the reading of its shapes
        reason = " ".join(str(error).split())[:160]
        raise BadWeights(f"{weights!r} is no whole SwinIR ({type(error).__name__}: {reason})") from error
    if found.scale != scale:
        raise BadWeights(
            f"{weights!r} enlarges {found.scale} times and data.scale is {scale}: set data.scale = {found.scale}, or "
            f"take weights for ×{scale}"
        )
    if found.input_channels != channels:
        raise BadWeights(f"{weights!r} is for images of {found.input_channels} channel(s), and these have {channels}")
    network: nn.Module = found.model
    return network


@contextmanager
def _quiet() -> Iterator[None]:
    """Without PyTorch's warning of the form in which spandrel calls meshgrid."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch.meshgrid")
        yield


def _first(state: Mapping[str, torch.Tensor]) -> str:
    return ", ".join(list(state)[:3])
