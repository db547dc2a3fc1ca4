"""Pictures with masks on disk: Pascal VOC's tree and a folder of one's own, and all that can be wrong with them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from kdsearch import data as data_sets
from kdsearch.data.base import DataSet
from kdsearch.data.dense.letterbox import Letterbox
from kdsearch.data.dense.source import OUTSIDE_EDGES
from kdsearch.errors import BadData, InvalidSetting
from kdsearch.settings import DataSettings
from tests.segmentation.trees import masks_tree, save_mask, voc_tree


def loaded(name: str, root: Path, task: str = "segmentation", **settings: object) -> DataSet:
    return data_sets.load(DataSettings(name=name, root=str(root), **settings), task)  # type: ignore[arg-type]


def pairs(data: DataSet, part: str = "train") -> tuple[torch.Tensor, torch.Tensor]:
    split = getattr(data, part)
    ((images, truths),) = split.fetch_pairs([torch.arange(len(split))])
    return images, truths


def test_voc_is_read_as_torchvision_reads_it(tmp_path: Path) -> None:
    from torchvision.datasets import VOCSegmentation  # type: ignore[import-untyped]

    root = voc_tree(tmp_path)
    data = loaded("voc2012", root, image_size=32)
    assert [len(part) for part in (data.train, data.validation, data.test)] == [9, 3, 6]
    assert (len(data.classes), data.classes[0], data.classes[15], data.size) == (21, "background", "person", (32, 32))
    published = VOCSegmentation(str(root), image_set="val")
    images, masks = pairs(data, "test")
    for row, (picture, mask) in enumerate(published):
        box = Letterbox((picture.height, picture.width), (32, 32))
        np.testing.assert_array_equal(masks[row].numpy(), box.mask(np.asarray(mask), 255))
        np.testing.assert_array_equal(images[row].numpy(), box.picture(picture))
    assert data_sets.load(DataSettings(name="voc2012", root=str(root)), "segmentation").size == (256, 256)


def test_voc_can_be_streamed(tmp_path: Path) -> None:
    root = voc_tree(tmp_path)
    held, streamed = (loaded("voc2012", root, image_size=32, in_memory=held, workers=0) for held in (True, False))
    for part in ("train", "validation", "test"):
        assert all(torch.equal(*both) for both in zip(pairs(held, part), pairs(streamed, part), strict=True))


def test_a_folder_of_masks_is_divided_and_keeps_its_size(tmp_path: Path) -> None:
    root = masks_tree(tmp_path / "own")
    data = loaded("masks", root)
    assert len(data.train) + len(data.validation) + len(data.test) == 10
    assert data.size == (30, 40)
    assert data.classes == ("0", "1", "2", "3")
    images, masks = (
        torch.cat(parts) for parts in zip(*(pairs(data, p) for p in ("train", "validation", "test")), strict=True)
    )
    on_disk = {np.asarray(Image.open(path)).tobytes() for path in (root / "masks").iterdir()}
    assert {mask.numpy().tobytes() for mask in masks} == on_disk
    colours = {np.ascontiguousarray(image.permute(1, 2, 0).numpy()).tobytes() for image in images}
    assert colours == {np.asarray(Image.open(path)).tobytes() for path in (root / "images").iterdir()}


def test_published_parts_palette_masks_and_names_of_classes_are_taken(tmp_path: Path) -> None:
    for part, count in (("train", 5), ("val", 2), ("test", 3)):
        masks_tree(tmp_path / part, count)
        for path in (tmp_path / part / "masks").iterdir():
            save_mask(np.asarray(Image.open(path)), path)
    (tmp_path / "classes.txt").write_text("ground\nhouse\ntree\nriver\nnever seen\n", encoding="utf-8")
    data = loaded("masks", tmp_path)
    assert [len(part) for part in (data.train, data.validation, data.test)] == [5, 2, 3]
    assert data.classes == ("ground", "house", "tree", "river", "never seen")
    assert set(pairs(data)[1].unique().tolist()) <= {0, 1, 2, 3, 255}


def test_images_of_many_sizes_are_letterboxed(tmp_path: Path) -> None:
    masks_tree(tmp_path, 4)
    Image.new("RGB", (80, 20)).save(tmp_path / "images" / "9.png")
    Image.new("L", (80, 20), 1).save(tmp_path / "masks" / "9.png")
    assert loaded("masks", tmp_path).size == (256, 256)
    data = loaded("masks", tmp_path, image_size=40)
    masks = torch.cat([pairs(data, part)[1] for part in ("train", "validation", "test")])
    wide = next(mask for mask in masks if set(mask.unique().tolist()) == {1, 255})
    assert (wide == 1).any(1).sum() == 10


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "I;16", "1"])
def test_pictures_of_every_kind_are_converted(mode: str, tmp_path: Path) -> None:
    masks_tree(tmp_path, 5)
    grey = np.linspace(0, 255, 30 * 40).reshape(30, 40).round()
    kinds = {
        "L": lambda: Image.fromarray(grey.astype(np.uint8)),
        "RGBA": lambda: Image.fromarray(grey.astype(np.uint8)).convert("RGBA"),
        "P": lambda: Image.fromarray(grey.astype(np.uint8)).convert("RGB").convert("P"),
        "I;16": lambda: Image.fromarray((grey * 257).astype(np.uint16)),
        "1": lambda: Image.fromarray(grey.astype(np.uint8)).convert("1"),
    }
    for number in range(5):
        kinds[mode]().save(tmp_path / "images" / f"{number}.png")
    images, _ = pairs(loaded("masks", tmp_path))
    assert images.shape[1:] == (3, 30, 40)
    if mode in ("L", "RGBA", "I;16"):
        np.testing.assert_allclose(images[0, 1].numpy(), grey, atol=1)
    assert images.min() < 20
    assert images.max() > 235


def test_masks_of_edges_keep_thin_lines_however_small_they_become(tmp_path: Path) -> None:
    masks_tree(tmp_path, 5, size=(60, 80))
    for path in (tmp_path / "masks").iterdir():
        edges = np.zeros((60, 80), dtype=np.uint8)
        edges[:, 31] = 255
        Image.fromarray(edges).save(path)
    data = loaded("masks", tmp_path, "edges", image_size=16)
    assert data.classes == ("edge",)
    truth = pairs(data)[1]
    assert truth.dtype == torch.int16
    assert (truth[:, :2] == OUTSIDE_EDGES).all()  # 16 × 12 pixels show the picture
    assert (truth[:, 14:] == OUTSIDE_EDGES).all()
    assert (truth[:, 2:14, 6] == 1).all()
    assert truth[:, 2:14].sum() == 12 * len(truth)


def no_mask(root: Path) -> None:
    (root / "masks" / "3.png").unlink()


def no_image(root: Path) -> None:
    (root / "images" / "3.png").unlink()


def two_of_a_name(root: Path) -> None:
    Image.new("RGB", (40, 30)).save(root / "images" / "3.jpg")


def other_size(root: Path) -> None:
    Image.new("L", (30, 40), 1).save(root / "masks" / "3.png")


def sixteen_bits(root: Path) -> None:
    Image.fromarray(np.ones((30, 40), dtype=np.uint16)).save(root / "masks" / "3.png")


def in_colour(root: Path) -> None:
    Image.new("RGB", (40, 30)).save(root / "masks" / "3.png")


def all_void(root: Path) -> None:
    Image.new("L", (40, 30), 255).save(root / "masks" / "3.png")


def beyond_the_classes(root: Path) -> None:
    (root / "classes.txt").write_text("a\nb\nc\nd\n", encoding="utf-8")
    Image.new("L", (40, 30), 7).save(root / "masks" / "3.png")


def classes_twice(root: Path) -> None:
    (root / "classes.txt").write_text("a\nb\nb\n", encoding="utf-8")


def one_class(root: Path) -> None:
    for path in (root / "masks").iterdir():
        Image.new("L", (40, 30), 0).save(path)


def broken_mask(root: Path) -> None:
    (root / "masks" / "3.png").write_bytes(b"no picture")


def broken_image(root: Path) -> None:
    (root / "images" / "3.png").write_bytes(b"no picture")


def truncated_image(root: Path) -> None:
    path = root / "images" / "3.png"
    path.write_bytes(path.read_bytes()[:-1500])


def no_folders(root: Path) -> None:
    (root / "masks").rename(root / "labels")


def no_images(root: Path) -> None:
    for path in (root / "images").iterdir():
        path.unlink()


WRONG = {
    no_mask: r"image .*images/3\.png has no mask .*masks/3\.png",
    no_image: r"mask .*masks/3\.png has no image of its name",
    two_of_a_name: r"3\.jpg and .*3\.png have one name",
    other_size: r"3\.png is 30×40 pixels .* its mask .*3\.png 40×30: both must have one size",
    sixteen_bits: r"masks/3\.png has more than 8 bits \(mode I;16\)",
    in_colour: r"masks/3\.png is in colour \(mode RGB\)",
    all_void: r"masks/3\.png is 255 everywhere",
    beyond_the_classes: r"masks/3\.png holds the class 7, and classes\.txt names 4, 0 to 3",
    classes_twice: r"classes\.txt names 2 classes in 3 lines",
    one_class: r"hold no class but 0",
    broken_mask: r"the mask .*masks/3\.png cannot be read",
    broken_image: r"images/3\.png cannot be read as an image",
    truncated_image: r"images/3\.png cannot be read as an image",
    no_folders: r"holds no folders 'images' and 'masks'",
    no_images: r"images holds no images",
}


@pytest.mark.parametrize("spoil", WRONG, ids=lambda spoil: spoil.__name__)
def test_what_is_wrong_with_a_folder_is_said_in_one_sentence(spoil, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    root = masks_tree(tmp_path / "own")
    spoil(root)
    with pytest.raises(BadData, match=WRONG[spoil]) as caught:
        loaded("masks", root)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("value", "sentence"), [(0, "mark no edge"), (255, "more edge than ground")], ids=["no edge", "black on white"]
)
def test_masks_that_are_no_edges_are_refused(value: int, sentence: str, tmp_path: Path) -> None:
    masks_tree(tmp_path, 4)
    for path in (tmp_path / "masks").iterdir():
        Image.new("L", (40, 30), value).save(path)
    with pytest.raises(BadData, match=sentence):
        loaded("masks", tmp_path, "edges")


def test_what_is_wrong_with_a_voc_tree_is_said(tmp_path: Path) -> None:
    root = voc_tree(tmp_path / "voc")
    mask = root / "VOCdevkit" / "VOC2012" / "SegmentationClass" / "2007_000003.png"
    whole = mask.read_bytes()
    Image.new("L", (50, 36), 30).save(mask)
    with pytest.raises(BadData, match=r"2007_000003\.png holds the class 30: those of Pascal VOC are 0 to 20"):
        loaded("voc2012", root)
    mask.unlink()
    with pytest.raises(BadData, match=r"mask .*2007_000003\.png cannot be read"):
        loaded("voc2012", root)
    mask.write_bytes(whole)
    (root / "VOCdevkit" / "VOC2012" / "ImageSets" / "Segmentation" / "val.txt").unlink()
    with pytest.raises(BadData, match=r"Segmentation/val\.txt"):
        loaded("voc2012", root)
    with pytest.raises(BadData, match="holds no Pascal VOC 2012"):
        loaded("voc2012", tmp_path)
    with pytest.raises(BadData, match=r"data\.root"):
        data_sets.load(DataSettings(name="voc2012"), "segmentation")


def test_sets_of_other_tasks_and_settings_without_use_are_refused(tmp_path: Path) -> None:
    root = voc_tree(tmp_path)
    with pytest.raises(InvalidSetting, match="voc2012"):
        loaded("voc2012", root, "classification")
    with pytest.raises(InvalidSetting, match="samples"):
        loaded("voc2012", root, samples=20)
    with pytest.raises(InvalidSetting, match="label_noise"):
        loaded("voc2012", root, label_noise=0.1)
