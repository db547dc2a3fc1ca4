"""What a person's own function may return, and the sentence for what it may not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import Subset, TensorDataset

from kdsearch.data import DataSet, load
from kdsearch.data.own import as_source
from kdsearch.data.splits import MemorySplit
from kdsearch.errors import BadData, InvalidSetting, KDSearchError, UnknownName, UserError
from kdsearch.settings import DataSettings

SETTINGS = DataSettings(name="mine.py:splits")
RANDOM = np.random.default_rng(0)
IMAGES = RANDOM.integers(0, 256, (30, 3, 6, 8), dtype=np.uint8)
LABELS = np.arange(30) % 3


def load_file(folder: Path, body: str, **settings: Any) -> DataSet:
    path = folder / "mine.py"
    path.write_text(body)
    return load(DataSettings(name=f"{path}:splits", **settings))


def train_images(value: Any, settings: DataSettings = SETTINGS) -> np.ndarray:
    split = as_source(value, settings).train.split(held=True, workers=0)
    assert isinstance(split, MemorySplit)
    return split.images.numpy()


class Items:
    """A map-style data set of whatever it is given."""

    def __init__(self, images: Any, labels: Any) -> None:
        self.items = list(zip(images, labels, strict=True))

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> Any:
        return self.items[index]


LAYOUTS = {
    "channels first": IMAGES,
    "channels last": IMAGES.transpose(0, 2, 3, 1),
    "tensor": torch.from_numpy(IMAGES),
    "float": IMAGES / 255,
    "float32 tensor": torch.from_numpy(IMAGES).float() / 255,
    "half, last": (IMAGES.transpose(0, 2, 3, 1) / 255).astype(np.float16),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_arrays_come_to_the_same_in_every_layout(layout: str) -> None:
    assert np.array_equal(train_images((LAYOUTS[layout], LABELS)), IMAGES)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_items_of_a_data_set_come_to_the_same_in_every_layout(layout: str) -> None:
    assert np.array_equal(train_images(Items(LAYOUTS[layout], LABELS)), IMAGES)


def test_pictures_of_a_data_set_are_decoded_and_brought_to_one_size() -> None:
    pictures = [Image.fromarray(image.transpose(1, 2, 0)) for image in IMAGES]
    assert np.array_equal(train_images(Items(pictures, LABELS)), IMAGES)
    smaller = train_images(Items(pictures, LABELS), DataSettings(name="mine", image_size=4))
    assert smaller.shape == (30, 3, 4, 4)


def test_grey_images_have_one_channel() -> None:
    grey = IMAGES[:, 0]
    assert np.array_equal(train_images((grey, LABELS)), grey[:, None])
    assert np.array_equal(train_images(Items([Image.fromarray(image) for image in grey], LABELS)), grey[:, None])


def test_many_channels_are_told_from_the_sides() -> None:
    assert train_images((np.zeros((30, 5, 9, 9), "uint8"), LABELS)).shape == (30, 5, 9, 9)
    assert train_images((np.zeros((30, 9, 9, 5), "uint8"), LABELS)).shape == (30, 5, 9, 9)


def test_torch_data_sets_and_subsets_of_them_are_read() -> None:
    whole = TensorDataset(torch.from_numpy(IMAGES), torch.from_numpy(LABELS))
    source = as_source({"train": Subset(whole, range(3, 21)), "test": whole}, SETTINGS)
    assert source.train.targets.tolist() == LABELS[3:21].tolist()
    assert source.test is not None
    assert source.test.targets.tolist() == LABELS.tolist()


def test_labels_kept_in_an_attribute_are_believed_only_where_the_items_agree() -> None:
    data = Items(IMAGES, LABELS)
    data.targets = [0] * 30  # type: ignore[attr-defined]
    assert as_source(data, SETTINGS).train.targets.tolist() == LABELS.tolist()


def test_parts_may_be_named_or_in_order() -> None:
    parts = [(IMAGES, LABELS), (IMAGES[:6], LABELS[:6]), (IMAGES[:9], LABELS[:9])]
    for value in (tuple(parts), dict(zip(("train", "val", "test"), parts, strict=True))):
        source = as_source(value, SETTINGS)
        assert source.validation is not None
        assert source.test is not None
        assert [len(source.train.targets), len(source.validation.targets), len(source.test.targets)] == [30, 6, 9]


def test_a_file_is_loaded_with_the_settings_where_it_asks_for_them(tmp_path: Path) -> None:
    body = """
import numpy

def splits(settings):
    size = settings.image_size
    images = numpy.full((40, size, size, 3), 200, dtype="uint8")
    return {"train": (images, numpy.arange(40) % 4), "classes": ["a", "b", "c", "d"]}
