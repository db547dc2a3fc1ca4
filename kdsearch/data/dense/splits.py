"""A part of a set of a dense task: images and truths in memory, or read by loader processes."""

from __future__ import annotations

import warnings
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np
import torch

from kdsearch.data.reading import read_batches
from kdsearch.data.splits import RESIDENT_SHARE
from kdsearch.errors import BadData

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from numpy.typing import NDArray

    from kdsearch.data.base import DataSet
    from kdsearch.data.dense.source import DensePart, Read

    Pair = tuple[torch.Tensor, torch.Tensor]


@runtime_checkable
class DenseSplit(Protocol):
    """What dense tasks train and are measured on."""

    targets: torch.Tensor
    """int64 [N], the dominant class of each sample."""

    def __len__(self) -> int: ...

    def fetch(self, batches: Iterable[torch.Tensor]) -> Iterator[torch.Tensor]:
        """Images, uint8 [b, C, H, W], for each int64 [b] of indices, in order."""
        ...

    def fetch_pairs(self, batches: Iterable[torch.Tensor]) -> Iterator[Pair]:
        """Images and truths [b, ...] for each int64 [b] of indices, in order."""
        ...


class DenseMemorySplit:
    """Images uint8 [R, C, H, W] and truths [R, ...] in memory, dominant classes int64 [N] of the samples.

    Sample n is row `rows[n]` of both, so that one that stands twice takes no more room; without `rows` row n.
    Pickled with protocol 5 and out-of-band buffers (as Ray's object store does) nothing is copied.
    """

    def __init__(
        self, images: torch.Tensor, truths: torch.Tensor, targets: torch.Tensor, rows: torch.Tensor | None = None
    ) -> None:
        self.images = images
        self.truths = truths
        self.targets = targets
        self.rows = torch.arange(len(images), device=images.device) if rows is None else rows
        self._residents: dict[torch.device, DenseMemorySplit] = {}

    @classmethod
    def of_arrays(
        cls,
        images: NDArray[np.uint8],
        truths: NDArray[Any],
        targets: NDArray[np.int64],
        rows: NDArray[np.int64] | None = None,
    ) -> DenseMemorySplit:
        """The split of these arrays, which are not copied and may be read-only."""
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
            arrays = (images, truths, targets) if rows is None else (images, truths, targets, rows)
            return cls(*(torch.from_numpy(np.ascontiguousarray(array)) for array in arrays))

    def __len__(self) -> int:
        return len(self.targets)

    def __reduce__(self) -> tuple[Any, ...]:
        tensors = (self.images, self.truths, self.targets, self.rows)
        return DenseMemorySplit.of_arrays, tuple(tensor.cpu().numpy() for tensor in tensors)

    def fetch(self, batches: Iterable[torch.Tensor]) -> Iterator[torch.Tensor]:
        return (images for images, _ in self.fetch_pairs(batches))

    def fetch_pairs(self, batches: Iterable[torch.Tensor]) -> Iterator[Pair]:
        for index in batches:
            place = self.rows[index.to(self.rows.device, non_blocking=True)]
            yield self.images.index_select(0, place), self.truths.index_select(0, place)

    def on(self, device: torch.device) -> DenseMemorySplit:
        """The same split on the device, copied there once; itself, where it would take too much of its memory."""
        if device.type in ("cpu", self.images.device.type) and device.index in (None, self.images.device.index):
            return self
        if device not in self._residents:
            taken = self.images.nbytes + self.truths.nbytes
            if device.type == "cuda" and taken > RESIDENT_SHARE * torch.cuda.mem_get_info(device)[0]:
                return self
            images, truths, rows = (tensor.to(device) for tensor in (self.images, self.truths, self.rows))
            self._residents[device] = DenseMemorySplit(images, truths, self.targets, rows)
        return self._residents[device]


class DenseStreamedSplit:
    """Samples that are read when they are asked for, by `workers` processes (0: in this one)."""

    def __init__(self, part: DensePart, workers: int) -> None:
        self.part = part
        self.workers = workers
        self.targets = torch.from_numpy(part.labels.copy())

    def __len__(self) -> int:
        return len(self.part)

    def fetch(self, batches: Iterable[torch.Tensor]) -> Iterator[torch.Tensor]:
        return (images for images, _ in self.fetch_pairs(batches))

    def fetch_pairs(self, batches: Iterable[torch.Tensor]) -> Iterator[Pair]:
        read = partial(_read, self.part.read, self.part.rows)
        return read_batches(read, (index.cpu().numpy() for index in batches), self.workers)


def _read(read: Read, rows: NDArray[np.int64], index: NDArray[np.int64]) -> Pair:
    """Indices [b] → images and truths."""
    images, truths = (np.stack(parts) for parts in zip(*(read(int(row)) for row in rows[index]), strict=True))
    return torch.from_numpy(images), torch.from_numpy(truths)


def hold(part: DensePart) -> DenseMemorySplit:
    """The whole part in memory, read by as many threads as torch would use; a row that stands twice is held once."""
    rows, place = np.unique(part.rows, return_inverse=True)
    pool = ThreadPoolExecutor(torch.get_num_threads())
    try:
        samples = list(pool.map(part.read, rows.tolist()))
    finally:
        pool.shutdown(cancel_futures=True)  # after an unreadable picture the others are not waited for
    images, truths = (np.stack(parts) for parts in zip(*samples, strict=True))
    return DenseMemorySplit.of_arrays(images, truths, part.labels, place.astype(np.int64))


def dense_batches(split: DenseSplit, batch_size: int, device: torch.device) -> Iterator[Pair]:
    """The whole split once, in order: images uint8 [b, C, H, W] and truths [b, ...], both on the device."""
    here = split.on(device) if isinstance(split, DenseMemorySplit) else split
    for images, truths in here.fetch_pairs(torch.split(torch.arange(len(split)), batch_size)):
        yield images.to(device, non_blocking=True), truths.to(device, non_blocking=True)


def refuse_without(data: DataSet, holds: Callable[[torch.Tensor], torch.Tensor], what: str) -> None:
    """Raises BadData where no truth of the training part, of which the first nearly always has it, holds `what`.

    Args:
        data: the set.
        holds: truths [b, ...] → bool of any shape, true where it is.
        what: its name in the sentence, such as "an object".
    """
    split = data.train
    assert isinstance(split, DenseSplit), f"{data.name} is no set for a dense task"
    batches = torch.split(torch.arange(len(split)), 32)
    if not any(bool(holds(truths).any()) for _, truths in split.fetch_pairs(batches)):
        raise BadData(f"no training image of {data.name!r} has {what}: there is nothing to learn")
