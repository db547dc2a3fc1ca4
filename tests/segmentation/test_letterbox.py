"""Pictures and masks brought to one size: what lies where, and that both are brought there alike."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from kdsearch.data.dense.letterbox import Letterbox

SIDES = st.tuples(st.integers(1, 300), st.integers(1, 300))


def test_a_wide_picture_is_scaled_to_the_width_and_padded_above_and_below() -> None:
    box = Letterbox((50, 100), (64, 64))
    assert box.scale == pytest.approx(0.64)
    assert box.inner == (32, 64)
    assert box.offset == (16, 0)


def test_the_larger_half_of_odd_padding_is_below_and_at_the_right() -> None:
    assert Letterbox((5, 10), (10, 10)).offset == (2, 0)
    assert Letterbox((10, 5), (10, 10)).offset == (0, 2)


@given(source=SIDES, target=SIDES)
def test_the_picture_fills_one_side_of_the_frame_and_lies_inside(
    source: tuple[int, int], target: tuple[int, int]
) -> None:
    box = Letterbox(source, target)
    assert all(1 <= inner <= frame for inner, frame in zip(box.inner, target, strict=True))
    assert box.inner[0] == target[0] or box.inner[1] == target[1]
    free = [frame - inner for inner, frame in zip(box.inner, target, strict=True)]
    assert [offset * 2 in (space, space - 1) for offset, space in zip(box.offset, free, strict=True)] == [True, True]


@given(source=SIDES, target=SIDES, data=st.data())
def test_a_pixel_goes_where_its_centre_lies_and_never_outside(
    source: tuple[int, int], target: tuple[int, int], data: st.DataObject
) -> None:
    box = Letterbox(source, target)
    row, column = data.draw(st.integers(0, source[0] - 1)), data.draw(st.integers(0, source[1] - 1))
    ((y, x),) = box.pixels(np.array([[row, column]])).tolist()
    expected = [
        offset + (place + 0.5) * inner / side
        for place, inner, side, offset in zip((row, column), box.inner, source, box.offset, strict=True)
    ]
    assert abs(y + 0.5 - expected[0]) <= 0.5 + 1e-9
    assert abs(x + 0.5 - expected[1]) <= 0.5 + 1e-9
    assert box.offset[0] <= y < box.offset[0] + box.inner[0]
    assert box.offset[1] <= x < box.offset[1] + box.inner[1]


def test_what_has_the_right_size_is_not_touched() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (7, 9, 3), dtype=np.uint8)
    box = Letterbox((7, 9), (7, 9))
    np.testing.assert_array_equal(box.picture(Image.fromarray(pixels)), pixels.transpose(2, 0, 1))
    np.testing.assert_array_equal(box.mask(pixels[..., 0], 255), pixels[..., 0])


def test_a_mask_keeps_its_values_and_what_is_around_it_does_not_count() -> None:
    mask = np.array([[3, 7], [7, 3]], dtype=np.uint8).repeat(10, 0).repeat(20, 1)  # 20 × 40
    framed = Letterbox((20, 40), (16, 16)).mask(mask, 255)
    assert framed.shape == (16, 16)
    assert set(np.unique(framed)) == {3, 7, 255}
    assert (framed[:4] == 255).all()
    assert (framed[12:] == 255).all()
    np.testing.assert_array_equal(framed[4:12], np.array([[3, 7], [7, 3]]).repeat(4, 0).repeat(8, 1))


def test_picture_and_mask_stay_in_step_and_the_picture_is_smoothed() -> None:
    """A picture that shows its mask shows it after the letterbox too, within the one pixel that smoothing mixes."""
    mask = np.zeros((40, 60), dtype=np.uint8)
    mask[8:24, 16:44] = 1
    box = Letterbox((40, 60), (24, 24))
    picture, framed = box.picture(Image.fromarray(mask * 200)), box.mask(mask, 255)
    assert picture.shape == (1, 24, 24)
    counted = framed != 255
    differs = (picture[0][counted] > 100) != (framed[counted] == 1)
    assert differs.mean() < 0.02
    assert ((picture[0] > 0) & (picture[0] < 200)).any()
    assert not picture[0][~counted].any()
