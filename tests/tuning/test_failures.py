"""What an exception means for a trial: by its kind, its words and its causes."""

from __future__ import annotations

import errno

import pytest
import torch

from kdsearch.errors import UserError
from kdsearch.tuning.failures import (
    common,
    full_disk,
    is_broken_gpu,
    is_out_of_gpu_memory,
    larger_share,
    reason_of,
    same,
)

# As torch 2.x words it; the numbers and the advice differ each time.
CUDA_OUT_OF_MEMORY = (
    "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 79.25 GiB of which 1.10 GiB is free."
)


def wrapped(cause: Exception) -> Exception:
    """As a person's own network that fails is told of."""
    try:
        raise UserError("my_net.py:build failed") from cause
    except UserError as error:
        return error


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (torch.OutOfMemoryError(CUDA_OUT_OF_MEMORY), True),
        (wrapped(torch.OutOfMemoryError(CUDA_OUT_OF_MEMORY)), True),
        (RuntimeError("CUDA error: out of memory"), True),
        (RuntimeError("HIP out of memory. Tried to allocate 20.00 MiB"), True),
        (RuntimeError("MPS backend out of memory (MPS allocated: 17.00 GB)"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), True),
        (RuntimeError("CUDA error: device-side assert triggered"), False),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 4000000000000 bytes"), False),
        (MemoryError(), False),
        (ValueError("out of memory in CUDA's book"), False),
    ],
)
def test_running_out_of_gpu_memory_is_told_apart(error: Exception, expected: bool) -> None:
    assert is_out_of_gpu_memory(error) is expected


def test_after_an_error_of_cuda_the_process_is_of_no_use() -> None:
    assert is_broken_gpu(RuntimeError("CUDA error: device-side assert triggered\nCompile with TORCH_USE_CUDA_DSA"))
    assert is_broken_gpu(wrapped(RuntimeError("CUDA error: an illegal memory access was encountered")))
    assert not is_broken_gpu(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    assert not is_broken_gpu(ValueError("CUDA error"))


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_found_behind_what_it_led_to(code: int) -> None:
    cause = OSError(code, "no room", "checkpoint")
    assert full_disk(wrapped(cause)) is cause
    assert full_disk(OSError(errno.EACCES, "not yours")) is None


@pytest.mark.parametrize(
    ("share", "larger"), [(0.1, 0.2), (0.2, 0.5), (0.25, 0.5), (0.3, 1), (0.5, 1), (0.6, None), (1, None), (0, None)]
)
def test_a_larger_share_leaves_room_for_at_most_half_as_many(share: float, larger: float | None) -> None:
    assert larger_share(share) == larger
    if larger is not None:
        assert int(1 / larger) <= int(1 / share) // 2


def test_reasons_are_the_same_whatever_their_numbers() -> None:
    assert same("temperature 3.25 is too hot at 0x7f00", "temperature 1e-05 is too hot at 0x1a2b")
    assert not same("temperature 3.25 is too hot", "alpha 3.25 is too hot")
    assert common(["no 1", "no 22", "no -3.5"]) == "no 1"
    assert common(["no 1", "yes 1"]) is None
    assert common(["no 1", None]) is None
    assert common([]) is None


def test_a_reason_names_the_kind_of_what_is_not_ours() -> None:
    assert reason_of(UserError("teacher is missing")) == "teacher is missing"
    assert reason_of(KeyError("logits")) == "KeyError: 'logits'"
