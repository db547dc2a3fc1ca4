"""Memory that a process on a CPU keeps for its next step, in place of giving it back to the system."""

from __future__ import annotations

import ctypes
import platform

# Parameters of mallopt, as malloc.h of glibc numbers them.
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -3, -4
_NEVER = -1
_GIBIBYTE = 2**30


def keep_freed_memory() -> None:
    """Have malloc keep what is freed, up to blocks of a gibibyte: for the whole process, until it ends.

    By itself glibc maps each block of more than 32 MiB anew, and cuts off the end of its heap when it is free. So every
    step of a training gets its activations page by page from the system, which clears them: up to a third of the time
    of a step. Kept, they cost up to a quarter more memory at the peak where blocks are that large, else nothing; the
    process then holds it to its end. Without glibc nothing is changed.
    """
    if platform.libc_ver()[0] != "glibc":
        return
    mallopt = ctypes.CDLL(None).mallopt
    mallopt(_TRIM_THRESHOLD, _NEVER)
    if not mallopt(_MMAP_THRESHOLD, _GIBIBYTE):  # before 2.35 it allows no more than 32 MiB
        mallopt(_MMAP_MAX, 0)
