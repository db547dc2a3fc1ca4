"""torchvision's sets from small files in their published formats; no pickle but the published ones is opened."""

from __future__ import annotations

import hashlib
import json
import pickle
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torchvision import datasets

from kdsearch.data import DataSet, load
from kdsearch.data.splits import MemorySplit
from kdsearch.errors import BadData, UnknownName
from kdsearch.settings import AugmentationSettings, DataSettings

WritePicture = Callable[..., Path]


def lengths(data: DataSet) -> list[int]:
    return [len(data.train), len(data.validation), len(data.test)]


def write_cifar(root: Path, monkeypatch: pytest.MonkeyPatch, fine: bool) -> dict[str, np.ndarray]:
    """A small CIFAR in the published pickle format, whose md5 sums torchvision is told to be the published ones."""
    published = datasets.CIFAR100 if fine else datasets.CIFAR10
    folder = root / published.base_folder
    folder.mkdir(parents=True)
    key, classes = ("fine_labels", 100) if fine else ("labels", 10)
    random = np.random.default_rng(0)
    written: dict[str, np.ndarray] = {}
    lists: dict[str, list[list[str]]] = {"train_list": [], "test_list": []}

    def write(name: str, content: dict[str, Any]) -> str:
        (folder / name).write_bytes(pickle.dumps(content, protocol=2))
        return hashlib.md5((folder / name).read_bytes()).hexdigest()

    for kind, entries in lists.items():
        for name, _ in getattr(published, kind):
            pixels = random.integers(0, 256, (3 * classes, 3072), dtype=np.uint8)
            digest = write(name, {"data": pixels, key: [index % classes for index in range(3 * classes)]})
            entries.append([name, digest])
            written[name] = pixels
        monkeypatch.setattr(published, kind, entries)
    meta = dict(published.meta)
    meta["md5"] = write(meta["filename"], {meta["key"]: [f"class {index}" for index in range(classes)]})
    monkeypatch.setattr(published, "meta", meta)
    return written


@pytest.mark.parametrize("fine", [False, True])
@pytest.mark.parametrize("inside", [False, True])
def test_cifar_is_read_from_its_archives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fine: bool, inside: bool
) -> None:
    written = write_cifar(tmp_path, monkeypatch, fine)
    folder = "cifar-100-python" if fine else "cifar-10-batches-py"
    name = "cifar100" if fine else "cifar10"
    data = load(DataSettings(name=name, root=str(tmp_path / folder if inside else tmp_path)))
    assert (data.channels, data.size, len(data.classes)) == (3, (32, 32), 100 if fine else 10)
    assert lengths(data) == ([200, 100, 300] if fine else [120, 30, 30])
    assert data.augmentation == AugmentationSettings(crop=4, flip=True)
    assert isinstance(data.test, MemorySplit)
    assert np.array_equal(data.test.images.flatten(1).numpy(), written["test" if fine else "test_batch"])


def test_a_pickle_that_is_not_the_published_one_is_never_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Trap:
        def __reduce__(self) -> Any:
            return Path.touch, (tmp_path / "sprung",)

    write_cifar(tmp_path, monkeypatch, fine=False)
    folder = tmp_path / "cifar-10-batches-py"
    for path in folder.iterdir():
        original = path.read_bytes()
        path.write_bytes(pickle.dumps(Trap()))
        for name in ("cifar10", "torchvision:CIFAR10"):
            with pytest.raises(BadData):
                load(DataSettings(name=name, root=str(tmp_path)))
        path.write_bytes(original)
    assert not (tmp_path / "sprung").exists()
    load(DataSettings(name="cifar10", root=str(tmp_path)))


def test_missing_archives_say_what_to_put_where(tmp_path: Path) -> None:
    for root in (None, tmp_path / "gone", tmp_path):
        with pytest.raises(BadData, match=r"cifar-10-batches-py.*unpack cifar-10-python\.tar\.gz"):
            load(DataSettings(name="cifar10", root=None if root is None else str(root)))
    (tmp_path / "cifar-10-batches-py").mkdir()
    with pytest.raises(BadData, match="missing or not the published ones"):
        load(DataSettings(name="cifar10", root=str(tmp_path)))


def write_mnist(root: Path, name: str) -> dict[str, np.ndarray]:
    folder = root / name / "raw"
    folder.mkdir(parents=True)
    written = {}
    for part, count in (("train", 40), ("t10k", 20)):
        images = np.random.default_rng(count).integers(0, 256, (count, 28, 28), dtype=np.uint8)
        labels = (np.arange(count) % 10).astype(np.uint8)
        (folder / f"{part}-images-idx3-ubyte").write_bytes(struct.pack(">4i", 2051, count, 28, 28) + images.tobytes())
        (folder / f"{part}-labels-idx1-ubyte").write_bytes(struct.pack(">2i", 2049, count) + labels.tobytes())
        written[part] = images
    return written


@pytest.mark.parametrize(
    ("name", "folder"),
    [
        ("mnist", "MNIST"),
        ("fashion_mnist", "FashionMNIST"),
        ("FashionMNIST", "FashionMNIST"),
        ("torchvision:KMNIST", "KMNIST"),
    ],
)
def test_sets_with_a_train_argument_are_read(tmp_path: Path, name: str, folder: str) -> None:
    written = write_mnist(tmp_path, folder)
    data = load(DataSettings(name=name, root=str(tmp_path)))
    assert (data.channels, data.size, lengths(data)) == (1, (28, 28), [30, 10, 20])
    assert data.augmentation == AugmentationSettings(crop=3)
    assert isinstance(data.test, MemorySplit)
    assert np.array_equal(data.test.images[:, 0].numpy(), written["t10k"])
    assert data.test.targets.tolist() == [index % 10 for index in range(20)]


