"""The pictures, looked at pixel by pixel: colours and sizes that were computed by hand."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from kdsearch.results.pictures import confusion_matrix, grid, predictions

if TYPE_CHECKING:
    from numpy.typing import NDArray

MAGENTA, CYAN = (255, 0, 255), (0, 255, 255)


def pixels(png: bytes) -> NDArray[np.uint8]:
    """[H, W, 3]."""
    with Image.open(io.BytesIO(png)) as image:
        assert image.format == "PNG"
        return np.asarray(image.convert("RGB"))


def area(png: bytes, color: tuple[int, int, int]) -> int:
    """How many pixels have exactly this colour."""
    return int((pixels(png) == np.asarray(color)).all(-1).sum())


def box(png: bytes, color: tuple[int, int, int]) -> tuple[int, int]:
    """Width and height of what is painted in this colour."""
    ys, xs = np.nonzero((pixels(png) == np.asarray(color)).all(-1))
    return int(np.ptp(xs)) + 1, int(np.ptp(ys)) + 1


def flat(color: tuple[int, int, int], height: int, width: int) -> NDArray[np.uint8]:
    """A picture [3, H, W] of one colour."""
    return np.tile(np.asarray(color, dtype=np.uint8)[:, None, None], (1, height, width))


def test_shades_are_shares_of_the_row_so_rare_classes_are_as_visible_as_common_ones() -> None:
    png = confusion_matrix([[900, 100], [1, 9]], ["common", "rare"])
    # A tenth of a row: sqrt(0.1) of the way from white to (8, 64, 129); nine tenths: sqrt(0.9) of it.
    tenth, nine_tenths = (177, 195, 215), (21, 74, 135)
    cell = 43 * 43
    assert 1.4 * cell < area(png, tenth) < 2 * cell
    assert 1.4 * cell < area(png, nine_tenths) < 2 * cell


@pytest.mark.filterwarnings("error")
def test_a_class_without_samples_is_grey_and_divides_by_nothing() -> None:
    grey = (238, 239, 242)
    assert area(confusion_matrix([[5, 0], [0, 5]], ["a", "b"]), grey) == 0
    assert area(confusion_matrix([[5, 0], [0, 0]], ["a", "b"]), grey) == 2 * 43 * 43
    assert area(confusion_matrix([[0, 0], [0, 0]], ["a", "b"]), grey) == 4 * 43 * 43


@pytest.mark.parametrize("classes", [1, 2, 10, 37, 100, 200])
def test_any_number_of_classes_gets_cells_that_can_be_seen(classes: int) -> None:
    png = confusion_matrix((30 * np.eye(classes, dtype=int)).tolist(), [f"class number {n}" for n in range(classes)])
    full = (8, 64, 129)
    side = max(14, min(44, 900 // classes))
    rows = np.nonzero((pixels(png) == np.asarray(full)).all(-1).sum(1) >= 4)[0]  # the scale's end is narrower
    assert side * classes - 3 <= np.ptp(rows) + 1 <= side * classes
    assert area(png, full) > 0.4 * classes * side**2
    assert max(pixels(png).shape) < 4200


def test_counts_are_written_where_they_fit() -> None:
    def light_in_last_cell(count: int) -> int:
        picture = pixels(confusion_matrix([[count, 0], [0, count]], ["a", "b"]))
        ys, xs = np.nonzero((picture == np.asarray((8, 64, 129))).all(-1))
        last = (slice(ys.max() - 40, ys.max() + 1), slice(xs[ys == ys.max()].min(), xs[ys == ys.max()].max() + 1))
        return int((picture[last].min(-1) > 128).sum())

    assert light_in_last_cell(7) > 10
    assert light_in_last_cell(10**9) == 0


def test_a_large_matrix_names_its_most_frequent_confusions() -> None:
    right = 10 * np.eye(20, dtype=int)
    wrong = right.copy()
    wrong[3, 5] = 4
    names = [f"c{n}" for n in range(20)]
    heights = [pixels(confusion_matrix(matrix.tolist(), names)).shape[0] for matrix in (right, wrong)]
    assert heights[1] > heights[0] + 20


@pytest.mark.parametrize("matrix", [[], [[1]], [[1, 2], [3, 4], [5, 6]], [[1, 2, 3], [4, 5, 6]]])
def test_a_matrix_that_does_not_fit_the_classes_is_refused(matrix: Any) -> None:
    with pytest.raises(ValueError, match="does not fit 2 classes"):
        confusion_matrix(matrix, ["a", "b"])


@pytest.mark.parametrize("name", ["", " ", "猫", "Éclair", "two\nlines", "\t", "x" * 500, "a b " * 100])
def test_any_class_name_can_be_drawn(name: str) -> None:
    assert pixels(confusion_matrix([[1, 2], [3, 4]], [name, "dog"])).shape[1] < 700
    images = np.zeros((2, 1, 8, 8), dtype=np.uint8)
    assert pixels(predictions(images, [0, 1], [1, 0], [0.5, 1.0], [name, "dog"])).shape[1] == 2 * 16 + 2 * 132


def test_letters_the_font_lacks_are_replaced_and_not_drawn_as_boxes() -> None:
    matrix = [[1, 0], [0, 1]]
    assert confusion_matrix(matrix, ["Éclair", "dog"]) == confusion_matrix(matrix, ["Eclair", "dog"])
    assert confusion_matrix(matrix, ["dog", "猫"]) == confusion_matrix(matrix, ["dog", "class 1"])


def test_small_pictures_are_enlarged_pixel_by_pixel() -> None:
    images = np.zeros((1, 3, 8, 8), dtype=np.uint8)
    images[0, :, 2, 3] = MAGENTA
    png = predictions(images, [0], [0], [0.9], ["a"])
    assert (area(png, MAGENTA), box(png, MAGENTA)) == (14 * 14, (14, 14))


def test_large_pictures_are_shrunk() -> None:
    png = predictions(flat(MAGENTA, 900, 600)[None], [0], [0], [0.9], ["a"])
    assert box(png, MAGENTA) == (149, 224)


@pytest.mark.parametrize(
    ("channels", "expected"), [((90,), (90, 90, 90)), ((90, 20), (90, 90, 90)), ((9, 8, 7, 6), (9, 8, 7))]
)
def test_pictures_of_any_number_of_channels_are_shown(
    channels: tuple[int, ...], expected: tuple[int, int, int]
) -> None:
    image = np.tile(np.asarray(channels, dtype=np.uint8)[:, None, None], (1, 8, 8))
    assert area(predictions(image[None], [0], [0], [0.9], ["a"]), expected) == 112 * 112


def test_a_wrong_prediction_is_marked_in_more_than_colour() -> None:
    images = np.full((2, 1, 8, 8), 255, dtype=np.uint8)
    panel = pixels(predictions(images, [0, 1], [0, 0], [0.9, 0.9], ["a", "b"]))
    grey = np.asarray(Image.fromarray(panel).convert("L"))
    right, wrong = grey[44:166, 16:148], grey[44:166, 148:280]  # the two pictures with a rim of 4 pixels
    assert (right < 128).sum() == 0
    assert (wrong < 128).sum() > 4 * 4 * 110  # a frame 4 pixels thick
    badge = wrong[4:23, -28:-8]
    assert (badge < 128).mean() > 0.5
    assert (badge > 240).sum() > 20  # with a white cross in it
    below = grey[196:216]
    assert (below[:, 16:148] < 128).sum() == 0
    assert (below[:, 148:280] < 128).sum() > 20  # "is b"


def test_confidence_is_drawn_as_a_bar() -> None:
    images = np.zeros((1, 1, 8, 8), dtype=np.uint8)
    bars = [box(predictions(images, [0], [0], [share], ["a"]), (64, 120, 190))[0] for share in (0.25, 0.5, 1.0)]
    assert bars == pytest.approx([30, 60, 120], abs=2)


def test_every_picture_of_a_panel_is_there() -> None:
    images = np.tile(flat(CYAN, 8, 8), (13, 1, 1, 1))
    png = predictions(images, np.arange(13) % 3, np.arange(13) % 3, np.linspace(0, 1, 13), ["a", "b", "c"])
    assert area(png, CYAN) == 13 * 112 * 112


@pytest.mark.parametrize("count", [0, 2])
def test_a_panel_needs_one_label_for_each_picture(count: int) -> None:
    with pytest.raises(ValueError, match="equally many"):
        predictions(np.zeros((count, 1, 8, 8), dtype=np.uint8), [0][:count], [0][:count], [1.0][:count], ["a"])


def test_a_picture_that_is_not_uint8_is_refused() -> None:
    with pytest.raises(ValueError, match=r"uint8 \[C, H, W\], not float64 \[1, 8, 8\]"):
        predictions(np.zeros((1, 1, 8, 8)), [0], [0], [1.0], ["a"])  # type: ignore[arg-type]


def test_a_low_resolution_input_is_shown_as_large_as_its_target() -> None:
    low, high = np.zeros((3, 4, 4), dtype=np.uint8), np.zeros((3, 16, 16), dtype=np.uint8)
    low[:, 1, 1], high[:, 5, 5] = MAGENTA, CYAN
    png = grid([[low, high]], ["input", "target"])
    assert (area(png, MAGENTA), box(png, MAGENTA)) == (40 * 40, (40, 40))
    assert (area(png, CYAN), box(png, CYAN)) == (10 * 10, (10, 10))


def test_rows_of_different_sizes_and_captions_fit_into_one_grid() -> None:
    wide, tall = flat(MAGENTA, 20, 80), flat(CYAN, 80, 20)
    plain = grid([[wide, wide], [tall, tall]], ["target", "student"])
    captioned = grid([[wide, wide], [tall, tall]], ["target", "student"], [["", "31.2 dB"], ["", "29.9 dB"]])
    for png in (plain, captioned):
        assert area(png, MAGENTA) == area(png, CYAN) == 2 * 40 * 160
    assert pixels(captioned).shape[0] == pixels(plain).shape[0] + 2 * 20


def test_a_grid_with_missing_pictures_or_captions_is_refused() -> None:
    picture = flat(CYAN, 4, 4)
    with pytest.raises(ValueError, match="every row needs 2 pictures: input, target"):
        grid([[picture]], ["input", "target"])
    with pytest.raises(ValueError, match="as many captions as pictures"):
        grid([[picture, picture]], ["input", "target"], [["only one"]])
