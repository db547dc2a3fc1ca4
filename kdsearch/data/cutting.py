"""Stratified cuts, label fraction and label noise, as index arithmetic on labels; every draw from a given generator."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Integers = NDArray[np.int64]


def allocate(counts: Integers, total: int, spare: int) -> Integers:
    """How many samples of each class make up `total`: proportional to `counts`, by largest remainder.

    Each class gives at least 1 and keeps at least `spare`, even where the sum then misses `total`; classes without
    samples give none. `counts` [K] must be 0 or above `spare`.
    """
    present = counts > 0
    low, high = present.astype(np.int64), np.where(present, counts - spare, 0)
    quota = counts * (total / counts.sum())
    taken: Integers = np.clip(np.floor(quota).astype(np.int64), low, high)
    while (missing := total - int(taken.sum())) != 0:
        step = 1 if missing > 0 else -1
        able = np.flatnonzero(taken < high if step > 0 else taken > low)
        if len(able) == 0:
            break
        neediest = able[np.argsort(step * (taken - quota)[able], kind="stable")]
        taken[neediest[: abs(missing)]] += step
    return taken


def cut(targets: Integers, total: int, spare: int, random: np.random.Generator) -> tuple[Integers, Integers]:
    """Sorted indices of a stratified sample of about `total` (see `allocate`) and of the rest."""
    shuffled = random.permutation(len(targets))
    by_class = shuffled[np.argsort(targets[shuffled], kind="stable")]
    counts = np.bincount(targets)
    rank = np.arange(len(targets)) - np.repeat(np.cumsum(counts) - counts, counts)
    chosen = rank < np.repeat(allocate(counts, total, spare), counts)
    return np.sort(by_class[chosen]), np.sort(by_class[~chosen])


def corrupt(targets: Integers, share: float, classes: int, random: np.random.Generator) -> Integers:
    """The labels with exactly round(share · N) of them replaced by another class, uniformly among the others."""
    wrong = random.choice(len(targets), size=round(share * len(targets)), replace=False)
    noisy = targets.copy()
    noisy[wrong] = (noisy[wrong] + random.integers(1, classes, size=len(wrong))) % classes
    return noisy
