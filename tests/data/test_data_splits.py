"""Splits in memory are shared without a copy; streamed ones give the same images."""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from kdsearch.data import Batching, DataSet, load, resolve
from kdsearch.data.batches import Batches
from kdsearch.data.splits import MemorySplit, StreamedSplit, evaluation_batches, resident
from kdsearch.errors import BadData
from kdsearch.settings import AugmentationSettings, DataSettings

CPU = torch.device("cpu")


def streamed(root: Path, workers: int, **settings: Any) -> DataSet:
    return load(DataSettings(name="folder", root=str(root), in_memory=False, workers=workers, **settings))


def test_a_pickled_split_shares_its_memory_and_may_be_read_only() -> None:
    data = load(DataSettings(name="digits"))
    buffers: list[pickle.PickleBuffer] = []
    content = pickle.dumps(data, protocol=5, buffer_callback=buffers.append)
    assert len(content) < 4096  # no image travels in the stream itself
    read_only = [memoryview(bytes(buffer.raw())) for buffer in buffers]  # as an object store hands them out
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        again = pickle.loads(content, buffers=read_only)
    assert isinstance(data.train, MemorySplit)
    assert torch.equal(again.train.images, data.train.images)
    assert torch.equal(again.test.targets, data.test.targets)
    starts = {np.frombuffer(view, np.uint8).__array_interface__["data"][0] for view in read_only}
    assert again.train.images.data_ptr() in starts
    # Nothing that training and evaluation do needs to write there.
    augmentation = resolve(AugmentationSettings(crop=1, cutout=2), data.augmentation)
    batches = Batches(again, Batching(32, augmentation, seed=0, device=CPU, partners=True))
    assert sum(len(batch.images) for batch in batches.epoch(0)) == 33 * 32


def test_fetch_gives_the_images_of_each_batch_of_indices_in_order() -> None:
    images = torch.arange(10, dtype=torch.uint8).view(10, 1, 1, 1)
    split = MemorySplit(images, torch.zeros(10, dtype=torch.int64))
    asked = [torch.tensor([3, 3, 9]), torch.tensor([0])]
    assert [batch.flatten().tolist() for batch in split.fetch(asked)] == [[3, 3, 9], [0]]


def test_evaluation_sees_every_image_once_in_order() -> None:
    split = load(DataSettings(name="digits")).validation
    assert isinstance(split, MemorySplit)
    seen = list(evaluation_batches(split, 100, CPU))
    assert [len(images) for images, _ in seen] == [100, 100, 100, 60]
    assert torch.equal(torch.cat([images for images, _ in seen]), split.images)
    assert torch.equal(torch.cat([targets for _, targets in seen]), split.targets)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_streamed_epoch_equals_the_same_epoch_in_memory(tree: Path, workers: int) -> None:
    held = load(DataSettings(name="folder", root=str(tree), image_size=10))
    flowing = streamed(tree, workers, image_size=10)
    assert isinstance(held.train, MemorySplit)
    assert isinstance(flowing.train, StreamedSplit)
    assert (held.mean, held.std, held.size) == (flowing.mean, flowing.std, flowing.size)
    augmentation = resolve(AugmentationSettings(cutmix=0.5, color_jitter=0.3), held.augmentation)
    batching = Batching(4, augmentation, seed=5, device=CPU, partners=True, size=(10, 10))
    one, other = (list(Batches(data, batching).epoch(3)) for data in (held, flowing))
    assert len(one) == len(other) == 4
    for batch, same in zip(one, other, strict=True):
        assert torch.equal(batch.images, same.images)
        assert batch.partners is not None
        assert same.partners is not None
        assert torch.equal(batch.partners, same.partners)
        assert torch.equal(batch.targets, same.targets)


def test_streaming_draws_nothing_from_the_global_generator(tree: Path) -> None:
    data = streamed(tree, workers=0)
    torch.manual_seed(0)
    before = torch.get_rng_state()
    list(data.train.fetch([torch.arange(3)]))
    assert torch.equal(torch.get_rng_state(), before)


def test_two_streams_of_one_split_do_not_disturb_each_other(tree: Path) -> None:
    split = streamed(tree, workers=1).train
    order = torch.arange(len(split)).split(2)
    expected = list(split.fetch(order))
    for together in zip(split.fetch(order), split.fetch(order), strict=True):
        assert torch.equal(*together)
    assert len(expected) == 9


@pytest.mark.parametrize("workers", [0, 1])
def test_a_file_that_becomes_unreadable_is_named_without_a_traceback(tree: Path, workers: int) -> None:
    data = streamed(tree, workers)
    (tree / "cat" / "1.png").write_bytes(b"overwritten")
    splits = (data.train, data.validation, data.test)
    with pytest.raises(BadData) as refusal:
        [list(split.fetch(torch.arange(len(split)).split(5))) for split in splits]
    assert "cat/1.png cannot be read as an image" in str(refusal.value)
    assert "Traceback" not in str(refusal.value)


def test_sets_that_do_not_fit_are_streamed(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kinds = []
    for limit in (30 * 3 * 12 * 12, 30 * 3 * 12 * 12 + 1):
        monkeypatch.setattr("kdsearch.data.loading.IN_MEMORY_BYTES", limit)
        kinds.append(type(load(DataSettings(name="folder", root=str(tree), workers=0)).train))
    assert kinds == [StreamedSplit, MemorySplit]


@pytest.mark.needs_gpu
def test_a_resident_split_is_copied_once_and_gives_the_same_images() -> None:
    split = load(DataSettings(name="digits")).train
    device = torch.device("cuda")
    there = resident(split, device)
    assert isinstance(split, MemorySplit)
    assert isinstance(there, MemorySplit)
    assert there.images.is_cuda
    assert resident(split, device) is there
    assert resident(there, device) is there
    index = torch.tensor([5, 0, 7])
    assert torch.equal(next(there.fetch([index])).cpu(), next(split.fetch([index])))


@pytest.mark.needs_gpu
def test_batches_on_a_gpu_never_wait_for_it_and_equal_those_on_a_cpu(make_data: Callable[..., DataSet]) -> None:
    random = np.random.default_rng(0)
    data = make_data(random.integers(0, 256, (64, 3, 32, 32)), np.arange(64) % 5)
    augmentation = AugmentationSettings(crop=4, flip=True, color_jitter=0.3, cutout=8, cutmix=0.4, mixup=0.4)
    host = Batching(16, augmentation, seed=0, device=CPU, partners=True, size=(40, 40))
    there = Batches(data, replace(host, device=torch.device("cuda")))
    list(there.epoch(0))
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        epoch = there.epoch(1)
        seen = [next(epoch)]  # the order of an epoch goes there once, before its first step
        seen += list(epoch)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    for batch, same in zip(seen, Batches(data, host).epoch(1), strict=True):
        torch.testing.assert_close(batch.images.cpu(), same.images, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(batch.targets.cpu(), same.targets)
