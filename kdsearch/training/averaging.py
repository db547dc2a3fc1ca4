"""An exponential moving average of the student's weights, whose score ranks unfinished trials better."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import nn

# The window that ranked best was a seventh of the budget: decay 0.97 at 243 steps.
WINDOW = 7.3


def decay(step: int, steps: int) -> float:
    """Decay after `step` (from 0) of a full budget of `steps`: min(1 − 7.3/steps, (1 + step)/(10 + step)).

    The second term lets the average forget the random start; the first is 0.97 at 243 steps and scales with the
    budget, so that a longer training averages over the same share of itself.
    """
    return max(0.0, min(1 - WINDOW / steps, (1 + step) / (10 + step)))


class AveragedStudent:
    """The averaged copy of a student: parameters and floating-point buffers averaged, other buffers copied."""

    def __init__(self, student: nn.Module, steps: int) -> None:
        self.module = copy.deepcopy(student).requires_grad_(False).eval()
        self.steps = steps
        self._pairs = _tensors(self.module, student)

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Follow the student after optimiser step `step` (from 0)."""
        averaged, current, copied, source = self._pairs
        torch._foreach_lerp_(averaged, current, 1 - decay(step, self.steps))
        for target, value in zip(copied, source, strict=True):
            target.copy_(value)


def _tensors(averaged: nn.Module, student: nn.Module) -> tuple[list[torch.Tensor], ...]:
    pairs = [
        (target, source.detach())
        for target, source in zip(
            [*averaged.parameters(), *averaged.buffers()], [*student.parameters(), *student.buffers()], strict=True
        )
    ]
    floats = [pair for pair in pairs if pair[0].is_floating_point()]
    others = [pair for pair in pairs if not pair[0].is_floating_point()]
    return [t for t, _ in floats], [s for _, s in floats], [t for t, _ in others], [s for _, s in others]
