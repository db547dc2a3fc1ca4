"""What went wrong in a trial, in words that can be compared, and whether it is run again. No ray, no torch."""

from __future__ import annotations

import errno
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from kdsearch.errors import KDSearchError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

DISK_FULL_CODES = (errno.ENOSPC, errno.EDQUOT)

_NUMBER = re.compile(r"0x[0-9a-f]+|[-+]?\d+(\.\d+)?(e[-+]?\d+)?", re.IGNORECASE)
# What torch says of NVIDIA, AMD and Apple devices; cuBLAS and cuDNN allocate by themselves and word it differently.
_OUT_OF_GPU_MEMORY = re.compile(
    r"(CUDA|HIP|MPS|XPU|GPU).*out of memory|out of memory.*(CUDA|HIP|MPS|XPU|GPU)|CUBLAS_STATUS_ALLOC_FAILED"
)
_BROKEN_GPU = re.compile(r"(CUDA|HIP) error")


@dataclass
class Failures:
    """What went wrong in one trial so far."""

    reasons: list[str] = field(default_factory=list)
    """Of the times that it failed by itself."""
    losses: int = 0
    """Times that it lost its process or node."""

    def failed(self, reason: str, allowed: int) -> bool:
        """It failed by itself: whether it is run again. Not when it did so before for the same reason: what fails
        twice alike will fail for ever."""
        repeated = any(same(reason, earlier) for earlier in self.reasons)
        self.reasons.append(reason)
        return not repeated and len(self.reasons) <= allowed

    def lost(self, allowed: int) -> bool:
        """It lost its process: whether it is run again."""
        self.losses += 1
        return self.losses <= allowed


def same(reason: str, other: str) -> bool:
    """Whether two reasons differ in no more than their numbers: the value of a setting, an address, an amount."""
    return _NUMBER.sub("#", reason) == _NUMBER.sub("#", other)


def common(reasons: Sequence[str | None]) -> str | None:
    """The reason that all of them are; None when they differ or one is None."""
    first = reasons[0] if reasons else None
    return first if first and all(reason and same(first, reason) for reason in reasons) else None


def larger_share(share: float) -> float | None:
    """The share of a GPU at which at most half as many trials share it; None where a trial has it for itself."""
    together = int(1 / share + 1e-9) if share > 0 else 0
    return 1 / (together // 2) if together > 1 else None


def reason_of(error: BaseException) -> str:
    """An exception as the reason of a failure: ours as they are, others with their kind."""
    return str(error) if isinstance(error, KDSearchError) else f"{type(error).__name__}: {error}"


def is_out_of_gpu_memory(error: BaseException) -> bool:
    """Whether it is torch's `OutOfMemoryError`, or stems from one, or says what one says."""
    return any(
        (type(cause).__name__ == "OutOfMemoryError" and type(cause).__module__.startswith("torch"))
        or (isinstance(cause, RuntimeError) and _OUT_OF_GPU_MEMORY.search(str(cause)) is not None)
        for cause in _causes(error)
    )


def is_broken_gpu(error: BaseException) -> bool:
    """Whether the process can use its GPU no more: after such an error each further call fails too."""
    return any(isinstance(cause, RuntimeError) and _BROKEN_GPU.search(str(cause)) for cause in _causes(error))


def full_disk(error: BaseException) -> OSError | None:
    """The error of a full disk or an exhausted quota that this one is or stems from."""
    found = (cause for cause in _causes(error) if isinstance(cause, OSError) and cause.errno in DISK_FULL_CODES)
    return next(found, None)


def _causes(error: BaseException) -> Iterator[BaseException]:
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__
