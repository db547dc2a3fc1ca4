"""The drawn scenes, and VOC 2007 as it is published: what is read, and what is refused."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from kdsearch import data as data_sets
from kdsearch.data.dense.splits import DenseMemorySplit, DenseStreamedSplit
from kdsearch.data.sets import drawn_boxes, voc2007
from kdsearch.errors import BadData, InvalidSetting
from kdsearch.settings import DataSettings

if TYPE_CHECKING:
    from conftest import VOCTree


@pytest.fixture(scope="module")
def drawn() -> drawn_boxes.DenseSource:
    return drawn_boxes.load(DataSettings(name="drawn_boxes"), "detection")


def arrays(part: drawn_boxes.DensePart) -> tuple[np.ndarray, np.ndarray]:
    images, truths = zip(*(part.read(row) for row in part.rows.tolist()), strict=True)
    return np.stack(images), np.stack(truths)


def test_scenes_hold_one_to_three_objects_inside_that_do_not_overlap(drawn: drawn_boxes.DenseSource) -> None:
    images, truths = arrays(drawn.train)
    assert images.shape == (400, 3, 64, 64)
    assert images.dtype == np.uint8
    assert [len(part) for part in (drawn.validation, drawn.test) if part is not None] == [100, 200]
    there = truths[..., 4] >= 0
    assert set(there.sum(1)) == {1, 2, 3}
    boxes = truths[there]
    assert (boxes[:, :2] >= 0).all()
    assert (boxes[:, 2:4] <= 64).all()
    assert (boxes[:, 2:4] - boxes[:, :2]).min() >= 8
    counts = np.bincount(boxes[:, 4].astype(int), minlength=5)
    assert counts.min() > 0.7 * counts.mean()
    for rows in truths:
        rows = rows[rows[:, 4] >= 0]
        for first in range(len(rows)):
            for second in range(first):
                low = np.maximum(rows[first, :2], rows[second, :2])
                high = np.minimum(rows[first, 2:4], rows[second, 2:4])
                assert (high <= low).any()


def test_a_box_is_exactly_the_pixels_that_its_object_changes() -> None:
    random = np.random.default_rng(0)
    labels = np.arange(50) % len(drawn_boxes.CLASSES)
    covers = drawn_boxes._covers(labels, random)
    for label, cover in zip(labels, covers, strict=True):
        extent = drawn_boxes._extent(cover)
        assert extent.min() > 0, "the object fits the patch it is drawn in"
        assert extent.max() < cover.shape[0]
        image = np.zeros((3, 64, 64), np.float32)
        x1, y1, x2, y2, written = drawn_boxes._paste(
            image, cover, extent, np.array([7, 9]), np.array([0.5, 0, 0], np.float32), label
        ).astype(int)
        rows, columns = np.nonzero(image[0])
        assert (x1, y1, x2, y2) == (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
        assert written == label


def test_objects_can_be_told_from_their_ground(drawn: drawn_boxes.DenseSource) -> None:
    """Inside its box an object's image differs from the image around it."""
    images, truths = arrays(drawn.train)
    differences = []
    for image, rows in zip(images[:100].astype(float), truths[:100], strict=True):
        for x1, y1, x2, y2 in rows[rows[:, 4] >= 0, :4].astype(int):
            middle = image[:, (y1 + y2) // 2 - 2 : (y1 + y2) // 2 + 2, (x1 + x2) // 2 - 2 : (x1 + x2) // 2 + 2]
            differences.append(np.abs(middle.mean((1, 2)) - np.median(image, axis=(1, 2))).max())
    assert np.median(differences) > 40


def test_scenes_are_a_function_of_the_seed(drawn: drawn_boxes.DenseSource) -> None:
    again = drawn_boxes.load(DataSettings(name="drawn_boxes"), "detection")
    more = drawn_boxes.load(DataSettings(name="drawn_boxes", samples=20), "detection")
    other = drawn_boxes.load(DataSettings(name="drawn_boxes", seed=1), "detection")
    assert drawn.test is not None
    assert more.test is not None
    assert np.array_equal(arrays(drawn.train)[0], arrays(again.train)[0])
    assert np.array_equal(arrays(drawn.test)[0], arrays(more.test)[0])
    assert not np.array_equal(arrays(drawn.train)[0], arrays(other.train)[0])
    assert not np.array_equal(arrays(drawn.train)[0][:100], arrays(drawn.test)[0][:100])
    assert len(more.train) == 20


def test_an_image_belongs_to_its_most_frequent_class(drawn: drawn_boxes.DenseSource) -> None:
    _, truths = arrays(drawn.train)
    for rows, label in zip(truths, drawn.train.labels, strict=True):
        classes = rows[rows[:, 4] >= 0, 4].astype(int)
        assert np.bincount(classes)[label] == np.bincount(classes).max()


def test_a_setting_that_drawn_scenes_make_no_use_of_is_refused() -> None:
    with pytest.raises(InvalidSetting, match=r"data\.image_size"):
        data_sets.load(DataSettings(name="drawn_boxes", image_size=128), "detection")


def small_tree(voc: VOCTree) -> VOCTree:
    for number in range(6):
        voc.add("trainval", [("cat", 11, 21, 50, 60), ("dog", 61, 1, 120, 30)][: 1 + number % 2])
    voc.add("trainval", [("cat", 1, 1, 30, 90), ("person", 41, 41, 60, 60)], difficult=[1])
    voc.add("trainval", [], size=(64, 64))
    voc.add("test", [("dog", 31, 31, 90, 90)], size=(100, 200))
    voc.add("test", [("cat", 1, 1, 100, 200)], size=(100, 200), difficult=[0])
    return voc


def settings(voc: VOCTree, **fields: object) -> DataSettings:
    return DataSettings(name="voc2007", root=str(voc.root), **fields)


def test_boxes_are_counted_from_zero_and_scaled_with_the_image(voc: VOCTree) -> None:
    source = voc2007.load(settings(small_tree(voc), image_size=60), "detection")
    image, truth = source.train.read(1)
    assert source.size == (60, 60)
    assert len(source.train) == 8
    assert source.classes == voc2007.CLASSES
    assert len(source.classes) == 20
    # The cat from (11, 21) to (50, 60), counted from 1, of 120×90: halved across, two thirds down.
    assert truth[0].tolist() == pytest.approx([5, 40 / 3, 25, 40, 7], rel=1e-6)
    assert truth[1].tolist() == pytest.approx([30, 0, 60, 20, 11], rel=1e-6)
    red, _, blue = image.astype(int)
    assert (red - blue)[15:38, 7:23].min() > 100
    assert (blue - red)[2:18, 32:58].min() > 100
    assert abs(red - blue)[45:, 30:].max() < 60


def test_difficult_objects_are_marked_and_count_for_no_images_class(voc: VOCTree) -> None:
    source = voc2007.load(settings(small_tree(voc)), "detection")
    assert source.size == (320, 320)
    assert source.train.read(6)[1][:, 4].tolist() == [7, -2 - 14]
    assert source.train.labels[6] == 7
    assert source.test is not None
    assert source.test.read(1)[1][:, 4].tolist() == [-2 - 7]
    # Without an object of its own it is apart from all classes there.
    assert source.train.labels[7] not in source.train.labels[:7]


@pytest.mark.parametrize("in_memory", [True, False])
def test_a_tree_becomes_a_data_set_with_validation_cut_from_trainval(voc: VOCTree, in_memory: bool) -> None:
    chosen = settings(small_tree(voc), image_size=64, in_memory=in_memory, workers=0, validation_fraction=0.25)
    data = data_sets.load(chosen, "detection")
    assert len(data.train) + len(data.validation) == 8
    assert len(data.validation) >= 2
    assert len(data.test) == 2
    assert isinstance(data.train, DenseMemorySplit if in_memory else DenseStreamedSplit)
    assert data.size == (64, 64)
    assert data.channels == 3
    ((images, truths),) = data.test.fetch_pairs([torch.arange(2)])  # type: ignore[attr-defined]
    assert images.shape == (2, 3, 64, 64)
    assert truths.dtype == torch.float32
    # From (31, 31) to (90, 90) of 100×200.
    assert truths[0, 0].tolist() == pytest.approx([30 * 0.64, 30 * 0.32, 90 * 0.64, 90 * 0.32, 11])


def refusal(voc: VOCTree) -> str:
    with pytest.raises(BadData) as caught:
        data_sets.load(settings(voc, image_size=64), "detection")
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    "box", [(0, 5, 30, 30), (5, 5, 121, 30), (5, 5, 30, 91), (30, 5, 20, 30), (5, 31, 30, 30)], ids=str
)
def test_a_box_outside_of_the_image_or_without_area_is_refused(voc: VOCTree, box: tuple[int, ...]) -> None:
    name = small_tree(voc).add("trainval", [])
    text = voc.annotation(name).read_text()
    edges = "".join(
        f"<{edge}>{value}</{edge}>" for edge, value in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True)
    )
    wrong = f"<object><name>cat</name><bndbox>{edges}</bndbox></object></annotation>"
    voc.annotation(name).write_text(text.replace("</annotation>", wrong))
    said = refusal(voc)
    assert f"{name}.xml has the box xmin {box[0]}, ymin {box[1]}, xmax {box[2]}, ymax {box[3]}" in said
    assert "no area or lies outside of the image of 120×90 pixels" in said


