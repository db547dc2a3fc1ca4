"""A training step that leaves no trace: what the gradient of a part would do to the rest."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch.nn import functional

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from torch import nn


@contextmanager
def rehearsal(module: nn.Module) -> Iterator[None]:
    """Whatever runs inside leaves the module's buffers and PyTorch's random state as they were."""
    kept = [(buffer, buffer.clone()) for buffer in module.buffers()]
    devices = {parameter.device for parameter in module.parameters() if parameter.device.type == "cuda"}
    with torch.random.fork_rng(list(devices)):
        try:
            yield
        finally:
            with torch.no_grad():
                for buffer, before in kept:
                    buffer.copy_(before)


def gradient_cosines(
    task_loss: torch.Tensor, losses: Mapping[str, torch.Tensor], parameters: Sequence[nn.Parameter]
) -> dict[str, float]:
    """Cosine between the gradients of each of `losses` and of the task's loss, over the parameters that both reach.

    Above 0 the part behind a loss trains the shared layers in the task's direction; at 0 or below it does not help.
    A loss that shares no parameter with the task's is left out.
    """
    task = torch.autograd.grad(task_loss, parameters, retain_graph=True, allow_unused=True)
    cosines = {}
    for name, loss in losses.items():
        own = torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)
        pairs = [(g.flatten(), t.flatten()) for g, t in zip(own, task, strict=True) if g is not None and t is not None]
        if pairs:
            mine, theirs = (torch.cat(parts).float() for parts in zip(*pairs, strict=True))
            cosines[name] = functional.cosine_similarity(mine, theirs, dim=0)
    return {name: float(cosine) for name, cosine in cosines.items()}
