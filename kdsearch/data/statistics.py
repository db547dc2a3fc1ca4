"""Mean and contrast of the training images."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

    from kdsearch.data.base import Split

STATISTICS_IMAGES = 2000
"""Images that are looked at where they are not in memory."""


def statistics(split: Split) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel, of images scaled to [0, 1]: exact, from counts of the 256 values.

    The deviation is at least half a grey level, so that a channel without contrast can be divided by it.
    """
    import torch

    from kdsearch.data.splits import evenly_spaced

    images = len(split) if hasattr(split, "images") else STATISTICS_IMAGES
    batches = torch.split(evenly_spaced(len(split), images), 1024)
    counts = np.sum([_value_counts(batch) for batch in split.fetch(batches)], axis=0)
    values = np.arange(256) / 255
    share = counts / np.sum(counts, axis=1, keepdims=True)
    mean = share @ values
    std = np.sqrt((share * (values - mean[:, None]) ** 2).sum(1))
    return tuple(mean.tolist()), tuple(np.maximum(std, 0.5 / 255).tolist())


def _value_counts(images: torch.Tensor) -> NDArray[np.int64]:
    """Images [b, C, H, W] → how often each of the 256 values occurs in each channel [C, 256]."""
    return np.stack([np.bincount(channel.numpy().ravel(), minlength=256) for channel in images.unbind(1)])
