"""How long a network takes on this machine."""

from __future__ import annotations

import statistics
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from kdsearch.models.trace import undisturbed

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import nn

_WARM_UP = 5
_LEAST, _MOST = 15, 200
_SECONDS = 3.0


@dataclass(frozen=True)
class Latency:
    """The time of one forward pass."""

    seconds: float
    """The median of the passes."""
    forwards: int
    """How many passes were timed."""
    threads: int
    """Threads of the CPU that took part."""
    device: str
    """`cpu`, or the GPU's name."""


def latency(module: nn.Module, example: torch.Tensor, threads: int = 1) -> Latency:
    """The median time of forward passes of `example` [B, C, H, W] in eval mode, on its device.

    One thread by default, whatever the process has: figures of one machine compare then, whenever they were taken.
    After a warm-up 15 to 200 passes are timed, for about three seconds.
    """
    device = example.device
    taken: list[float] = []
    with undisturbed(module), _threads(threads):
        for _ in range(_WARM_UP):
            _pass(module, example)
        ends = time.perf_counter() + _SECONDS
        while len(taken) < _LEAST or (len(taken) < _MOST and time.perf_counter() < ends):
            taken.append(_pass(module, example))
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    return Latency(statistics.median(taken), len(taken), threads, name)


def _pass(module: nn.Module, example: torch.Tensor) -> float:
    started = time.perf_counter()
    module(example)
    if example.device.type == "cuda":
        torch.cuda.synchronize(example.device)
    return time.perf_counter() - started


@contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
