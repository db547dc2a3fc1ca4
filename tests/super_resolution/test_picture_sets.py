"""Pictures to enlarge: sets, splits and patches, and the mistakes a person can make with them."""

from __future__ import annotations

import pickle
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from kdsearch import data as data_sets
from kdsearch.data import Batching
from kdsearch.data.base import Batch, DataSet
from kdsearch.data.restoration.batches import PatchBatches
from kdsearch.data.restoration.loading import restoration_dataset
from kdsearch.data.restoration.splits import PictureSplit
from kdsearch.errors import BadData, InvalidSetting, UnknownName, UserError
from kdsearch.settings import AugmentationSettings, DataSettings
from tests.super_resolution.conftest import Picture, picture, save

CPU = torch.device("cpu")


def batches(data: DataSet, batch_size: int = 4, seed: int = 0, flip: bool = False) -> PatchBatches:
    augmentation = AugmentationSettings(flip=flip, crop=0, color_jitter=0.0)
    return PatchBatches(data, Batching(batch_size, augmentation, seed, CPU))


def pictures(data: DataSet) -> PictureSplit:
    assert isinstance(data.train, PictureSplit)
    return data.train


def pairs(batch: Batch) -> Iterator[tuple[Picture, Picture]]:
    for low, high in zip(batch.images, batch.targets, strict=True):
        yield ((image * 255).round().to(torch.uint8).numpy() for image in (low, high))  # type: ignore[misc]


def moves(image: Picture) -> list[Picture]:
    """The picture as it is, and its seven turns and reflections."""
    turned = [np.rot90(image, quarter, (1, 2)) for quarter in range(4)]
    return [*turned, *(each[:, :, ::-1] for each in turned)]


