"""Stratified cuts and label noise, against what the words promise."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.model_selection import train_test_split

from kdsearch.data.cutting import allocate, corrupt, cut
from kdsearch.data.randomness import stream

counts_of_classes = st.lists(st.integers(3, 60), min_size=2, max_size=12)


@given(counts_of_classes, st.floats(0.05, 0.9))
def test_allocation_is_within_one_of_the_exact_share_unless_the_limits_forbid_it(
    counts: list[int], share: float
) -> None:
    sizes = np.array(counts)
    total = round(share * sizes.sum())
    taken = allocate(sizes, total, spare=2)
    assert ((taken >= 1) & (taken <= sizes - 2)).all()
    exact = sizes * total / sizes.sum()
    free = (exact >= 1) & (exact <= sizes - 2)
    if free.all():
        assert taken.sum() == total
        assert (np.abs(taken - exact) < 1).all()


def test_allocation_gives_the_remainders_to_the_largest() -> None:
    # Quotas of 10 out of 37: 1.35, 2.70, 5.95; one each is left for 5.95 and 2.70.
    assert allocate(np.array([5, 10, 22]), 10, spare=1).tolist() == [1, 3, 6]


def test_every_class_gives_one_even_where_the_total_is_then_exceeded() -> None:
    assert allocate(np.array([3, 3, 3, 3]), 2, spare=1).tolist() == [1, 1, 1, 1]


def test_absent_classes_give_nothing() -> None:
    assert allocate(np.array([10, 0, 10]), 4, spare=0).tolist() == [2, 0, 2]


@given(counts_of_classes, st.integers(0, 2**32), st.floats(0.1, 0.6))
def test_cuts_are_disjoint_complete_sorted_and_reproducible(counts: list[int], seed: int, share: float) -> None:
    targets = stream(seed, "labels").permutation(np.repeat(np.arange(len(counts)), counts))
    total = round(share * len(targets))
    taken, rest = cut(targets, total, 1, stream(seed, "cut"))
    assert sorted([*taken, *rest]) == list(range(len(targets)))
    assert (np.diff(taken) > 0).all()
    assert (np.diff(rest) > 0).all()
    assert np.array_equal(np.bincount(targets[taken]), allocate(np.array(counts), total, 1))
    assert np.array_equal(taken, cut(targets, total, 1, stream(seed, "cut"))[0])


def test_cuts_are_as_stratified_as_those_of_scikit_learn() -> None:
    targets = stream(0, "labels").integers(0, 7, 1000)
    taken, _ = cut(targets, 200, 1, stream(0, "cut"))
    _, theirs = train_test_split(np.arange(1000), test_size=200, stratify=targets, random_state=0)
    assert len(taken) == 200
    assert np.abs(np.bincount(targets[taken]) - np.bincount(targets[theirs])).max() <= 1


def test_cuts_choose_uniformly_within_a_class() -> None:
    targets = np.repeat([0, 1], 10)
    chosen = np.zeros(20)
    for seed in range(600):
        chosen[cut(targets, 6, 1, stream(seed, "cut"))[0]] += 1
    # Each sample is taken with probability 0.3: 180 ± 11.2; five deviations.
    assert np.abs(chosen - 180).max() < 56


@pytest.mark.parametrize("share", [0.0, 0.1, 0.25, 0.8])
def test_noise_replaces_exactly_its_share_of_labels_by_others(share: float) -> None:
    targets = stream(3, "labels").integers(0, 5, 777)
    noisy = corrupt(targets, share, 5, stream(0, "noise"))
    assert (noisy != targets).sum() == round(share * 777)
    assert noisy.min() >= 0
    assert noisy.max() < 5


def test_noise_is_uniform_over_the_other_classes() -> None:
    targets = np.full(30_000, 2)
    noisy = corrupt(targets, 0.9, 4, stream(0, "noise"))
    counts = np.bincount(noisy, minlength=4)
    assert counts[2] == 3000
    # 27,000 over three classes: 9,000 ± 77; five deviations.
    assert np.abs(counts[[0, 1, 3]] - 9000).max() < 390
