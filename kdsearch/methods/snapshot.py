"""The model as the previous epoch left it, which answers and is never trained."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import torch
from torch import nn

from kdsearch.methods.heads import Answers, head_logits
from kdsearch.models import Taps

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kdsearch.models import Stage


class Snapshot(nn.Module):
    """A frozen copy of a student and its heads: always in evaluation mode, without gradient.

    Its weights and buffers are part of the state dict, so that an interrupted training resumes with the same memory.
    """

    def __init__(self, student: nn.Module, heads: nn.ModuleDict, stages: Sequence[Stage]) -> None:
        super().__init__()
        self.student = copy.deepcopy(student)
        self.heads = copy.deepcopy(heads)
        self.taps = Taps(self.student, stages)
        self.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> Snapshot:
        return super().train(False)

    @torch.no_grad()
    def take(self, student: nn.Module, heads: nn.ModuleDict) -> None:
        """Become a copy of `student` and `heads`: raw weights and buffers."""
        for mine, current in ((self.student, student), (self.heads, heads)):
            for target, source in zip(_tensors(mine), _tensors(current), strict=True):
                target.copy_(source)

    @torch.no_grad()
    def forward(self, images: torch.Tensor) -> Answers:
        """The copy's answers to images [B, C, H, W]."""
        logits, features = self.taps(images)
        return Answers(logits, head_logits(self.heads, features))


def _tensors(module: nn.Module) -> list[torch.Tensor]:
    """Every parameter and buffer, those outside the state dict too."""
    return [*module.parameters(), *module.buffers()]
