"""Pictures with their low-resolution versions: whole for evaluation, as patches for training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from kdsearch.data.randomness import stream
from kdsearch.data.reading import read_batches
from kdsearch.data.restoration.degradation import mirrored

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from numpy.typing import NDArray

    from kdsearch.data.restoration.degradation import Degradation
    from kdsearch.data.restoration.source import PicturePart


class PictureSplit:
    """One part of a set of pictures.

    Args:
        part: the pictures, in memory or read when they are asked for.
        degradation: makes the low-resolution versions.
        seed: of the noise on whole pictures, where there is noise: a picture always has the same.
        samples: patches an epoch, of the training part.
        workers: processes that read patches; 0 reads them in this one, as is right for pictures in memory.
    """

    def __init__(
        self, part: PicturePart, degradation: Degradation, seed: int, samples: int = 0, workers: int = 0
    ) -> None:
        self.part = part
        self.degradation = degradation
        self.samples = samples
        self.targets = torch.zeros(len(part), dtype=torch.int64)
        self._seed = seed
        self._workers = workers
        self._low: dict[int, torch.Tensor] = {}

    def __len__(self) -> int:
        return len(self.part)

    def pair(self, place: int) -> tuple[torch.Tensor, torch.Tensor]:
        """A picture uint8 [3, h, w] in low and [3, scale·h, scale·w] in high resolution.

        What is left of the sides beyond a multiple of the scale is cut off at the bottom and at the right.
        """
        high = _divisible(self.part.read(place), self.degradation.scale)
        if place not in self._low:
            low = self.degradation.picture(high, stream(self._seed, "noise", self.part.name(place)))
            self._low[place] = torch.from_numpy(low)
        return self._low[place], torch.from_numpy(high.copy())

    def pairs(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """`pair` of every picture, in order."""
        return map(self.pair, range(len(self)))

    def fetch(self, batches: Iterable[torch.Tensor]) -> Iterator[torch.Tensor]:
        """Low-resolution pictures uint8 [b, 3, h, w] for each int64 [b] of indices; those of a batch have one size."""
        for index in batches:
            yield torch.stack([self.pair(place)[0] for place in index.tolist()])

    def patches(self, batches: Iterable[NDArray[np.int64]], side: int) -> Iterator[torch.Tensor]:
        """Squares of `side` pixels with the degradation's margin around, uint8 [b, 3, side + 2·margin, …].

        Each batch is int64 [b, 3]: picture, top and left. Raises BadData naming a picture.
        """
        return read_batches(_PatchReader(self.part, side, self.degradation), batches, self._workers)


@dataclass(frozen=True)
class _PatchReader:
    """Places [b, 3] → patches."""

    part: PicturePart
    side: int
    degradation: Degradation

    def __call__(self, places: NDArray[np.int64]) -> torch.Tensor:
        return torch.from_numpy(np.stack([self._cut(*place) for place in places.tolist()]))

    def _cut(self, place: int, top: int, left: int) -> NDArray[np.uint8]:
        picture = _divisible(self.part.read(place), self.degradation.scale)
        return mirrored(picture, top, left, (self.side, self.side), self.degradation.margin)


def _divisible(picture: NDArray[np.uint8], scale: int) -> NDArray[np.uint8]:
    """The picture [C, H, W] without what its sides have beyond a multiple of the scale, at the bottom and the right."""
    return picture[:, : picture.shape[1] // scale * scale, : picture.shape[2] // scale * scale]
