"""Pictures for TensorBoard and reports, as the bytes of PNG files: drawn with PIL alone, without matplotlib.

Colours are a single blue whose depth is the quantity, and a red that never stands alone: what is wrong also carries a
cross and a thick frame, so that the pictures can be read without colour.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw

from kdsearch.results.lettering import (
    FAINT,
    INK,
    PAPER,
    class_name,
    fitted,
    plain,
    text_width,
    widest_text,
    write,
    write_upwards,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from kdsearch.results.lettering import Color

LINE: Color = (208, 213, 220)
NOTHING: Color = (238, 239, 242)
DEEP: Color = (8, 64, 129)
RIGHT: Color = (64, 120, 190)
WRONG: Color = (198, 40, 40)

MARGIN = 16
SHOWN_CONFUSIONS = 10
FEW_CLASSES = 12


def confusion_matrix(matrix: Sequence[Sequence[int]], classes: Sequence[str]) -> bytes:
    """A confusion matrix [K, K], rows true and columns predicted, for 2 to some 200 classes.

    The shade of a cell is its share of the row, so rare classes are as visible as common ones; the cells hold the
    counts where all of them fit. Right of each row stands the class's accuracy, below a large matrix the most
    frequent confusions. Raises ValueError when matrix and classes do not fit together.
    """
    counts = np.asarray(matrix, dtype=np.int64)
    if counts.shape != (len(classes), len(classes)) or not len(classes):
        raise ValueError(f"a confusion matrix of shape {list(counts.shape)} does not fit {len(classes)} classes")
    names = [class_name(name, index) for index, name in enumerate(classes)]
    cell = max(14, min(44, 900 // len(classes)))
    side = cell * len(classes)
    size = min(14, cell - 4)
    large = max(13, side // 60)  # Title and confusions stay legible where a big picture is shown small.
    longest = widest_text(names, size)
    left, top = MARGIN + longest + 10, MARGIN + 5 * large + 18 + (size if longest <= cell - 4 else longest)
    confusions = _most_confused(counts, names)
    width = max(left + side + 90, 2 * MARGIN + 30 * large, left + 2 * MARGIN + widest_text(confusions, large))
    image = Image.new("RGB", (width, top + side + MARGIN + round(1.5 * large * len(confusions)) + MARGIN), PAPER)
    draw = ImageDraw.Draw(image)
    _matrix_head(draw, counts, large)
    _cells(draw, counts, (left, top), cell)
    _labels(image, counts, names, (left, top), cell, size)
    for line, text in enumerate(confusions):
        write(draw, left, top + side + MARGIN + (1.5 * line + 1) * large, text, large, FAINT if line else INK)
    return _png(image)


def predictions(
    images: NDArray[np.uint8],
    labels: Sequence[int],
    predicted: Sequence[int],
    confidences: Sequence[float],
    classes: Sequence[str],
) -> bytes:
    """A panel of classified pictures: images uint8 [N, C, H, W], class indices, confidences in [0, 1].

    Under each picture stand the predicted class with its confidence, as a figure and as a bar. A wrong one has a
    thick frame and a cross, and says what it is. Raises ValueError when there is not one of each per picture.
    """
    if not len(images) == len(labels) == len(predicted) == len(confidences) or not len(images):
        raise ValueError("images, labels, predicted and confidences must be equally many, and at least one")
    names = [class_name(name, index) for index, name in enumerate(classes)]
    pictures = [_enlarged(_picture(image), 112) for image in images]
    tile, height = max(132, pictures[0].width + 12), pictures[0].height + 68
    columns = min(6, len(pictures))
    rows = -(-len(pictures) // columns)
    image = Image.new("RGB", (2 * MARGIN + columns * tile, 2 * MARGIN + 32 + rows * height), PAPER)
    hits = sum(int(label == guess) for label, guess in zip(labels, predicted, strict=True))
    write(ImageDraw.Draw(image), MARGIN + 6, MARGIN + 14, f"{hits} of {len(pictures)} right", 16)
    for index, picture in enumerate(pictures):
        box = (MARGIN + index % columns * tile, MARGIN + 32 + index // columns * height, tile)
        truth = None if predicted[index] == labels[index] else names[labels[index]]
        _tile(image, picture, box, names[predicted[index]], truth, float(confidences[index]))
    return _png(image)


def grid(
    rows: Sequence[Sequence[NDArray[np.uint8]]], columns: Sequence[str], captions: Sequence[Sequence[str]] = ()
) -> bytes:
    """Rows of pictures under column titles, such as input, target, teacher, student of an image task.

    Each picture is uint8 [C, H, W]; those of one row are brought to the size of its largest one (nearest pixel, so
    that a low-resolution input shows its pixels). `captions`: a line under each picture, for none or for all.
    Raises ValueError when titles or captions do not match the pictures.
    """
    if not rows or any(len(row) != len(columns) for row in rows):
        raise ValueError(f"every row needs {len(columns)} pictures: {', '.join(columns)}")
    if captions and [len(row) for row in captions] != [len(row) for row in rows]:
        raise ValueError("there must be as many captions as pictures")
    lines = [_same_size([_picture(array) for array in row]) for row in rows]
    cell = max(picture.width for line in lines for picture in line) + 12
    under = 32 if captions else 12
    height = sum(line[0].height + under for line in lines)
    image = Image.new("RGB", (2 * MARGIN + cell * len(columns) - 12, 2 * MARGIN + 26 + height), PAPER)
    draw = ImageDraw.Draw(image)
    for column, title in enumerate(columns):
        write(draw, MARGIN + column * cell, MARGIN + 14, fitted(plain(title), cell - 12, 15), 15)
    y = MARGIN + 26
    for number, line in enumerate(lines):
        for column, picture in enumerate(line):
            x = MARGIN + column * cell
            image.paste(picture, (x, y))
            draw.rectangle((x - 1, y - 1, x + picture.width, y + picture.height), outline=LINE)
            if captions:
                text = fitted(plain(captions[number][column]), cell - 12, 13)
                write(draw, x, y + picture.height + 17, text, 13, FAINT)
        y += line[0].height + under
    return _png(image)


def _matrix_head(draw: ImageDraw.ImageDraw, counts: NDArray[np.int64], size: int) -> None:
    """Overall accuracy, what rows and columns are, and the scale of the shades."""
    total, right = int(counts.sum()), int(np.trace(counts))
    accuracy = f"accuracy {right / total:.1%}  ({right} of {total})" if total else "no samples"
    write(draw, MARGIN, MARGIN + 1.2 * size, accuracy, round(1.3 * size))
    x, y, length, base = MARGIN + 19 * size, MARGIN + 2 * size, 6 * size, MARGIN + 3 * size
    write(draw, MARGIN, base, "rows: true class, columns: predicted", size, FAINT)
    for step in range(length):
        draw.line((x + step, y, x + step, y + size), _shade(step / (length - 1)))
    draw.rectangle((x - 1, y - 1, x + length, y + size + 1), outline=LINE)
    for share in (0, 0.5, 1):
        write(draw, x + share * length, base + 1.3 * size, f"{share:.0%}", round(0.85 * size), FAINT, "middle")
    write(draw, x + length + size, base, "of row", size, FAINT)


def _cells(draw: ImageDraw.ImageDraw, counts: NDArray[np.int64], corner: tuple[int, int], cell: int) -> None:
    left, top = corner
    totals = counts.sum(1)
    size = max(8, min(15, cell * 2 // 5))
    gap = 1 if cell > 14 else 0
    written = text_width(str(counts.max()), size) <= cell - 2
    for row, column in np.ndindex(counts.shape):
        x, y, count = left + column * cell, top + row * cell, int(counts[row, column])
        share = count / totals[row] if totals[row] else None
        draw.rectangle((x, y, x + cell - 1 - gap, y + cell - 1 - gap), NOTHING if share is None else _shade(share))
        if count and share is not None and written:
            ink = PAPER if share > 0.3 else INK
            write(draw, x + (cell - gap) / 2, y + (cell - gap) / 2 + 0.36 * size, str(count), size, ink, "middle")
    end = cell * len(counts) - gap
    draw.rectangle((left - 1, top - 1, left + end, top + end), outline=LINE)


def _labels(
    image: Image.Image,
    counts: NDArray[np.int64],
    names: Sequence[str],
    corner: tuple[int, int],
    cell: int,
    size: int,
) -> None:
    """Class names above the columns, upwards where one is too wide, and left of the rows; accuracies right of them."""
    draw = ImageDraw.Draw(image)
    (left, top), right = corner, corner[0] + cell * len(names) + 8
    upright = widest_text(names, size) <= cell - 4
    for index, name in enumerate(names):
        middle = index * cell + cell / 2
        if upright:
            write(draw, left + middle, top - 8, name, size, align="middle")
        else:
            write_upwards(image, left + middle, top - 6, name, size)
        base, total = top + middle + 0.36 * size, counts[index].sum()
        write(draw, left - 8, base, name, size, align="right")
        share = f"{counts[index, index] / total:.1%}" if total else "no samples"
        write(draw, right, base, share, min(size, 13), FAINT)
    write(draw, right, top - 8, "accuracy", min(size, 13), FAINT)


def _most_confused(counts: NDArray[np.int64], names: Sequence[str]) -> list[str]:
    """The most frequent confusions in words, most frequent first; none for few classes, where all is in sight."""
    if len(names) <= FEW_CLASSES:
        return []
    wrong = counts.copy()
    np.fill_diagonal(wrong, 0)
    order = np.argsort(-wrong, axis=None, kind="stable")[:SHOWN_CONFUSIONS]
    pairs = [(int(place) // len(names), int(place) % len(names)) for place in order]
    lines = [
        f"{names[true]} taken for {names[guess]}: {wrong[true, guess]} of {counts[true].sum()}"
        for true, guess in pairs
        if wrong[true, guess] > 0
    ]
    return ["most frequent confusions", *lines] if lines else []


def _tile(
    image: Image.Image,
    picture: Image.Image,
    box: tuple[int, int, int],
    guess: str,
    truth: str | None,
    confidence: float,
) -> None:
    """One classified picture at `box` (left, top, width) and what stands under it; `truth` only where it is wrong."""
    draw = ImageDraw.Draw(image)
    left, top, width = box
    x, color = left + (width - picture.width) // 2, RIGHT if truth is None else WRONG
    right, bottom = x + picture.width, top + picture.height
    image.paste(picture, (x, top))
    draw.rectangle((x - 1, top - 1, right, bottom), outline=LINE)
    if truth is not None:
        draw.rectangle((x - 3, top - 3, right + 2, bottom + 2), outline=WRONG, width=4)
        draw.rectangle((right - 19, top, right - 1, top + 18), WRONG)
        draw.line((right - 15, top + 4, right - 5, top + 14), PAPER, width=2)
        draw.line((right - 15, top + 14, right - 5, top + 4), PAPER, width=2)
        write(draw, left + 6, bottom + 49, fitted(f"is {truth}", width - 12, 14), 14)
    figure, (start, end) = f"{confidence:.0%}", (left + 6, left + width - 6)
    write(draw, start, bottom + 20, fitted(guess, width - 20 - text_width(figure, 13), 14), 14)
    write(draw, end, bottom + 20, figure, 13, FAINT, "right")
    draw.rectangle((start, bottom + 28, end, bottom + 31), NOTHING)
    draw.rectangle((start, bottom + 28, start + (end - start) * min(max(confidence, 0), 1), bottom + 31), color)


def _shade(share: float) -> Color:
    """White to deep blue; the root makes small shares visible."""
    red, green, blue = (round(light + (dark - light) * share**0.5) for light, dark in zip(PAPER, DEEP, strict=True))
    return red, green, blue


def _picture(array: NDArray[np.uint8]) -> Image.Image:
    """uint8 [C, H, W] as RGB: one channel is grey, of more than three the first three are shown, of two the first."""
    channels = np.asarray(array)
    if channels.ndim != 3 or channels.dtype != np.uint8:
        raise ValueError(f"a picture is uint8 [C, H, W], not {channels.dtype} {list(channels.shape)}")
    shown = channels[:3] if len(channels) >= 3 else np.repeat(channels[:1], 3, axis=0)
    return Image.fromarray(np.ascontiguousarray(shown.transpose(1, 2, 0)))


def _enlarged(picture: Image.Image, side: int) -> Image.Image:
    """Small pictures grow by a whole factor to about `side`, nearest pixel; those beyond twice of it shrink to that."""
    longest = max(picture.size)
    if longest > 2 * side:
        width, height = (max(1, round(extent * 2 * side / longest)) for extent in picture.size)
        return picture.resize((width, height), Image.Resampling.LANCZOS)
    factor = max(1, round(side / longest))
    return picture.resize((picture.width * factor, picture.height * factor), Image.Resampling.NEAREST)


def _same_size(pictures: list[Image.Image]) -> list[Image.Image]:
    largest = max((picture.size for picture in pictures), key=lambda size: size[0] * size[1])
    return [_enlarged(picture.resize(largest, Image.Resampling.NEAREST), 160) for picture in pictures]


def _png(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG", optimize=True)
    return file.getvalue()
