"""Batches that loader processes read while the one before is trained on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, TypeVar

import torch

from kdsearch.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from numpy.typing import NDArray

Read = TypeVar("Read")
"""Tensors of a batch."""


def read_batches(read: Callable[[NDArray[Any]], Read], batches: Iterable[NDArray[Any]], workers: int) -> Iterator[Read]:
    """What `read`, which can be pickled, makes of each item of `batches`, in order and ahead of its use.

    Args:
        read: indices of a batch, integers [b, ...] → its tensors.
        batches: the indices.
        workers: processes that read; 0: this one.

    Raises the UserError of the first sample that cannot be read.
    """
    loader = torch.utils.data.DataLoader(
        _Reader(read),
        sampler=batches,
        batch_size=None,  # each item of the sampler is a whole batch already
        num_workers=workers,
        pin_memory=torch.cuda.is_available(),
        generator=torch.Generator(),  # else it would draw from the global one and change what a student draws
    )
    for batch in loader:
        if isinstance(batch, UserError):
            raise batch
        yield batch


class _Reader(torch.utils.data.Dataset[Any], Generic[Read]):
    """Errors are handed over as values: raised in a loader process they would come back as a traceback."""

    def __init__(self, read: Callable[[NDArray[Any]], Read]) -> None:
        self.read = read

    def __getitem__(self, index: NDArray[Any]) -> Read | UserError:
        try:
            return self.read(index)
        except UserError as error:
            return error