def test_class_names_are_torchvisions(tmp_path: Path) -> None:
    write_mnist(tmp_path, "FashionMNIST")
    assert load(DataSettings(name="fashion_mnist", root=str(tmp_path))).classes[9] == "Ankle boot"


def test_sets_with_a_split_argument_are_read_with_all_their_parts(tmp_path: Path, write_picture: WritePicture) -> None:
    for part, count in (("train", 6), ("valid", 3), ("test", 2)):
        for country in ("AD", "ZW"):
            for index in range(count):
                write_picture(tmp_path / "country211" / part / country / f"{index}.jpg", (30 + index, 20))
    data = load(DataSettings(name="country211", root=str(tmp_path), image_size=16))
    assert (lengths(data), data.size, data.classes) == ([12, 6, 4], (16, 16), ("AD", "ZW"))


def test_sets_without_a_validation_part_get_one(tmp_path: Path, write_picture: WritePicture) -> None:
    root = tmp_path / "food-101"
    (root / "meta").mkdir(parents=True)
    names = ("pho", "ramen")
    for part, count in (("train", 8), ("test", 3)):
        listed = {name: [f"{name}/{part}{index}" for index in range(count)] for name in names}
        (root / "meta" / f"{part}.json").write_text(json.dumps(listed))
        for path in (path for paths in listed.values() for path in paths):
            write_picture(root / "images" / f"{path}.jpg", (20, 20))
    data = load(DataSettings(name="food101", root=str(tmp_path)))
    assert (lengths(data), data.classes) == ([12, 4, 6], names)


def test_an_undivided_set_is_cut_in_three(tmp_path: Path, write_picture: WritePicture) -> None:
    for name in ("Forest", "River"):
        for index in range(10):
            write_picture(tmp_path / "eurosat" / "2750" / name / f"{name}_{index}.jpg", (64, 64))
    data = load(DataSettings(name="torchvision:EuroSAT", root=str(tmp_path)))
    assert (lengths(data), data.size) == ([12, 4, 4], (64, 64))


def test_a_validation_part_without_a_labelled_test_part_is_the_test_part(
    tmp_path: Path, write_picture: WritePicture
) -> None:
    for part, count in (("train", 10), ("val", 3)):
        for name in ("n01440764", "n02102040"):
            for index in range(count):
                write_picture(tmp_path / "imagenette2" / part / name / f"{index}.JPEG", (20, 20))
    for name in (
        "n02979186",
        "n03000684",
        "n03028079",
        "n03394916",
        "n03417042",
        "n03425413",
        "n03445777",
        "n03888257",
    ):
        for part in ("train", "val"):
            for index in range(3):
                write_picture(tmp_path / "imagenette2" / part / name / f"{index}.JPEG", (20, 20), seed=index)
    data = load(DataSettings(name="imagenette", root=str(tmp_path)))
    assert len(data.test) == 2 * 3 + 8 * 3
    assert len(data.train) + len(data.validation) == 2 * 10 + 8 * 3
    assert "chain saw" in " ".join(data.classes)


def test_missing_files_say_how_to_get_them(tmp_path: Path) -> None:
    (tmp_path / "something").touch()
    with pytest.raises(BadData, match=r"torchvision's STL10 cannot be read from .*STL10\(root, download=True\)"):
        load(DataSettings(name="stl10", root=str(tmp_path)))
    with pytest.raises(BadData, match=r"must name the folder that was given to torchvision\.datasets\.SVHN"):
        load(DataSettings(name="svhn"))


@pytest.mark.parametrize("name", ["torchvision:STL11", "torchvision:LSUN", "emnist", "coco_detection", "imagefolder"])
def test_sets_that_are_unknown_or_unfit_are_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "something").touch()
    with pytest.raises(UnknownName, match="unknown torchvision classification set"):
        load(DataSettings(name=name, root=str(tmp_path)))


def test_sets_for_another_task_are_refused(tmp_path: Path, write_picture: WritePicture) -> None:
    root = tmp_path / "VOCdevkit" / "VOC2012"
    for folder in ("JPEGImages", "Annotations"):
        (root / folder).mkdir(parents=True)
    (root / "ImageSets" / "Main").mkdir(parents=True)
    (root / "ImageSets" / "Main" / "train.txt").write_text("a\nb\n")
    for name in "ab":
        write_picture(root / "JPEGImages" / f"{name}.jpg")
        (root / "Annotations" / f"{name}.xml").write_text("<annotation><object><name>dog</name></object></annotation>")
    with pytest.raises(BadData, match="labels that are not one integer per image"):
        load(DataSettings(name="voc_detection", root=str(tmp_path)))


def test_a_set_by_name_is_reproducible(tmp_path: Path) -> None:
    write_mnist(tmp_path, "MNIST")
    one, other = (load(DataSettings(name="mnist", root=str(tmp_path))).validation for _ in range(2))
    assert torch.equal(one.targets, other.targets)