"""
    data = load_file(tmp_path, body, image_size=10)
    assert (data.size, data.channels, data.classes) == ((10, 10), 3, ("a", "b", "c", "d"))
    assert [len(data.train), len(data.validation), len(data.test)] == [24, 8, 8]
    assert data.std == (0.5 / 255,) * 3  # without contrast nothing is divided by 0


def test_a_module_of_a_package_is_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "my_package"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "sets.py").write_text(
        "import numpy\ndef splits(): return numpy.zeros((30, 1, 8, 8), 'uint8'), numpy.arange(30) % 2\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert load(DataSettings(name="my_package.sets:splits")).size == (8, 8)
    with pytest.raises(UnknownName, match="did you mean 'splits'"):
        load(DataSettings(name="my_package.sets:split"))
    with pytest.raises(UserError, match=r"there is no module 'my_packages\.sets'"):
        load(DataSettings(name="my_packages.sets:split"))


ZERO = "import numpy\nI, L = numpy.zeros((30, 1, 8, 8), 'uint8'), numpy.arange(30) % 3\n"
BAD_FILES = {
    "def splits(:": "failed: SyntaxError: invalid syntax .*line 1",
    "import no_such_module": "failed: ModuleNotFoundError: No module named 'no_such_module' .*line 1",
    "def other(): pass": r"unknown function of .*'splits' \(valid: other\)",
    "splits = 3": r"unknown function of .* 'splits'",
    "def splits(a, b): pass": "asks for 2 arguments",
    "def splits(): return 1 / 0": "failed: ZeroDivisionError: division by zero .*line 1",
    "def splits(): return None": "returned NoneType: it must return",
    "def splits(): return {'val': 1}": "no 'train' part, only val",
    "def splits(): return {'train': 3}": "train of .* is int: a part is",
    ZERO + "def splits(): return {'train': (I, L), 'tset': (I, L)}": "did you mean 'test'",
    ZERO + "def splits(): return (I, L), (I, L)": "two parts without names",
    ZERO + "def splits(): return I, L[:-1]": r"30 images but labels of shape \[29\]",
    ZERO + "def splits(): return I, numpy.eye(3)[L]": r"30 images but labels of shape \[30, 3\]",
    ZERO + "def splits(): return I, L - 1": "the label -1",
    ZERO + "def splits(): return I, L * 2": r"class '1' \(label 1\) has no training image",
    ZERO + "def splits(): return I, L + 10**9": "label 1000000002 with 30 images",
    ZERO + "def splits(): return I, L / 1": "labels of type float64",
    ZERO + "def splits(): return I, L * 0": "have one class",
    ZERO + "def splits(): return {'train': (I, L), 'classes': ['a', 'b']}": "labels 0 to 2 and 2 different names",
    ZERO + "def splits(): return {'train': (I, L), 'test': (I, L + 1)}": "label 3 in the test part",
    ZERO + "def splits(): return {'train': (I, L), 'test': (I[:, :, :7], L)}": "test part are 1×7×8",
    ZERO + "def splits(): return {'train': (I, L), 'test': (I[:0], L[:0])}": "there are no images",
    ZERO + "def splits(): return {'train': (I, L), 'augmentation': 'flip'}": "must be an AugmentationSettings",
    ZERO + "def splits(): return I + 1.5, L": "values from 1.5 to 1.5: floating images must lie in",
    ZERO + "def splits(): return I - 0.5, L": "values from -0.5",
    ZERO + "def splits(): return I * numpy.nan, L": "values from nan to nan",
    ZERO + "def splits(): return I.astype('int64'), L": "are int64: images are uint8",
    ZERO + "def splits(): return I[0, 0], L": r"shape \[8, 8\]: images are",
    ZERO + "def splits(): return numpy.zeros((30, 3, 8, 3), 'uint8'), L": "which axis holds the channels",
}


@pytest.mark.parametrize("body", BAD_FILES, ids=list(BAD_FILES.values()))
def test_what_cannot_be_used_is_refused_in_a_sentence(tmp_path: Path, body: str) -> None:
    with pytest.raises(KDSearchError, match=BAD_FILES[body]) as refusal:
        load_file(tmp_path, body)
    assert refusal.value.exit_code == 2
    assert "\n" not in str(refusal.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"there is no file .*gone\.py"):
        load(DataSettings(name=f"{tmp_path}/gone.py:splits"))


@pytest.mark.parametrize(
    ("items", "reason"),
    [
        (Items([*IMAGES[:-1], IMAGES[0, :, :, :5]], LABELS), r"image 29 of .* is \[3, 6, 5\], others are \[3, 6, 8\]"),
        (Items(IMAGES * 2.0, LABELS), "image 0 of .* floating images must lie in"),
        (Items(IMAGES, ["ant"] * 30), "labels that are not one integer per image"),
        (Items(IMAGES, LABELS / 1.0), "labels that are not one integer per image"),
        (Items(IMAGES, LABELS - 1), "the label -1"),
        (Items([], []), "has no images"),
        (Items([1, 2], [0, 1]), r"image 0 of .* has shape \[\]"),
    ],
)
def test_items_that_cannot_be_used_are_named(items: Items, reason: str) -> None:
    with pytest.raises(BadData, match=reason):
        train_images(items)


def test_items_that_fail_are_named() -> None:
    class Broken(Items):
        def __getitem__(self, index: int) -> Any:
            if index == 13:
                raise OSError("disk on fire")
            return super().__getitem__(index)

    with pytest.raises(BadData, match=r"image 13 of train of .* cannot be read: OSError: disk on fire"):
        as_source(Broken(IMAGES, LABELS), SETTINGS)
    with pytest.raises(BadData, match=r"image 0 of train of .* cannot be read: ValueError"):
        as_source(TensorDataset(torch.from_numpy(IMAGES)), SETTINGS)


@pytest.mark.parametrize("value", [(IMAGES, LABELS), Items(IMAGES, LABELS)])
def test_arrays_are_not_brought_to_another_size(value: Any) -> None:
    with pytest.raises(InvalidSetting, match="the images are arrays of 6×8"):
        as_source(value, DataSettings(name="mine", image_size=32))
