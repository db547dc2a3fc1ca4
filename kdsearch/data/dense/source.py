"""What a set of a dense task hands over: images that each come with a truth of their own, all of one size."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from kdsearch.errors import BadData
from kdsearch.settings import AugmentationSettings

if TYPE_CHECKING:
    from numpy.typing import NDArray

OUTSIDE_MASK = 255
"""Segmentation, uint8 [H, W]: the class of pixels that do not count."""
OUTSIDE_EDGES = 1 << 14
"""Edges, int16 [H, W]: the bit of pixels that do not count; bit a below is set where annotator a sees an edge."""
NO_BOX = -1.0
"""Detection, float32 [M, 5] (x1, y1, x2, y2, class): the class of rows that hold no box."""


class Read(Protocol):
    """One sample by its row. Picklable: loader processes call it. Raises BadData that names the picture."""

    def __call__(self, row: int) -> tuple[NDArray[np.uint8], NDArray[Any]]:
        """Image [C, H, W] and truth, in the format of the task."""
        ...


@dataclass(frozen=True)
class Samples:
    """`Read` for arrays that are in memory: images [N, C, H, W], truths [N, ...]."""

    images: NDArray[np.uint8]
    truths: NDArray[Any]

    def __call__(self, row: int) -> tuple[NDArray[np.uint8], NDArray[Any]]:
        return self.images[row], self.truths[row]


@dataclass(frozen=True)
class DensePart:
    """Samples that can be chosen from before any of them is read."""

    read: Read
    rows: NDArray[np.int64]
    """Which rows of `read` belong to the part, [N]; one may stand in it several times."""
    labels: NDArray[np.int64]
    """The dominant class of each sample [N], 0 where a task has no classes: what pairs are made by."""

    @classmethod
    def of_arrays(cls, images: NDArray[np.uint8], truths: NDArray[Any], labels: NDArray[np.int64]) -> DensePart:
        """All of these arrays, images [N, C, H, W], truths [N, ...], labels [N]."""
        return cls(Samples(images, truths), np.arange(len(images)), labels)

    def __len__(self) -> int:
        return len(self.rows)

    def select(self, indices: NDArray[np.int64]) -> DensePart:
        return replace(self, rows=self.rows[indices], labels=self.labels[indices])


@dataclass(frozen=True)
class DenseSource:
    """A set of a dense task as its `load` function found it; parts at None are cut from `train`."""

    train: DensePart
    classes: tuple[str, ...]
    channels: int
    size: tuple[int, int]
    """Height and width of every image and truth."""
    validation: DensePart | None = None
    test: DensePart | None = None
    augmentation: AugmentationSettings = field(default_factory=AugmentationSettings)
    """What the set recommends."""

    def __post_init__(self) -> None:
        if not self.classes:
            raise BadData("the data name no class: there is nothing to find")
        for name, part in (("train", self.train), ("validation", self.validation), ("test", self.test)):
            if part is not None and not len(part):
                raise BadData(f"the {name} part has no images")
