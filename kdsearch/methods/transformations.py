"""Ways to turn one image into M views that a network can tell apart: the self-supervised half of joint labels.

`VIEWS` names them; each entry takes the `Facts` of the data and returns M functions [B, C, H, W] → [B, C, H, W],
the first of which leaves the image as it is.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING

import torch

from kdsearch.errors import InvalidSetting

if TYPE_CHECKING:
    from kdsearch.data.base import Facts

View = Callable[[torch.Tensor], torch.Tensor]


def identity(images: torch.Tensor) -> torch.Tensor:
    """The image as it is."""
    return images


def rotations(facts: Facts) -> tuple[View, ...]:
    """By 0, 90, 180 and 270 degrees (M = 4). Raises InvalidSetting for images that are not square."""
    height, width = facts.size
    if height != width:
        raise InvalidSetting(
            "transformation",
            "rotation",
            f"images of {height}×{width} pixels cannot be turned by 90°; make them square (data.image_size) or "
            "choose channel_permutation",
        )
    return (identity, *(partial(torch.rot90, k=turns, dims=(2, 3)) for turns in (1, 2, 3)))


def channel_permutations(facts: Facts) -> tuple[View, ...]:
    """Every order of the colour channels (M = 6 for RGB). Raises InvalidSetting unless there are 2 or 3 channels."""
    if facts.channels not in (2, 3):
        raise InvalidSetting(
            "transformation",
            "channel_permutation",
            f"needs images of 2 or 3 channels, not {facts.channels}; choose rotation",
        )
    orders = list(itertools.permutations(range(facts.channels)))[1:]
    return (identity, *(partial(_reordered, order=order) for order in orders))


VIEWS = MappingProxyType({"rotation": rotations, "channel_permutation": channel_permutations})


def stack_views(images: torch.Tensor, views: tuple[View, ...]) -> torch.Tensor:
    """All views, view-major [M·B, C, H, W]: view j of image i lies at j·B + i."""
    return torch.cat([view(images) for view in views])


def joint_targets(targets: torch.Tensor, count: int) -> torch.Tensor:
    """Distributions over class and view, [B, K] → [M·B, K·M], in the order of `stack_views`.

    Class y under view j is joint class M·y + j, so that the row of view j of image i holds targets[i, y] at M·y + j;
    of a mixed label both classes stand under the same view.

    Args:
        targets: distributions over the classes.
        count: M, the number of views.
    """
    samples, classes = targets.shape
    views = torch.eye(count, dtype=targets.dtype, device=targets.device)
    return torch.einsum("by,vw->vbyw", targets, views).reshape(count * samples, classes * count)


def _reordered(images: torch.Tensor, order: tuple[int, ...]) -> torch.Tensor:
    return torch.stack([images[:, channel] for channel in order], dim=1)
