"""Drawn edges, and BSDS500 written as it is published: what is read is what is there, and mistakes get one sentence."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from scipy.io import savemat
from scipy.ndimage import label
from skimage.segmentation import find_boundaries

from kdsearch import data as data_sets
from kdsearch.data.base import DataSet
from kdsearch.data.dense.edge_maps import unpack
from kdsearch.data.dense.letterbox import Letterbox
from kdsearch.data.dense.source import OUTSIDE_EDGES
from kdsearch.data.randomness import stream
from kdsearch.data.sets.bsds500 import read_boundaries, scaled
from kdsearch.data.sets.drawn_edges import boundaries, draw
from kdsearch.errors import BadData, InvalidSetting, UserError
from kdsearch.settings import DataSettings

Mask = NDArray[np.bool_]
FULL, PUBLISHED = (321, 481), ("train", "val", "test")


def load(**settings: Any) -> DataSet:
    return data_sets.load(DataSettings(**settings), "edges")


def test_drawn_pictures_are_a_function_of_their_seed_and_their_parts_are_apart() -> None:
    one, again, other = (load(name="drawn_edges", samples=12, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(one.train.images, again.train.images)  # type: ignore[attr-defined]
    assert torch.equal(one.train.truths, again.train.truths)  # type: ignore[attr-defined]
    parts = (one.train, one.validation, one.test, other.train, other.validation)
    pictures = [image.numpy().tobytes() for part in parts for image in part.images]  # type: ignore[attr-defined]
    assert len(set(pictures)) == len(pictures)


def test_more_samples_leave_validation_and_test_as_they_are() -> None:
    few, more = (load(name="drawn_edges", samples=samples) for samples in (10, 14))
    assert (len(few.train), len(more.train)) == (10, 14)
    for part in ("validation", "test"):
        assert torch.equal(getattr(few, part).images, getattr(more, part).images)
    assert torch.equal(few.train.images, more.train.images[:10])  # type: ignore[attr-defined]


def test_the_edges_lie_exactly_between_regions() -> None:
    regions = np.zeros((12, 12), dtype=np.int64)
    regions[3:9, 4:10] = 1
    regions[6:, :5] = 2
    edges = boundaries(regions)
    assert edges.any()
    assert not (edges & ~find_boundaries(regions, mode="thick")).any()
    _, pieces = label(~edges)  # lines joined at corners part what lies at their sides
    assert pieces >= 3


def test_annotators_agree_but_for_a_pixel_and_for_weak_edges() -> None:
    random = stream(0, "test")
    fewer = 0
    for _ in range(20):
        image, (exact, beside, strong) = draw(random)
        assert image.shape == (3, 96, 96)
        near = np.pad(exact, 1)
        shifted = [near[1 + y : 97 + y, 1 + x : 97 + x] for y, x in ((0, 1), (0, -1), (1, 0), (-1, 0))]
        assert any(np.array_equal(beside, one) for one in shifted)
        assert not np.array_equal(exact, beside)
        around = [near[y : y + 96, x : x + 96] for y in range(3) for x in range(3)]
        assert not (strong & ~np.any(around, axis=0)).any()  # nothing that is hidden is marked
        fewer += strong.sum() < exact.sum()
    assert 5 < fewer < 20


def test_a_gradient_alone_does_not_tell_edges_from_stripes() -> None:
    """The best threshold of the plain gradient reaches a Dice far below that of exact edges."""
    found = load(name="drawn_edges", samples=10).validation
    images, truths = found.images.float().mean(1), found.truths != 0  # type: ignore[attr-defined]
    rows, columns = torch.gradient(images, dim=(1, 2))
    strength = (rows**2 + columns**2).sqrt()
    scores = []
    for threshold in range(4, 80, 4):
        marks = strength > threshold
        scores.append(float(2 * (marks & truths).sum() / (marks.sum() + truths.sum())))
    assert 0.15 < max(scores) < 0.4


def test_settings_without_use_are_refused() -> None:
    for key, value in (("root", "."), ("image_size", 64), ("scale", 2)):
        with pytest.raises(InvalidSetting, match=f"data.{key}"):
            load(name="drawn_edges", **{key: value})
    with pytest.raises(InvalidSetting, match="is for edges"):
        data_sets.load(DataSettings(name="drawn_edges"), "classification")


def square(size: tuple[int, int], start: int, side: int) -> Mask:
    marks = np.zeros(size, dtype=bool)
    marks[start : start + side, start : start + side] = True
    marks[start + 1 : start + side - 1, start + 1 : start + side - 1] = False
    return marks


def write_truth(path: Path, maps: list[Mask]) -> None:
    """As published: a cell array 1×A of structs with `Segmentation` uint16 and `Boundaries`."""
    cells = np.empty((1, len(maps)), dtype=object)
    for place, marks in enumerate(maps):
        regions = label(~marks)[0].astype(np.uint16)
        cells[0, place] = {"Segmentation": regions, "Boundaries": marks.astype(np.uint8)}
    savemat(path, {"groundTruth": cells}, do_compression=True)


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """A small BSDS500: so many pictures in each part, upright and lying in turn; returns the folder `data`."""

    def make(count: int = 2, annotators: int = 3, under: str = "BSR/BSDS500/data") -> Path:
        data = tmp_path / under
        random = np.random.default_rng(0)
        for number, part in enumerate(PUBLISHED):
            images, truths = data / "images" / part, data / "groundTruth" / part
            images.mkdir(parents=True)
            truths.mkdir(parents=True)
            (images / "Thumbs.db").write_bytes(b"not a picture")
            for place in range(count):
                name, size = f"{number}{place:03d}", FULL if place % 2 == 0 else FULL[::-1]
                pixels = random.integers(0, 256, (*size, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(images / f"{name}.jpg")
                write_truth(truths / f"{name}.mat", [square(size, 20 + a, 200 - a) for a in range(annotators)])
        return data

    return make


def test_what_savemat_writes_is_laid_out_as_the_published_files(tmp_path: Path) -> None:
    """As public code reads them: groundTruth[0, a]["Boundaries"][0, 0]."""
    from scipy.io import loadmat  # type: ignore[import-untyped]

    maps = [square((30, 40), 3, 9), square((30, 40), 5, 20)]
    write_truth(tmp_path / "a.mat", maps)
    cells = loadmat(tmp_path / "a.mat")["groundTruth"]
    assert cells.shape == (1, 2)
    assert cells[0, 1].dtype.names == ("Segmentation", "Boundaries")
    assert np.array_equal(cells[0, 1]["Boundaries"][0, 0], maps[1])
    assert np.array_equal(read_boundaries(str(tmp_path / "a.mat")), np.stack(maps))


def test_one_annotator_is_read_like_several(tmp_path: Path) -> None:
    write_truth(tmp_path / "a.mat", [square((30, 40), 3, 9)])
    assert np.array_equal(read_boundaries(str(tmp_path / "a.mat")), square((30, 40), 3, 9)[None])


@pytest.mark.parametrize("root", ["", "BSR", "BSR/BSDS500", "BSR/BSDS500/data"])
def test_the_published_split_is_read_from_wherever_the_archive_lies(
    write: Callable[..., Path], tmp_path: Path, root: str
) -> None:
    write()
    found = load(name="bsds500", root=str(tmp_path / root), image_size=64)
    assert [len(part) for part in (found.train, found.validation, found.test)] == [2, 2, 2]
    assert found.size == (64, 64)
    assert found.classes == ("edge",)
    truths = found.train.truths.numpy()  # type: ignore[attr-defined]
    assert truths.dtype == np.int16
    outside = truths & OUTSIDE_EDGES != 0
    inside = np.flatnonzero(~outside[0].all(1))
    assert (inside[0], inside[-1]) == (10, 52)  # lying: 43 of 64 rows
    assert not outside[0, 10:53].any()
    assert np.array_equal(outside[1], outside[0].T)  # upright


def test_pictures_and_edges_are_256_pixels_a_side_unless_told(write: Callable[..., Path], tmp_path: Path) -> None:
    write(count=1)
    found = load(name="bsds500", root=str(tmp_path))
    assert found.size == (256, 256)
    annotators = unpack(found.test.truths[0].numpy())  # type: ignore[attr-defined]
    assert len(annotators) == 3
    for place, marks in enumerate(annotators):
        around = 4 * (200 - place) * 256 / 481
        assert marks.sum() == pytest.approx(around, rel=0.03)  # one pixel wide, without a gap
        assert label(marks, np.ones((3, 3)))[1] == 1


@pytest.mark.parametrize("side", [48, 100, 256, 481, 700])
def test_lines_stay_whole_and_thin_in_every_frame(side: int) -> None:
    rows, columns = np.mgrid[: FULL[0], : FULL[1]]
    marks = boundaries(((rows - 160) ** 2 + (columns - 240) ** 2 < 130**2).astype(np.int64))
    there = scaled(marks, Letterbox(FULL, (side, side)))
    assert label(there, np.ones((3, 3)))[1] == 1  # one line
    assert label(~there)[1] == 2  # that parts the inside from the outside
    assert there.sum() == pytest.approx(marks.sum() * side / 481, rel=0.06)  # and is one pixel wide


def test_a_frame_of_the_pictures_own_size_changes_nothing() -> None:
    marks = np.random.default_rng(0).random(FULL) < 0.2
    assert np.array_equal(scaled(marks, Letterbox(FULL, FULL)), marks)


def test_samples_repeat_the_training_pictures_and_nothing_else(write: Callable[..., Path], tmp_path: Path) -> None:
    write(count=4)
    plain, even, odd = (
        load(name="bsds500", root=str(tmp_path), image_size=32, samples=samples) for samples in (None, 12, 10)
    )

    def seen(found: DataSet) -> list[bytes]:
        (images,) = found.train.fetch([torch.arange(len(found.train))])
        return [image.numpy().tobytes() for image in images]

    names = seen(plain)
    for found, samples in ((even, 12), (odd, 10)):
        assert len(found.train) == samples
        counts = [seen(found).count(name) for name in names]
        assert sum(counts) == samples
        assert max(counts) - min(counts) <= 1
        assert len(found.validation) == len(found.test) == 4
    assert plain.augmentation.flip
    assert plain.augmentation.crop == 4


def test_repeated_samples_are_augmented_afresh(write: Callable[..., Path], tmp_path: Path) -> None:
    from kdsearch import tasks
    from kdsearch.data import Batching
    from kdsearch.settings import AugmentationSettings

    write(count=1)
    found = load(name="bsds500", root=str(tmp_path), image_size=32, samples=12)
    augmentation = data_sets.resolve(AugmentationSettings(), found.augmentation)
    batches = tasks.find("edges").batches(found, Batching(12, augmentation, seed=0, device=torch.device("cpu")))
    (batch,) = batches.epoch(0)
    assert len({image.numpy().tobytes() for image in batch.images}) == 12


def test_streamed_and_held_pictures_are_the_same(write: Callable[..., Path], tmp_path: Path) -> None:
    write()
    held, streamed = (
        load(name="bsds500", root=str(tmp_path), image_size=32, in_memory=memory, workers=0) for memory in (True, False)
    )
    for part in ("train", "validation", "test"):
        pairs = [next(getattr(found, part).fetch_pairs([torch.tensor([1, 0])])) for found in (held, streamed)]
        assert all(torch.equal(one, other) for one, other in zip(*pairs, strict=True))


def first(data: Path, kind: str) -> Path:
    return sorted((data / kind / "val").glob("*.mat" if kind == "groundTruth" else "*.jpg"))[0]


def truncate(data: Path) -> None:
    path = first(data, "groundTruth")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def other_size(data: Path) -> None:
    write_truth(first(data, "groundTruth"), [square((100, 80), 5, 30)])


def two_sizes(data: Path) -> None:
    write_truth(first(data, "groundTruth"), [square(FULL, 5, 30), square(FULL[::-1], 5, 30)])


def empty(data: Path) -> None:
    for path in (data / "groundTruth" / "val").iterdir():
        write_truth(path, [np.zeros(FULL, dtype=bool)] * 2)


def other_content(data: Path) -> None:
    savemat(first(data, "groundTruth"), {"something": np.ones(3)})


def no_boundaries(data: Path) -> None:
    cells = np.empty((1, 1), dtype=object)
    cells[0, 0] = {"Segmentation": np.ones(FULL, dtype=np.uint16)}
    savemat(first(data, "groundTruth"), {"groundTruth": cells})


def crowd(data: Path) -> None:
    write_truth(first(data, "groundTruth"), [square(FULL, 5, 30)] * 14)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda data: first(data, "groundTruth").unlink(), r"1000.jpg has no ground truth .*1000.mat"),
        (other_size, r"1000.jpg is 321×481 pixels .*1000.mat are 100×80: both must have one size"),
        (two_sizes, r"1000.mat holds boundaries of 321×481, 481×321 pixels"),
        (empty, "no annotator marks a boundary"),
        (truncate, r"1000.mat is damaged or no MATLAB file"),
        (lambda data: first(data, "groundTruth").write_bytes(b""), r"1000.mat is damaged or no MATLAB file"),
        (other_content, r"1000.mat holds no boundaries"),
        (no_boundaries, r"1000.mat holds no boundaries"),
        (crowd, "14 annotators, and up to 13"),
        (lambda data: first(data, "images").write_bytes(b"no picture"), r"1000.jpg cannot be read as an image"),
        (lambda data: (data / "groundTruth").rename(data / "truth"), "holds no BSDS500"),
        (lambda data: (data / "images" / "test").rename(data / "images" / "tests"), r"there is no folder .*test"),
    ],
)
def test_what_cannot_be_used_is_named_in_one_sentence(
    write: Callable[..., Path], tmp_path: Path, spoil: Callable[[Path], None], said: str
) -> None:
    spoil(write())
    with pytest.raises(BadData, match=said) as raised:
        load(name="bsds500", root=str(tmp_path), image_size=32)
    assert "\n" not in str(raised.value)


def test_a_root_that_is_missing_is_asked_for() -> None:
    with pytest.raises(UserError, match=r"data\.root"):
        load(name="bsds500")


def test_a_grey_picture_is_converted(write: Callable[..., Path], tmp_path: Path) -> None:
    data = write()
    path = first(data, "images")
    Image.fromarray(np.full(FULL, 77, dtype=np.uint8)).save(path)
    found = load(name="bsds500", root=str(tmp_path), image_size=481)
    image = found.validation.images[0]  # type: ignore[attr-defined]
    assert (image[:, 80:401] == 77).all()