def test_an_unknown_class_is_refused_with_those_that_are_known(voc: VOCTree) -> None:
    name = small_tree(voc).add("test", [("cat", 1, 1, 9, 9)])
    text = voc.annotation(name).read_text()
    voc.annotation(name).write_text(text.replace("cat", "kitten"))
    said = refusal(voc)
    assert f"{name}.xml" in said
    assert "unknown class 'kitten' (valid: aeroplane, " in said


def test_a_truncated_annotation_is_refused(voc: VOCTree) -> None:
    name = small_tree(voc).listed["trainval"][2]
    text = voc.annotation(name).read_text()
    voc.annotation(name).write_text(text[: len(text) // 2])
    assert f"{name}.xml cannot be read as an annotation of VOC: " in refusal(voc)


@pytest.mark.parametrize("tag", ["width", "name", "ymax"])
def test_an_annotation_that_lacks_something_is_refused(voc: VOCTree, tag: str) -> None:
    name = small_tree(voc).listed["trainval"][0]
    text = voc.annotation(name).read_text()
    voc.annotation(name).write_text(text.replace(f"<{tag}>", "<other>").replace(f"</{tag}>", "</other>"))
    assert f"{tag}> in <" in refusal(voc)


def test_a_missing_picture_and_a_missing_annotation_are_named(voc: VOCTree) -> None:
    names = small_tree(voc).listed["trainval"]
    voc.picture(names[3]).unlink()
    assert f"{names[3]}.jpg, which trainval.txt lists, is missing" in refusal(voc)
    voc.picture(names[3]).write_bytes(b"no picture")
    assert f"{names[3]}.jpg cannot be read as an image" in refusal(voc)
    voc.annotation(names[1]).unlink()
    assert f"{names[1]}.xml" in refusal(voc)


def test_a_picture_of_another_size_than_its_annotation_is_refused(voc: VOCTree) -> None:
    names = small_tree(voc).listed["trainval"]
    voc.picture(names[0]).write_bytes(voc.picture(names[7]).read_bytes())
    assert "is 64×64 pixels wide and high, but its annotation says 120×90" in refusal(voc)


def test_a_set_without_any_object_is_refused(voc: VOCTree) -> None:
    for _ in range(4):
        voc.add("trainval", [("cat", 1, 1, 9, 9)], difficult=[0])
        voc.add("test", [("cat", 1, 1, 9, 9)])
    assert "no image of trainval" in refusal(voc)


def test_a_folder_without_the_published_files_is_refused(voc: VOCTree) -> None:
    assert "trainval.txt under" in refusal(voc)
    (voc.folder / "ImageSets" / "Main" / "trainval.txt").unlink()
    assert "VOC 2007 cannot be read from" in refusal(voc)
    with pytest.raises(BadData, match="must name the folder that holds VOCdevkit/VOC2007"):
        data_sets.load(DataSettings(name="voc2007"), "detection")


def test_sets_are_for_detection_alone(voc: VOCTree) -> None:
    for name in ("drawn_boxes", "voc2007"):
        with pytest.raises(InvalidSetting, match="is for detection"):
            data_sets.load(DataSettings(name=name, root=str(voc.root)), "segmentation")
