"""ODS and OIS: the matching against all ways to pair, the measures against counting by hand."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.ndimage import binary_dilation
from skimage import morphology

from kdsearch.data.dense.edge_maps import MOST_ANNOTATORS, pack, thin, unpack
from kdsearch.tasks.boundaries import RADIUS, Counts, count, f_measures
from kdsearch.tasks.boundaries import match as match_places

Mask = NDArray[np.bool_]


def mask(*rows: str) -> Mask:
    return np.array([[letter == "#" for letter in row] for row in rows])


def match(first: Mask, second: Mask, radius: float) -> tuple[Mask, Mask]:
    """The pixels of two masks that find a partner; each stands in one pair, which is no longer than the radius."""
    ours, theirs = np.argwhere(first), np.argwhere(second)
    of_ours, of_theirs = match_places(ours, theirs, radius)
    assert len(set(of_ours.tolist())) == len(of_ours) == len(of_theirs) == len(set(of_theirs.tolist()))
    matched = np.zeros_like(first), np.zeros_like(second)
    for here, there in zip(ours[of_ours], theirs[of_theirs], strict=True):
        assert np.hypot(*(here - there)) <= radius
        matched[0][tuple(here)] = matched[1][tuple(there)] = True
    return matched


def best_pairing(first: Mask, second: Mask, radius: float) -> tuple[int, float]:
    """The most pairs and, of those, the least sum of distances: by trying every assignment."""
    ours, theirs = np.argwhere(first), np.argwhere(second)
    if len(ours) > len(theirs):
        ours, theirs = theirs, ours
    best = (0, 0.0)
    for chosen in itertools.permutations(range(len(theirs)), len(ours)):
        distances = [float(np.hypot(*(a - theirs[b]))) for a, b in zip(ours, chosen, strict=True)]
        near = [distance for distance in distances if distance <= radius]
        best = max(best, (len(near), -sum(near)))
    return best[0], -best[1]


@pytest.mark.parametrize("radius", [0.0, 1.0, 1.5, 2.3])
def test_the_matching_pairs_as_many_pixels_as_any_assignment_and_none_is_shorter(radius: float) -> None:
    random = np.random.default_rng(0)
    for _ in range(12):
        first, second = np.zeros((4, 5), dtype=bool), np.zeros((4, 5), dtype=bool)
        for drawn, pixels in ((first, random.integers(1, 5)), (second, random.integers(1, 7))):
            drawn.flat[random.choice(20, pixels, replace=False)] = True
        most, least = best_pairing(first, second, radius)
        ours, theirs = match(first, second, radius)
        assert ours.sum() == theirs.sum() == most
        pixels = np.argwhere(first), np.argwhere(second)
        pairs = zip(*match_places(*pixels, radius), strict=True)
        assert sum(np.hypot(*(pixels[0][i] - pixels[1][j])) for i, j in pairs) == pytest.approx(least, abs=1e-9)


def test_of_two_pixels_that_could_be_matched_the_nearer_one_is() -> None:
    ours, theirs = match(mask("#.#......"), mask("...#....."), 3.0)
    assert np.array_equal(ours, mask("..#......"))
    assert np.array_equal(theirs, mask("...#....."))


def test_a_matching_is_never_smaller_for_the_sake_of_shorter_distances() -> None:
    """The middle pixels are nearest to each other, but paired with one another they leave both outer ones alone."""
    ours, theirs = match(mask("#.#...."), mask("...#.#."), 3.0)
    assert ours.sum() == theirs.sum() == 2
    ours, _ = match(mask("##....."), mask(".#.#..."), 1.0)  # 0–1 is the only way for pixel 0; 1–1 is then taken
    assert ours.sum() == 1


def test_dilation_would_find_two_pixels_where_one_can_be_matched() -> None:
    predicted, annotated = mask(".#.", "...", ".#."), mask("...", ".#.", "...")
    ours, theirs = match(predicted, annotated, 1.0)
    assert ours.sum() == theirs.sum() == 1
    dilated = predicted & binary_dilation(annotated)
    assert dilated.sum() == 2  # a double line around a single one would be taken for right


def test_masks_without_pixels_or_without_neighbours_match_nothing() -> None:
    none, one, far = mask("...."), mask("#..."), mask("...#")
    for first, second in ((none, none), (none, one), (one, none), (one, far)):
        ours, theirs = match(first, second, 1.0)
        assert not ours.any()
        assert not theirs.any()


def test_thinning_is_that_of_scikit_image() -> None:
    random = np.random.default_rng(1)
    for share in (0.2, 0.5, 0.8, 1.0):
        for shape in ((23, 31), (1, 9), (40, 40)):
            blotches = random.random((-(-shape[0] // 3), -(-shape[1] // 3))).repeat(3, 0).repeat(3, 1) < share
            for picture in (random.random(shape) < share, blotches[: shape[0], : shape[1]]):
                assert np.array_equal(thin(picture), morphology.thin(picture))


def test_annotators_go_into_bits_and_come_out_again() -> None:
    random = np.random.default_rng(2)
    maps = random.random((MOST_ANNOTATORS, 6, 7)) < 0.3
    assert np.array_equal(np.stack(unpack(pack(maps))), maps)
    assert unpack(pack(np.zeros((3, 6, 7), dtype=bool))) == []


SIDE = 134
"""Of a square whose radius is 0.0075 · 134 · √2 = 1.42 pixels: a neighbour across a corner is still near."""


def line(row: int, start: int, stop: int) -> Mask:
    lines = np.zeros((SIDE, SIDE), dtype=bool)
    lines[row, start:stop] = True
    return lines


def test_counts_of_a_hand_made_image() -> None:
    """Two annotators and two predicted lines: one right and as certain as 0.8, one wrong and as certain as 0.4."""
    annotators = [line(10, 10, 40), line(11, 10, 50)]
    probabilities = np.where(line(10, 10, 40), 0.8, np.where(line(60, 10, 30), 0.4, 0.0)).astype(np.float32)
    counts = count(probabilities, annotators, np.ones((SIDE, SIDE), dtype=bool), np.array([0.3, 0.6, 0.9]))
    # All 30 predicted pixels find one of the first annotator (the same places) and one of the second, a row below.
    assert counts.annotated.tolist() == [70, 70, 70]
    assert counts.found.tolist() == [60, 60, 0]
    assert counts.predicted.tolist() == [50, 30, 0]
    assert counts.right.tolist() == [30, 30, 0]
    recall = 60 / 70
    assert counts.f_measure() == pytest.approx([2 * 0.6 * recall / (0.6 + recall), 2 * recall / (1 + recall), 0])


def test_a_predicted_pixel_is_right_when_any_annotator_marks_it() -> None:
    annotators = [line(10, 10, 30), line(50, 10, 30)]
    probabilities = (line(10, 10, 30) | line(50, 10, 30)).astype(np.float32)
    counts = count(probabilities, annotators, np.ones((SIDE, SIDE), dtype=bool), np.array([0.5]))
    assert counts.right.tolist() == counts.predicted.tolist() == [40]
    assert counts.found.tolist() == counts.annotated.tolist() == [40]


def test_the_radius_is_a_share_of_the_diagonal_of_what_counts() -> None:
    """A line two pixels beside: near in a picture of 189 pixels a side (2.005), not in one of 188 (1.994)."""
    for side, found in ((188, 0), (189, 20)):
        counted = np.zeros((200, 200), dtype=bool)
        counted[3 : 3 + side, 5 : 5 + side] = True
        annotated, probabilities = np.zeros((200, 200), dtype=bool), np.zeros((200, 200), dtype=np.float32)
        annotated[20, 20:40], probabilities[22, 20:40] = True, 1.0
        assert (RADIUS * side * 2**0.5 >= 2) == (found > 0)
        assert count(probabilities, [annotated], counted, np.array([0.5])).found.tolist() == [found]


def test_nothing_is_predicted_where_pixels_do_not_count() -> None:
    counted = np.ones((SIDE, SIDE), dtype=bool)
    counted[:, 60:] = False
    counts = count(line(10, 10, 100).astype(np.float32), [line(10, 10, 60)], counted, np.array([0.5]))
    assert counts.predicted.tolist() == counts.right.tolist() == [50]


def table(*rows: tuple[int, int, int, int]) -> Counts:
    """Counts of rows (found, annotated, right, predicted), one for each threshold."""
    return Counts(*np.array(rows, dtype=np.int64).T)


def test_ods_takes_one_threshold_for_all_images_and_ois_one_for_each() -> None:
    """Two images, two thresholds; the best of the first image is the low one, of the second the high one."""
    first = table((10, 10, 10, 10), (5, 10, 5, 5))  # F = 1, 2/3
    second = table((4, 10, 4, 20), (8, 10, 8, 10))  # F = 4/15, 0.8
    measures = f_measures([first, second], np.array([0.25, 0.75]))
    low = 2 * (14 / 30) * (14 / 20) / (14 / 30 + 14 / 20)
    high = 2 * (13 / 15) * (13 / 20) / (13 / 15 + 13 / 20)
    each = 18 / 20  # 18 of 20 found, 18 of 20 right
    assert high > low
    assert measures.ods == pytest.approx(high, abs=1e-12)
    assert measures.threshold == 0.75
    assert measures.ois == pytest.approx(each, abs=1e-12)


def test_an_image_without_anything_counts_as_nothing() -> None:
    empty, real = table((0, 0, 0, 0)), table((3, 4, 3, 3))
    assert f_measures([empty], np.array([0.5])).ods == 0
    assert f_measures([empty, real], np.array([0.5])) == f_measures([real], np.array([0.5]))
