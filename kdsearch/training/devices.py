"""The accelerator as a process that trains on it sees it: its memory, this process's part of it, and its time."""

from __future__ import annotations

import gc
import time
from typing import Protocol

import torch

TENSORS = 0.9
"""What tensors may take of a share: the rest is for CUDA contexts, kernels and other things that are no tensors."""


class Device(Protocol):
    """One accelerator, or something that stands in for one. Sizes are in bytes."""

    def count(self) -> int:
        """How many of them this process sees; 0: it trains on the CPU."""
        ...

    def name(self) -> str: ...

    def total_memory(self) -> int: ...

    def used_memory(self) -> int:
        """What all processes together hold of it, contexts included."""
        ...

    def reserved_memory(self) -> int:
        """What this process holds of it for tensors, those that it has let go of and keeps at hand included."""
        ...

    def peak_memory(self) -> int:
        """The largest `reserved_memory` since `forget`."""
        ...

    def forget(self) -> None:
        """Give back what is at hand and unused, and begin a new peak."""
        ...

    def limit_memory(self, fraction: float) -> None:
        """Let this process reserve no more than this fraction of the whole: what asks for more is out of memory."""
        ...

    def synchronise(self) -> None:
        """Wait until all work that was given to it is done."""
        ...

    def now(self) -> float:
        """Seconds on a clock that only goes forward."""
        ...


class CudaDevice:
    """The first GPU that this process sees, through torch: NVIDIA's, and AMD's where torch is built for those."""

    def count(self) -> int:
        return torch.cuda.device_count()

    def name(self) -> str:
        return torch.cuda.get_device_name(0)

    def total_memory(self) -> int:
        return torch.cuda.mem_get_info(0)[1]

    def used_memory(self) -> int:
        free, total = torch.cuda.mem_get_info(0)
        return total - free

    def reserved_memory(self) -> int:
        return torch.cuda.memory_reserved(0)

    def peak_memory(self) -> int:
        return torch.cuda.max_memory_reserved(0)

    def forget(self) -> None:
        torch.cuda.init()  # type: ignore[no-untyped-call]  # the allocator knows of no device before
        gc.collect()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(0)

    def limit_memory(self, fraction: float) -> None:
        torch.cuda.set_per_process_memory_fraction(fraction, 0)

    def synchronise(self) -> None:
        torch.cuda.synchronize(0)

    def now(self) -> float:
        return time.perf_counter()


def hold_to(device: Device, share: float) -> None:
    """Hold this process to its share of the device; with a whole one or more, or none, there is nothing to hold.

    A scheduler's fraction of a GPU is a number that nobody keeps to by itself. What exceeds it fails as out of memory,
    in the process that exceeds it and not in its neighbours.
    """
    if 0 < share < 1 and device.count() > 0:
        device.limit_memory(TENSORS * share)
