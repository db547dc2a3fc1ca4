"""Features out of a network's inside, without a change to the network."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from kdsearch.models.trace import first_tensor, uncompiled

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch
    from torch import nn

    from kdsearch.models.stages import Stage


class Taps:
    """A network that gives its features beside its logits.

    Hooks hang on the network during a call only and no parameter is added: the network's state dict and copies are
    those of the plain network. A copy of the network is tapped by `Taps(copy, stages)`. A compiled network runs
    uncompiled in such a call.

    >>> with_features = Taps(student, find_stages(student, images))
    >>> logits, features = with_features(images)
    """

    def __init__(self, module: nn.Module, stages: Sequence[Stage]) -> None:
        self.module = module
        self.stages = tuple(stages)

    def __call__(self, images: torch.Tensor) -> tuple[torch.Tensor, tuple[torch.Tensor, ...]]:
        """Images [B, C, H, W] → the network's output, and each stage's feature [B, C_l, H_l, W_l] with its gradient.

        Tokens [B, N, C] come as [B, C, N, 1], the class token among them.
        """
        captured: dict[str, torch.Tensor] = {}
        handles = []
        try:
            for stage in self.stages:
                part = self.module.get_submodule(stage.name)
                handles.append(part.register_forward_hook(partial(_capture, captured, stage)))
            with uncompiled(self.module):
                logits = self.module(images)
        finally:
            for handle in handles:
                handle.remove()
        return logits, tuple(captured[stage.name] for stage in self.stages)


def _capture(captured: dict[str, torch.Tensor], stage: Stage, _module: nn.Module, _given: Any, output: Any) -> None:
    feature = first_tensor(output)
    assert feature is not None
    feature = stage.normalise(feature)
    captured[stage.name] = feature.clone() if stage.overwritten else feature
