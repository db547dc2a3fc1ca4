"""Randomness as a function of a seed and a purpose: nothing to store, nothing shared, the same on every device."""

from __future__ import annotations

import hashlib

import numpy as np


def _digest(seed: int, purpose: tuple[int | str, ...]) -> bytes:
    return hashlib.sha256("/".join(map(str, (seed, *purpose))).encode()).digest()


def stream(seed: int, *purpose: int | str) -> np.random.Generator:
    """An independent generator for a purpose, e.g. `stream(seed, "order", epoch)`."""
    return np.random.Generator(np.random.Philox(key=int.from_bytes(_digest(seed, purpose)[:16], "little")))


def torch_seed(seed: int, *purpose: int | str) -> int:
    """A 63-bit seed for a torch.Generator."""
    return int.from_bytes(_digest(seed, purpose)[:8], "little") >> 1
