"""A part of a set of a dense task: images and truths in memory, or read by loader processes."""

from __future__ import annotations

import warnings
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np
import torch

from kdsearch.data.splits import RESIDENT_SHARE
from kdsearch.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from numpy.typing import NDArray

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
    """Images uint8 [N, C, H, W], truths [N, ...] and dominant classes int64 [N], in memory.

    Pickled with protocol 5 and out-of-band buffers (as Ray's object store does) nothing is copied.
    """

    def __init__(self, images: torch.Tensor, truths: torch.Tensor, targets: torch.Tensor) -> None:
        self.images = images
        self.truths = truths
        self.targets = targets
        self._residents: dict[torch.device, DenseMemorySplit] = {}

    @classmethod
    def of_arrays(cls, images: NDArray[np.uint8], truths: NDArray[Any], targets: NDArray[np.int64]) -> DenseMemorySplit:
        """The split of these arrays, which are not copied and may be read-only."""
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
            return cls(*(torch.from_numpy(np.ascontiguousarray(array)) for array in (images, truths, targets)))

    def __len__(self) -> int:
        return len(self.targets)

    def __reduce__(self) -> tuple[Any, ...]:
        arrays = (self.images.cpu().numpy(), self.truths.cpu().numpy(), self.targets.numpy())
        return DenseMemorySplit.of_arrays, arrays

    def fetch(self, batches: Iterable[torch.Tensor]) -> Iterator[torch.Tensor]:
        return (images for images, _ in self.fetch_pairs(batches))

    def fetch_pairs(self, batches: Iterable[torch.Tensor]) -> Iterator[Pair]:
        for index in batches:
            place = index.to(self.images.device, non_blocking=True)
            yield self.images.index_select(0, place), self.truths.index_select(0, place)

    def on(self, device: torch.device) -> DenseMemorySplit:
        """The same split on the device, copied there once; itself, where it would take too much of its memory."""
        if device.type in ("cpu", self.images.device.type) and device.index in (None, self.images.device.index):
            return self
        if device not in self._residents:
            taken = self.images.nbytes + self.truths.nbytes
            if device.type == "cuda" and taken > RESIDENT_SHARE * torch.cuda.mem_get_info(device)[0]:
                return self
            self._residents[device] = DenseMemorySplit(self.images.to(device), self.truths.to(device), self.targets)
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
        loader = torch.utils.data.DataLoader(
            _Reader(self.part.read, self.part.rows),
            sampler=(index.cpu().numpy() for index in batches),
            batch_size=None,  # each item of the sampler is a whole batch already
            num_workers=self.workers,
            pin_memory=torch.cuda.is_available(),
            generator=torch.Generator(),  # else it would draw from the global one and change what a student draws
        )
        for pair in loader:
            if isinstance(pair, UserError):
                raise pair
            yield pair


class _Reader(torch.utils.data.Dataset[Any]):
    """Indices [b] → images and truths, or the error of the first sample that cannot be read.

    The error is handed over as a value: raised in a loader process it would come back as a traceback.
    """

    def __init__(self, read: Read, rows: NDArray[np.int64]) -> None:
        self.read, self.rows = read, rows

    def __getitem__(self, index: NDArray[np.int64]) -> Pair | UserError:
        try:
            samples = [self.read(int(row)) for row in self.rows[index]]
        except UserError as error:
            return error
        images, truths = (np.stack(parts) for parts in zip(*samples, strict=True))
        return torch.from_numpy(images), torch.from_numpy(truths)


def hold(part: DensePart) -> DenseMemorySplit:
    """The whole part in memory, read by as many threads as torch would use; a row that stands twice is read once."""
    rows, place = np.unique(part.rows, return_inverse=True)
    pool = ThreadPoolExecutor(torch.get_num_threads())
    try:
        samples = list(pool.map(part.read, rows.tolist()))
    finally:
        pool.shutdown(cancel_futures=True)  # after an unreadable picture the others are not waited for
    images, truths = (np.stack(parts) for parts in zip(*samples, strict=True))
    if len(rows) < len(part) or not np.array_equal(place, np.arange(len(rows))):
        images, truths = images[place], truths[place]
    return DenseMemorySplit.of_arrays(images, truths, part.labels)


def dense_batches(split: DenseSplit, batch_size: int, device: torch.device) -> Iterator[Pair]:
    """The whole split once, in order: images uint8 [b, C, H, W] and truths [b, ...], both on the device."""
    here = split.on(device) if isinstance(split, DenseMemorySplit) else split
    for images, truths in here.fetch_pairs(torch.split(torch.arange(len(split)), batch_size)):
        yield images.to(device, non_blocking=True), truths.to(device, non_blocking=True)
