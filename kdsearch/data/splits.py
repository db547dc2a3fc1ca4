"""The two kinds of split: uint8 tensors in memory, and pictures decoded by loader processes."""

from __future__ import annotations

import warnings
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from kdsearch.data.reading import read_batches

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from numpy.typing import NDArray

    from kdsearch.data.base import Split
    from kdsearch.data.pictures import Pictures

RESIDENT_SHARE = 0.25
"""A split goes to the accelerator when it takes no more than this share of the memory that is free there."""


class MemorySplit:
    """Images uint8 [N, C, H, W] and targets int64 [N], in memory.

    Pickled with protocol 5 and out-of-band buffers (as Ray's object store does) nothing is copied: all processes of
    a node read the same memory. The images must not be written to.
    """

    def __init__(self, images: torch.Tensor, targets: torch.Tensor) -> None:
        self.images = images
        self.targets = targets
        self._residents: dict[torch.device, MemorySplit] = {}

    @classmethod
    def of_arrays(cls, images: NDArray[np.uint8], targets: NDArray[np.int64]) -> MemorySplit:
        """The split of these arrays, which are not copied and may be read-only."""
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
            return cls(torch.from_numpy(np.ascontiguousarray(images)), torch.from_numpy(np.ascontiguousarray(targets)))

    def __len__(self) -> int:
        return len(self.targets)

    def __reduce__(self) -> tuple[Any, ...]:
        return MemorySplit.of_arrays, (self.images.cpu().numpy(), self.targets.numpy())

    def fetch(self, batches: Iterable[torch.Tensor]) -> Iterator[torch.Tensor]:
        """Images, uint8 [b, C, H, W], for each int64 [b] of indices, in order, where the images lie."""
        for index in batches:
            yield self.images.index_select(0, index.to(self.images.device, non_blocking=True))

    def on(self, device: torch.device) -> MemorySplit:
        """The same split with its images on the device, copied there once; the targets stay on the host.

        Itself, where the images would take more than a quarter of the memory that is free there.
        """
        if device.type in ("cpu", self.images.device.type) and device.index in (None, self.images.device.index):
            return self
        if device not in self._residents:
            if device.type == "cuda" and self.images.nbytes > RESIDENT_SHARE * torch.cuda.mem_get_info(device)[0]:
                return self
            self._residents[device] = MemorySplit(self.images.to(device), self.targets)
        return self._residents[device]


class StreamedSplit:
    """Pictures that are read and decoded when they are asked for, by `workers` processes (0: in this one)."""

    def __init__(
        self,
        pictures: Pictures,
        rows: NDArray[np.int64],
        targets: NDArray[np.int64],
        shape: tuple[int, int, int],
        workers: int,
    ) -> None:
        self.pictures = pictures
        self.rows = rows
        self.targets = torch.from_numpy(targets.copy())
        self.shape = shape
        self.workers = workers

    def __len__(self) -> int:
        return len(self.rows)

    def fetch(self, batches: Iterable[torch.Tensor]) -> Iterator[torch.Tensor]:
        """Images, uint8 [b, C, H, W], for each int64 [b] of indices, in order. Raises BadData naming an image."""
        read = partial(_read, self.pictures, self.rows, self.shape)
        return read_batches(read, (index.cpu().numpy() for index in batches), self.workers)


def _read(
    pictures: Pictures, rows: NDArray[np.int64], shape: tuple[int, int, int], index: NDArray[np.int64]
) -> torch.Tensor:
    """Indices [b] → images [b, C, H, W]."""
    images = np.empty((len(index), *shape), dtype=np.uint8)
    for place, row in enumerate(rows[index]):
        images[place] = pictures.read(int(row), shape)
    return torch.from_numpy(images)


def read_all(pictures: Pictures, rows: NDArray[np.int64], shape: tuple[int, int, int]) -> NDArray[np.uint8]:
    """These pictures as one array uint8 [N, C, H, W], decoded by as many threads as torch would use."""
    images = np.empty((len(rows), *shape), dtype=np.uint8)

    def read(place: int) -> None:
        images[place] = pictures.read(int(rows[place]), shape)

    if not pictures.threads:
        for place in range(len(rows)):
            read(place)
        return images
    pool = ThreadPoolExecutor(torch.get_num_threads())
    try:
        for _ in pool.map(read, range(len(rows))):
            pass
    finally:
        pool.shutdown(cancel_futures=True)  # after an unreadable picture the others are not waited for
    return images


def resident(split: Split, device: torch.device) -> Split:
    """The split with its images on the device, where it is held in memory and fits there (see `MemorySplit.on`).

    Copied once per process: later calls with the same split and device return the same.
    """
    return split.on(device) if isinstance(split, MemorySplit) else split


def evaluation_batches(
    split: Split, batch_size: int, device: torch.device
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """The whole split once, in order: images uint8 [b, C, H, W] and targets int64 [b], both on the device."""
    targets = torch.split(split.targets.to(device, non_blocking=True), batch_size)
    images = resident(split, device).fetch(torch.split(torch.arange(len(split)), batch_size))
    for batch, labels in zip(images, targets, strict=True):
        yield batch.to(device, non_blocking=True), labels


def evenly_spaced(length: int, count: int) -> torch.Tensor:
    """At most `count` indices int64, spread evenly over `length`."""
    return torch.from_numpy(np.unique(np.linspace(0, length - 1, min(count, length)).astype(np.int64)))
