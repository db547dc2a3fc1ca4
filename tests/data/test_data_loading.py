"""Data sets as they are loaded: splits, fraction, noise, statistics, names, and what is refused."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from kdsearch.data import DataSet, facts, load, names, resolve
from kdsearch.data.sets.shapes import draw
from kdsearch.data.splits import MemorySplit
from kdsearch.errors import BadData, InvalidSetting, UnknownName
from kdsearch.settings import AugmentationSettings, DataSettings
from tests.counting import calls

PARTS = ("train", "validation", "test")


def digits(**settings: Any) -> DataSet:
    return load(DataSettings(name="digits", **settings))


def images_of(data: DataSet, part: str) -> torch.Tensor:
    split = getattr(data, part)
    assert isinstance(split, MemorySplit)
    return split.images


def test_digits_are_scikit_learns_images_divided_60_20_20_and_stratified() -> None:
    data = digits()
    assert [len(getattr(data, part)) for part in PARTS] == [1077, 360, 360]
    assert (data.channels, data.size, data.classes) == (1, (8, 8), tuple("0123456789"))
    published = load_digits()
    counts = np.bincount(published.target)
    for part, share in zip(PARTS, (1077 / 1797, 360 / 1797, 360 / 1797), strict=True):
        assert (np.abs(getattr(data, part).targets.bincount().numpy() - counts * share) < 2).all()
    # Together they are all images, each with its label, none twice; 16 is the brightest grey level.
    ours = torch.cat(
        [torch.cat([images_of(data, part).flatten(1), getattr(data, part).targets[:, None]], 1) for part in PARTS]
    )
    theirs = np.concatenate([np.round(published.data * 255 / 16), published.target[:, None]], 1).astype(np.int64)
    assert sorted(ours.tolist()) == sorted(theirs.tolist())


def test_the_seed_decides_the_split() -> None:
    assert torch.equal(images_of(digits(), "test"), images_of(digits(), "test"))
    assert not torch.equal(images_of(digits(), "test"), images_of(digits(seed=1), "test"))


def test_fractions_are_shares_of_what_is_divided() -> None:
    data = digits(validation_fraction=0.1, test_fraction=0.5)
    assert [len(getattr(data, part)) for part in PARTS] == [1797 - 899 - 180, 180, 899]


def test_label_fraction_thins_training_alone_and_every_class() -> None:
    whole, part = digits(), digits(label_fraction=0.25)
    assert len(part.train) == 270
    exact = whole.train.targets.bincount() * (270 / 1077)
    assert ((part.train.targets.bincount() - exact).abs() < 1).all()
    assert torch.equal(images_of(whole, "validation"), images_of(part, "validation"))
    assert torch.equal(images_of(whole, "test"), images_of(part, "test"))
    known = {tuple(image) for image in images_of(whole, "train").flatten(1).tolist()}
    assert {tuple(image) for image in images_of(part, "train").flatten(1).tolist()} <= known


def test_label_fraction_keeps_one_of_each_class() -> None:
    assert digits(label_fraction=0.001).train.targets.bincount().tolist() == [1] * 10


def test_label_noise_changes_training_labels_alone_and_exactly_its_share() -> None:
    clean, noisy = digits(), digits(label_noise=0.4)
    assert torch.equal(images_of(clean, "train"), images_of(noisy, "train"))
    assert int((clean.train.targets != noisy.train.targets).sum()) == round(0.4 * 1077)
    assert torch.equal(clean.validation.targets, noisy.validation.targets)
    assert torch.equal(clean.test.targets, noisy.test.targets)


def test_mean_and_deviation_are_those_of_the_training_images() -> None:
    data = load(DataSettings(name="shapes", samples=2500))
    unit = images_of(data, "train").double() / 255
    assert data.mean == pytest.approx(unit.mean((0, 2, 3)).tolist(), abs=1e-12)
    assert data.std == pytest.approx(unit.std((0, 2, 3), correction=0).tolist(), abs=1e-12)


def test_shapes_are_balanced_reproducible_and_their_test_part_is_the_same_for_any_number_of_images() -> None:
    data, more = load(DataSettings(name="shapes", samples=100)), load(DataSettings(name="shapes", samples=205))
    assert [len(getattr(more, part)) for part in PARTS] == [205, 1000, 1000]
    assert (data.channels, data.size, len(data.classes)) == (3, (32, 32), 10)
    assert sorted(more.train.targets.bincount().tolist()) == [20] * 5 + [21] * 5
    assert torch.equal(images_of(data, "test"), images_of(more, "test"))
    assert not torch.equal(images_of(data, "test"), images_of(load(DataSettings(name="shapes", seed=1)), "test"))
    assert more.augmentation == AugmentationSettings(flip=True)


def test_shapes_show_which_side_is_up() -> None:
    images = images_of(load(DataSettings(name="shapes")), "train").float()
    top, bottom = images[:, :, :6].mean((1, 2, 3)), images[:, :, -6:].mean((1, 2, 3))
    left, right = images[:, :, :, :6].mean((1, 2, 3)), images[:, :, :, -6:].mean((1, 2, 3))
    # Light from above in nearly every image, and no side that is brighter than the other.
    assert (top > bottom).float().mean() > 0.95
    assert (left > right).float().mean() == pytest.approx(0.5, abs=0.05)


def test_shapes_are_drawn_all_together_and_not_image_by_image() -> None:
    def calls_of(samples: int) -> int:
        return calls(lambda: draw(samples, np.random.default_rng(0)))

    assert 100 < calls_of(4000) == calls_of(40)


def test_the_package_comes_without_torch_and_digits_without_torchvision() -> None:
    code = (
        "import sys, kdsearch.data as data; print('torch' in sys.modules)\n"
        "from kdsearch.settings import DataSettings\n"
        "data.load(DataSettings(name='digits')); print('torch' in sys.modules, 'torchvision' in sys.modules)"
    )
    said = subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.PIPE, text=True).stdout
    assert said.split() == ["False", "True", "False"]


def test_names_are_the_built_in_sets() -> None:
    assert {"digits", "shapes", "cifar10", "cifar100", "folder"} <= set(names())
    assert "torchvision" not in names()


def test_an_unknown_set_names_the_nearest() -> None:
    with pytest.raises(UnknownName, match=r"unknown data set 'digitz'; did you mean 'digits'\?"):
        load(DataSettings(name="digitz"))


def test_another_task_is_refused() -> None:
    with pytest.raises(InvalidSetting, match=r"digits.*is for classification; for segmentation take"):
        load(DataSettings(), "segmentation")


@pytest.mark.parametrize(
    ("settings", "key"),
    [
        ({"name": "digits", "samples": 100}, "data.samples = 100"),
        ({"name": "digits", "root": "x"}, "data.root = 'x'"),
        ({"name": "digits", "image_size": 16}, "data.image_size = 16"),
        ({"name": "shapes", "root": "x"}, "data.root = 'x'"),
        ({"name": "digits", "in_memory": False}, "data.in_memory = False"),
        ({"name": "digits", "validation_fraction": 0.6, "test_fraction": 0.4}, "validation_fraction"),
    ],
)
def test_settings_that_a_set_cannot_follow_are_refused(settings: dict[str, Any], key: str) -> None:
    with pytest.raises(InvalidSetting, match=key):
        load(DataSettings(**settings))


def test_an_entry_point_of_another_package_adds_a_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "other_package.py").write_text(
        "import numpy\n"
        "def load(settings):\n"
        "    labels = numpy.arange(30) % 3\n"
        "    return numpy.full((30, 1, 4, 4), settings.seed, dtype='uint8'), labels\n"
    )
    info = tmp_path / "other_package-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Name: other-package\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[kdsearch.datasets]\nothers = other_package:load\n")
    monkeypatch.syspath_prepend(tmp_path)
    data = load(DataSettings(name="others", seed=7))
    assert images_of(data, "train").unique().tolist() == [7]
    assert "others" in names()


def test_resolve_takes_given_values_then_recommended_ones_then_none_at_all() -> None:
    given = AugmentationSettings(crop=0, cutmix=0.5)
    resolved = resolve(given, AugmentationSettings(crop=4, flip=True))
    expected = AugmentationSettings(crop=0, flip=True, color_jitter=0, cutout=0, cutmix=0.5)
    assert resolved == expected


def test_facts_count_the_samples_that_are_alone_in_their_class() -> None:
    data = digits(label_fraction=0.001)
    known = facts(data, steps=27, epochs=9)
    assert (known.classes, known.channels, known.size, known.steps, known.epochs) == (10, 1, (8, 8), 27, 9)
    assert (known.samples, known.without_partner) == (10, 10)
    assert facts(digits(), steps=1, epochs=1, size=(32, 32)).without_partner == 0
    assert facts(digits(), steps=1, epochs=1, size=(32, 32)).size == (32, 32)


def test_scarce_classes_are_named_with_their_count(tmp_path: Path) -> None:
    source = tmp_path / "scarce.py"
    source.write_text(
        "import numpy\n"
        "def splits():\n"
        "    labels = numpy.array([0] * 20 + [1] * 20 + [2] * 2)\n"
        "    return {'train': (numpy.zeros((42, 8, 8), 'uint8'), labels), 'classes': ['ant', 'bee', 'cat']}\n"
    )
    with pytest.raises(BadData, match=r"class 'cat' has 2 image\(s\).*test and validation.*at least 3"):
        load(DataSettings(name=f"{source}:splits"))
