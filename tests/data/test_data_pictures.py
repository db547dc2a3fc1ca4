"""Pictures: every mode becomes 8 bits rightly or is refused; trees and published layouts are read as they are."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from kdsearch.data import DataSet, load
from kdsearch.data.decoding import picture_array
from kdsearch.data.pictures import ImageFiles, common_shape
from kdsearch.data.splits import MemorySplit
from kdsearch.errors import BadData
from kdsearch.settings import AugmentationSettings, DataSettings

WritePicture = Callable[..., Path]


def folder(root: Path, **settings: object) -> DataSet:
    return load(DataSettings.model_validate({"name": "folder", "root": str(root), **settings}))


def decode(picture: Image.Image, channels: int = 3) -> np.ndarray:
    return picture_array(picture, (channels, picture.height, picture.width), "it")


def reopened(picture: Image.Image, kind: str) -> Image.Image:
    buffer = io.BytesIO()
    picture.save(buffer, kind)
    return Image.open(buffer)


GRADIENT = np.arange(0, 65536, 257, dtype=np.uint16).reshape(16, 16)


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bits_are_scaled_and_not_clipped(kind: str) -> None:
    decoded = decode(reopened(Image.fromarray(GRADIENT), kind))
    assert decoded.shape == (3, 16, 16)
    assert np.array_equal(decoded[1], (GRADIENT // 257).astype(np.uint8))


def test_thirty_two_bits_are_refused() -> None:
    for values in (GRADIENT.astype(np.int32), GRADIENT.astype(np.float32)):
        with pytest.raises(BadData, match="it has 32 bits a pixel"):
            decode(reopened(Image.fromarray(values), "TIFF"))


def test_grey_becomes_three_equal_channels() -> None:
    grey = (GRADIENT // 257).astype(np.uint8)
    decoded = decode(Image.fromarray(grey))
    assert all(np.array_equal(channel, grey) for channel in decoded)


def test_black_and_white_becomes_0_and_255() -> None:
    assert decode(Image.new("1", (2, 2), 1), channels=1).tolist() == [[[255, 255], [255, 255]]]


def test_what_is_transparent_lies_on_white() -> None:
    pixels = np.zeros((1, 3, 4), dtype=np.uint8)
    pixels[0, :, 0] = 200
    pixels[0, :, 3] = [255, 0, 51]  # opaque, invisible, a fifth
    decoded = decode(reopened(Image.fromarray(pixels), "PNG"))
    assert decoded[:, 0].T.tolist() == [[200, 0, 0], [255, 255, 255], [244, 204, 204]]


def test_a_palette_and_its_transparent_colour_are_followed() -> None:
    picture = Image.fromarray(np.array([[0, 1]], dtype=np.uint8), "P")
    picture.putpalette([10, 20, 30, 40, 50, 60])
    assert decode(reopened(picture, "PNG"))[:, 0].T.tolist() == [[10, 20, 30], [40, 50, 60]]
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", transparency=1)
    assert decode(Image.open(buffer))[:, 0].T.tolist() == [[10, 20, 30], [255, 255, 255]]


def test_cmyk_becomes_its_colour() -> None:
    assert decode(Image.new("CMYK", (1, 1), (0, 255, 255, 0)))[:, 0, 0].tolist() == [255, 0, 0]


def test_a_picture_lies_as_its_exif_orientation_says(tmp_path: Path) -> None:
    pixels = np.zeros((8, 24, 3), dtype=np.uint8)
    pixels[:, :8] = 255  # bright on the left; turned by 90° clockwise it is bright at the top
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(pixels).save(tmp_path / "turned.png", exif=exif)
    files = ImageFiles(str(tmp_path), ("turned.png",))
    assert common_shape(files, None) == (3, 24, 8)
    upright = files.read(0, (3, 24, 8))
    assert upright[:, :8].min() == 255
    assert upright[:, 8:].max() == 0


def test_the_shorter_side_is_resized_and_the_middle_is_kept(tmp_path: Path) -> None:
    pixels = np.zeros((20, 60, 3), dtype=np.uint8)
    pixels[:, 20:40] = 255
    Image.fromarray(pixels).save(tmp_path / "wide.png")
    files = ImageFiles(str(tmp_path), ("wide.png",))
    assert files.read(0, (3, 20, 20)).min() == 255
    assert files.read(0, (3, 10, 30))[:, :, 11:19].min() == 255
    # A third of the width is bright; at half the size with sides 10×20 that is the middle 10 of 20 columns.
    half = files.read(0, (3, 10, 20))
    assert half[:, :, 6:14].min() == 255
    assert half[:, :, :4].max() == half[:, :, -4:].max() == 0


@pytest.mark.parametrize(
    ("sizes", "image_size", "expected"),
    [
        ([(12, 12), (12, 12)], None, (12, 12)),
        ([(20, 12), (20, 12)], None, (12, 20)),  # all alike: as they are, also where they are not square
        ([(20, 12), (14, 30), (40, 50)], None, (14, 14)),  # the median of the shorter sides
        ([(300, 260), (300, 260)], None, (224, 224)),
        ([(20, 12), (14, 30)], 9, (9, 9)),
    ],
)
def test_the_common_size(
    tmp_path: Path,
    write_picture: WritePicture,
    sizes: list[tuple[int, int]],
    image_size: int | None,
    expected: tuple[int, int],
) -> None:
    names = tuple(f"{index}.png" for index in range(len(sizes)))
    for name, size in zip(names, sizes, strict=True):
        write_picture(tmp_path / name, size=size)
    assert common_shape(ImageFiles(str(tmp_path), names), image_size) == (3, *expected)


def test_an_undivided_tree_is_cut_in_three(tree: Path) -> None:
    (tree / "ant" / "notes.txt").write_text("not an image")
    (tree / "ant" / "._0.png").write_text("left by another system")
    data = folder(tree)
    assert (data.classes, data.size, data.channels) == (("ant", "bee", "cat"), (12, 12), 3)
    assert [split.targets.bincount().tolist() for split in (data.train, data.validation, data.test)] == [
        [6, 6, 6],
        [2, 2, 2],
        [2, 2, 2],
    ]
    assert data.augmentation == AugmentationSettings(crop=1, flip=True)
    # Each image is the file's, with the label of its folder.
    known = {
        np.asarray(Image.open(path)).transpose(2, 0, 1).tobytes(): label
        for label, name in enumerate(data.classes)
        for path in (tree / name).glob("?.png")
    }
    for split in (data.train, data.validation, data.test):
        assert isinstance(split, MemorySplit)
        for image, label in zip(split.images, split.targets, strict=True):
            assert known.pop(image.numpy().tobytes()) == int(label)
    assert not known


def test_a_divided_tree_keeps_its_parts_and_lacking_ones_are_cut(tmp_path: Path, write_picture: WritePicture) -> None:
    for part, count in (("train", 10), ("val", 2)):
        for name in ("ant", "bee"):
            for index in range(count):
                write_picture(tmp_path / part / name / "deeper" / f"{index}.jpg", seed=index)
    (tmp_path / "annotations").mkdir()
    data = folder(tmp_path)
    assert [len(split) for split in (data.train, data.validation, data.test)] == [16, 4, 4]
    assert data.classes == ("ant", "bee")


def test_bad_trees_are_refused_in_a_sentence(tmp_path: Path, write_picture: WritePicture) -> None:
    def refusal(root: Path | None) -> str:
        with pytest.raises(BadData) as refused:
            load(DataSettings(name="folder", root=None if root is None else str(root)))
        return str(refused.value)

    assert "data.root (--data-root) must name the folder" in refusal(None)
    assert "there is no folder" in refusal(tmp_path / "gone")
    (tmp_path / "empty").mkdir()
    assert "is empty" in refusal(tmp_path / "empty")
    write_picture(tmp_path / "flat" / "a.png")
    assert "holds no folders of classes" in refusal(tmp_path / "flat")
    write_picture(tmp_path / "unsorted" / "train" / "a.png")
    assert "holds no folders of classes" in refusal(tmp_path / "unsorted")
    write_picture(tmp_path / "one" / "ant" / "a.png")
    assert "have one class (ant)" in refusal(tmp_path / "one")
    (tmp_path / "one" / "bee").mkdir()
    assert "one/bee holds no images" in refusal(tmp_path / "one")
    for name in ("ant", "bee"):
        write_picture(tmp_path / "odd" / "train" / name / "a.png")
    write_picture(tmp_path / "odd" / "val" / "cow" / "a.png")
    assert "holds a class 'cow' that the train part does not know" in refusal(tmp_path / "odd")
    write_picture(tmp_path / "odd" / "valid" / "ant" / "a.png")
    assert "holds both 'val' and 'valid'" in refusal(tmp_path / "odd")
    for name in ("ant", "bee"):
        write_picture(tmp_path / "unlabelled" / "train" / name / "a.png")
    write_picture(tmp_path / "unlabelled" / "test" / "a.png")
    assert "test holds no folders of classes" in refusal(tmp_path / "unlabelled")


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("damage", ["truncated", "text", "gone"])
def test_an_unreadable_image_is_named(tree: Path, damage: str, streamed: bool) -> None:
    path = tree / "bee" / "4.png"
    content = path.read_bytes()
    path.unlink()
    if damage == "gone":
        path.symlink_to(tree / "nowhere.png")
    else:
        path.write_bytes(content[: len(content) // 2] if damage == "truncated" else b"no image")
    with pytest.raises(BadData, match=r"bee/4\.png cannot be read as an image: "):
        folder(tree, in_memory=not streamed, workers=0)


def test_tiny_imagenet_is_read_as_published(tmp_path: Path, write_picture: WritePicture) -> None:
    root = tmp_path / "tiny-imagenet-200"
    identifiers = ("n02124075", "n01443537", "n04067472")
    for identifier in identifiers:
        for index in range(5):
            write_picture(root / "train" / identifier / "images" / f"{identifier}_{index}.JPEG", (64, 64))
        (root / "train" / identifier / f"{identifier}_boxes.txt").write_text(f"{identifier}_0.JPEG\t0\t10\t63\t58\n")
    lines = []
    for index in range(6):
        write_picture(root / "val" / "images" / f"val_{index}.JPEG", (64, 64))
        lines.append(f"val_{index}.JPEG\t{identifiers[index % 3]}\t0\t32\t44\t62\n")
    (root / "val" / "val_annotations.txt").write_text("".join(lines))
    write_picture(root / "test" / "images" / "test_0.JPEG", (64, 64))
    (root / "wnids.txt").write_text("\n".join(identifiers))
    (root / "words.txt").write_text(
        "n01443537\tgoldfish, Carassius auratus\nn02124075\tEgyptian cat\nn04067472\treel\n"
    )
    data = folder(root)
    assert data.classes == ("goldfish", "Egyptian cat", "reel")
    assert [len(split) for split in (data.train, data.validation, data.test)] == [12, 3, 6]
    assert data.test.targets.tolist() == [1, 0, 2, 1, 0, 2]
    assert data.size == (64, 64)
    assert data.augmentation == AugmentationSettings(crop=8, flip=True)
    (root / "val" / "val_annotations.txt").write_text("val_0.JPEG\tn00000000\t0\t0\t1\t1\n")
    with pytest.raises(BadData, match="a class 'n00000000' that has no folder"):
        folder(root)


@pytest.mark.parametrize("above", [True, False])
def test_cub_200_is_read_as_published(tmp_path: Path, write_picture: WritePicture, above: bool) -> None:
    root = tmp_path / "CUB_200_2011"
    classes = ("001.Black_footed_Albatross", "002.Laysan_Albatross")
    rows = []
    for index in range(16):
        name = classes[index % 2]
        path = f"{name}/{name[4:]}_{index:04d}_{index}.jpg"
        write_picture(root / "images" / path, (30 + index, 20 + index % 3), seed=index)
        rows.append((index + 1, path, index % 2 + 1, int(index < 12)))
    (root / "images.txt").write_text("".join(f"{row[0]} {row[1]}\n" for row in rows))
    (root / "image_class_labels.txt").write_text("".join(f"{row[0]} {row[2]}\n" for row in rows))
    (root / "train_test_split.txt").write_text("".join(f"{row[0]} {row[3]}\n" for row in rows))
    (root / "classes.txt").write_text("".join(f"{index + 1} {name}\n" for index, name in enumerate(classes)))
    data = folder(tmp_path if above else root, image_size=16)
    assert data.classes == classes
    assert [len(split) for split in (data.train, data.validation, data.test)] == [9, 3, 4]
    assert data.test.targets.tolist() == [0, 1, 0, 1]
    assert data.size == (16, 16)
    (root / "image_class_labels.txt").write_text("1 1\n")
    with pytest.raises(BadData, match="do not name the same images"):
        folder(root)
    (root / "image_class_labels.txt").write_text("a page that says: not found\n")
    with pytest.raises(BadData, match="is not the published list"):
        folder(root)


@pytest.mark.parametrize("lists", ["", "lists"])
def test_stanford_dogs_is_read_as_published(tmp_path: Path, write_picture: WritePicture, lists: str) -> None:
    breeds = ("n02085620-Chihuahua", "n02085782-Japanese_spaniel", "n02085936-Maltese_dog")
    parts: dict[str, tuple[list[str], list[int]]] = {"train": ([], []), "test": ([], [])}
    for label, breed in enumerate(breeds):
        for index in range(8):
            path = f"{breed}/{breed.split('-')[0]}_{index}.jpg"
            write_picture(tmp_path / "Images" / path, (25, 20), seed=index)
            files, labels = parts["train" if index < 5 else "test"]
            files.append(path)
            labels.append(label + 1)
    (tmp_path / lists).mkdir(exist_ok=True)
    for part, (files, labels) in parts.items():
        cells = np.empty((len(files), 1), dtype=object)  # a MATLAB cell array of strings, as in the published lists
        cells[:, 0] = files
        content = {"file_list": cells, "annotation_list": cells, "labels": np.array(labels, dtype=np.uint8)[:, None]}
        savemat(tmp_path / lists / f"{part}_list.mat", content)
    data = folder(tmp_path)
    assert data.classes == ("Chihuahua", "Japanese_spaniel", "Maltese_dog")
    assert [len(split) for split in (data.train, data.validation, data.test)] == [12, 3, 9]
    assert data.test.targets.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    (tmp_path / lists / "test_list.mat").write_bytes(b"not found")
    with pytest.raises(BadData, match=r"test_list\.mat is not the published list"):
        folder(tmp_path)