def found_in(split: PictureSplit, low: Picture, high: Picture) -> bool:
    """Whether a pair of patches lies at one and the same place of some picture in both resolutions."""
    scale, side = split.degradation.scale, high.shape[1]
    for small, large in split.pairs():
        windows = np.lib.stride_tricks.sliding_window_view(large.numpy(), (3, side, side))[0, ::scale, ::scale]
        places = np.argwhere((windows == high).all((2, 3, 4)))
        for top, left in places:
            cut = small.numpy()[:, top : top + side // scale, left : left + side // scale]
            if np.abs(cut.astype(int) - low).max() <= 1 and (cut == low).mean() > 0.97:
                return True
    return False


@pytest.mark.parametrize("settings", [{"scale": 2}, {"scale": 4, "blur": 1.0}, {"scale": 3, "patch_size": 18}])
def test_a_patch_is_a_cut_of_the_picture_and_of_its_low_resolution_version(
    settings: dict[str, float], small_set: Callable[..., DataSet]
) -> None:
    data = small_set(**settings)
    for batch in batches(data).epoch(0):
        assert all(found_in(pictures(data), low, high) for low, high in pairs(batch))


def test_both_patches_are_turned_and_mirrored_alike_in_all_eight_ways(small_set: Callable[..., DataSet]) -> None:
    data = small_set(samples=64)
    seen: Counter[int] = Counter()
    for batch in batches(data, flip=True).epoch(0):
        for low, high in pairs(batch):
            ways = [
                way for way, pair in enumerate(zip(moves(low), moves(high), strict=True)) if found_in(data.train, *pair)
            ]
            assert len(ways) == 1
            seen.update(ways)
    assert set(seen) == set(range(8))


def test_batches_are_a_function_of_seed_and_epoch(small_set: Callable[..., DataSet]) -> None:
    data = small_set(noise=3.0)
    one, again = (list(batches(data, seed=5, flip=True).epoch(2)) for _ in range(2))
    assert len(one) == batches(data).steps == 6
    for first, second in zip(one, again, strict=True):
        assert torch.equal(first.images, second.images)
        assert torch.equal(first.targets, second.targets)
    for seed, epoch in ((6, 2), (5, 3)):
        other = next(iter(batches(data, seed=seed, flip=True).epoch(epoch)))
        assert not torch.equal(one[0].images, other.images)


def test_pictures_in_memory_and_streamed_ones_give_the_same_batches(tmp_path: Path) -> None:
    for place in range(5):
        save(picture(40 + place, 48, seed=place), tmp_path / f"{place}.png")
    settings = {"name": "images", "root": str(tmp_path), "scale": 2, "patch_size": 16, "samples": 12, "noise": 2.0}
    held, streamed = (
        data_sets.load(DataSettings(**settings, in_memory=in_memory, workers=1), "super_resolution")
        for in_memory in (True, False)
    )
    for one, other in zip(batches(held).epoch(1), batches(streamed).epoch(1), strict=True):
        assert torch.equal(one.images, other.images)
        assert torch.equal(one.targets, other.targets)
    for one, other in zip(held.validation.pairs(), streamed.validation.pairs(), strict=True):
        assert all(map(torch.equal, one, other))


def test_every_picture_gives_as_many_patches_as_any_other() -> None:
    found = [np.full((3, 32 + 8 * place, 64), 10 * place, dtype=np.uint8) for place in range(8)]
    settings = DataSettings(name="flat", scale=2, patch_size=16, samples=30)
    data = restoration_dataset({"train": found[:6], "val": found[6:7], "test": found[7:]}, settings)
    grey = [round(255 * float(target.mean())) for batch in batches(data, 5).epoch(0) for target in batch.targets]
    assert Counter(grey) == {10 * place: 5 for place in range(6)}


def test_what_the_data_set_says_of_itself(small_set: Callable[..., DataSet]) -> None:
    data = small_set(scale=4, patch_size=32)
    assert (data.scale, data.size, data.channels, data.classes) == (4, (8, 8), 3, ())
    assert (data.mean, data.std) == ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    batch = next(iter(batches(data).epoch(0)))
    assert batch.images.shape == (4, 3, 8, 8)
    assert batch.targets.shape == (4, 3, 32, 32)
    assert 0 <= batch.images.min() <= batch.images.max() <= 1
    assert data_sets.facts(data, steps=6, epochs=1).size == (8, 8)


def test_sides_that_are_no_multiple_of_the_scale_are_cut_for_evaluation(small_set: Callable[..., DataSet]) -> None:
    low, high = small_set(scale=4).validation.pair(0)  # type: ignore[attr-defined]
    assert high.shape == (3, 64, 68)  # of 66×70
    assert low.shape == (3, 16, 17)
    assert torch.equal(high, torch.from_numpy(picture(66, 70, seed=100))[:, :64, :68])


def test_the_noise_of_an_evaluated_picture_is_always_the_same(small_set: Callable[..., DataSet]) -> None:
    one, again = (small_set(noise=8.0).validation.pair(0)[0] for _ in range(2))  # type: ignore[attr-defined]
    clean = small_set().validation.pair(0)[0]  # type: ignore[attr-defined]
    assert torch.equal(one, again)
    assert (one.float() - clean.float()).std() == pytest.approx(8.0, rel=0.1)


def test_a_set_in_memory_is_handed_to_another_process_without_a_copy(small_set: Callable[..., DataSet]) -> None:
    data = small_set()
    shared: list[pickle.PickleBuffer] = []
    again: DataSet = pickle.loads(pickle.dumps(data, protocol=5, buffer_callback=shared.append), buffers=shared)
    assert len(shared) >= 5
    assert np.shares_memory(again.train.part.read(0), data.train.part.read(0))  # type: ignore[attr-defined]


def test_the_photographs_need_no_download_and_are_apart() -> None:
    from kdsearch.data.sets import photographs

    data = data_sets.load(DataSettings(name="photographs"), "super_resolution")
    assert [len(part) for part in (data.train, data.validation, data.test)] == [8, 2, 2]
    names = [*photographs.TRAIN, *photographs.VALIDATION, *photographs.TEST]
    assert len(set(names)) == len(names)
    assert data.size == (16, 16), "patches of 64 pixels, four times smaller"
    coffee = data.test.pair(0)[1]  # type: ignore[attr-defined]
    import skimage.data

    assert torch.equal(coffee, torch.from_numpy(skimage.data.coffee()[:400, :600].transpose(2, 0, 1).copy()))


def test_a_folder_laid_out_as_div2k_tests_on_its_validation_part(tmp_path: Path) -> None:
    for place in range(5):
        save(picture(64, 64, place), tmp_path / "DIV2K_train_HR" / f"{place:04d}.png")
    save(picture(70, 64, 9), tmp_path / "DIV2K_valid_HR" / "0801.png")
    save(picture(16, 16, 9), tmp_path / "DIV2K_train_LR_bicubic" / "X4" / "0001x4.png")
    settings = DataSettings(name="images", root=str(tmp_path), patch_size=32)
    data = data_sets.load(settings, "super_resolution")
    assert [len(part) for part in (data.train, data.validation, data.test)] == [4, 1, 1]
    assert data.test.pair(0)[1].shape == (3, 68, 64)  # type: ignore[attr-defined]


def test_one_folder_is_divided_by_the_seed(tmp_path: Path) -> None:
    for place in range(10):
        save(picture(64, 64, place), tmp_path / "deep" / f"{place}.png")
    settings = {"name": "images", "root": str(tmp_path), "patch_size": 32}
    one, again, other = (data_sets.load(DataSettings(**settings, seed=seed), "super_resolution") for seed in (0, 0, 1))
    names = [{part.part.name(place) for place in range(len(part))} for part in (one.train, one.validation, one.test)]
    assert [len(part) for part in names] == [6, 2, 2]
    assert len(set.union(*names)) == 10
    assert [one.test.part.name(0), one.test.part.name(1)] == [again.test.part.name(0), again.test.part.name(1)]
    assert {other.test.part.name(place) for place in range(2)} != names[2]


def test_grey_transparent_and_deep_pictures_become_colour_of_8_bits(tmp_path: Path) -> None:
    grey, deep = picture(64, 64)[0], np.linspace(0, 65535, 64 * 64).reshape(64, 64).astype(np.uint16)
    Image.fromarray(grey).save(tmp_path / "a.png")
    Image.fromarray(deep).save(tmp_path / "b.png")
    clear = np.dstack(
        [np.full((64, 64, 3), 40, np.uint8), np.where(np.arange(64) < 32, 0, 255).astype(np.uint8)[None].repeat(64, 0)]
    )
    Image.fromarray(clear).save(tmp_path / "c.png")
    settings = DataSettings(name="images", root=str(tmp_path), patch_size=32)
    data = data_sets.load(settings, "super_resolution")
    read = {}
    for part in (data.train, data.validation, data.test):
        read |= {Path(part.part.name(place)).name: part.part.read(place) for place in range(len(part))}  # type: ignore[attr-defined]
    assert (read["a.png"] == grey).all()
    assert (read["b.png"] == np.round(deep / 257)).all()
    assert (read["c.png"][:, :, :32] == 255).all()
    assert (read["c.png"][:, :, 32:] == 40).all()


def test_a_persons_own_pictures_may_differ_in_size_and_kind() -> None:
    found = [
        picture(40, 44),
        picture(48, 40, 1).transpose(1, 2, 0),
        picture(40, 40, 2)[0],
        torch.from_numpy(picture(52, 40, 3)).float() / 255,
        Image.fromarray(picture(40, 60, 4).transpose(1, 2, 0)),
    ]
    data = restoration_dataset(
        {"train": found, "val": [found[0]], "test": [found[1]]}, DataSettings(scale=2, patch_size=16)
    )
    part = data.train.part  # type: ignore[attr-defined]
    assert [part.size(place) for place in range(5)] == [(40, 44), (48, 40), (40, 40), (52, 40), (40, 60)]
    assert (part.read(1) == picture(48, 40, 1)).all()
    assert (part.read(2) == picture(40, 40, 2)[0]).all()
    assert (part.read(3) == picture(52, 40, 3)).all()


def folder(path: Path, *sizes: tuple[int, int]) -> dict[str, str]:
    for place, (height, width) in enumerate(sizes):
        save(picture(height, width, place), path / f"{place}.png")
    path.mkdir(exist_ok=True)
    return {"name": "images", "root": str(path)}


LARGE = [(80, 80)] * 4


@pytest.mark.parametrize(
    ("sizes", "settings", "kind", "sentence"),
    [
        ([(80, 30)] * 5, {"patch_size": 48}, BadData, "png is 80×30: it needs 48×48 pixels to cut a patch"),
        (LARGE, {}, BadData, "png is 80×80: it needs 160×160 pixels to cut a patch"),
        (LARGE, {"patch_size": 30}, InvalidSetting, "data.patch_size = 30: must be a multiple of data.scale = 4"),
        (LARGE, {"patch_size": 8}, InvalidSetting, "data.patch_size = 8: must be at least 16"),
        ([(40, 40)] * 4, {"patch_size": 16}, BadData, "it needs 64×64 pixels to be evaluated at ×4"),
        ([(80, 80)] * 2, {"patch_size": 48}, BadData, "has 2 picture(s): too few to set test and validation apart"),
        (LARGE, {"patch_size": 48, "label_noise": 0.1}, InvalidSetting, "data.label_noise = 0.1"),
        (LARGE, {"patch_size": 48, "image_size": 64}, InvalidSetting, "data.image_size = 64"),
        (LARGE, {"patch_size": 48, "test_fraction": 0.9}, InvalidSetting, "must leave something to train on"),
        ([], {}, BadData, "is empty"),
    ],
)
def test_a_folder_that_cannot_be_used_is_refused(
    sizes: list[tuple[int, int]], settings: dict[str, float], kind: type[UserError], sentence: str, tmp_path: Path
) -> None:
    with pytest.raises(kind, match=r".") as caught:
        data_sets.load(DataSettings(**folder(tmp_path / "f", *sizes), **settings), "super_resolution")
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_folder_without_pictures_or_without_a_training_part_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no picture")
    with pytest.raises(BadData, match="holds no pictures"):
        data_sets.load(DataSettings(name="images", root=str(tmp_path)), "super_resolution")
    save(picture(64, 64), tmp_path / "val" / "a.png")
    with pytest.raises(BadData, match="'validation' but no 'train'"):
        data_sets.load(DataSettings(name="images", root=str(tmp_path)), "super_resolution")


def test_a_damaged_picture_is_named_held_or_streamed(tmp_path: Path) -> None:
    settings = folder(tmp_path / "f", *LARGE) | {"patch_size": "32"}
    whole = (tmp_path / "f" / "2.png").read_bytes()
    (tmp_path / "f" / "2.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(BadData, match=r"2\.png cannot be read as an image"):
        data_sets.load(DataSettings(**settings), "super_resolution")
    streamed = data_sets.load(
        DataSettings(**settings, in_memory=False, workers=1, seed=2),
        "super_resolution",
    )
    assert "2.png" in {Path(streamed.train.part.name(place)).name for place in range(len(streamed.train))}
    with pytest.raises(BadData, match=r"2\.png cannot be read as an image"):
        list(batches(streamed).epoch(0))


@pytest.mark.parametrize(
    "augmentation", [{"cutmix": 0.5}, {"mixup": 0.5}, {"crop": 4}, {"cutout": 4}, {"color_jitter": 0.2}]
)
def test_augmentation_that_would_falsify_the_truth_is_refused(
    augmentation: dict[str, float], small_set: Callable[..., DataSet]
) -> None:
    (name,) = augmentation
    with pytest.raises(InvalidSetting, match=f"augmentation.{name}"):
        PatchBatches(small_set(), Batching(4, AugmentationSettings(**augmentation), seed=0, device=CPU))


def test_a_set_of_another_task_and_its_settings_are_refused() -> None:
    with pytest.raises(InvalidSetting, match="digits"):
        data_sets.load(DataSettings(name="digits"), "super_resolution")
    with pytest.raises(InvalidSetting, match="photographs"):
        data_sets.load(DataSettings(name="photographs"), "classification")
    with pytest.raises(InvalidSetting, match=r"data\.scale = 2"):
        data_sets.load(DataSettings(name="digits", scale=2))
    with pytest.raises(UnknownName, match="split of 'mine'"):
        restoration_dataset({"train": [picture(32, 32)], "vali": []}, DataSettings(name="mine"))
    with pytest.raises(BadData, match="it must return a list of pictures"):
        restoration_dataset(3, DataSettings(name="mine"))
