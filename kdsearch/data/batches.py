"""Training batches: a function of the seed and the epoch alone, so that a training resumes wherever an epoch begins."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from kdsearch.data.augmentation import mix, mix_targets
from kdsearch.data.base import Batch
from kdsearch.data.draws import draw_mix, mix_draws, view_draws
from kdsearch.data.partners import Partners
from kdsearch.data.preprocessing import preprocess
from kdsearch.data.randomness import stream, torch_seed
from kdsearch.data.splits import MemorySplit, resident
from kdsearch.data.views import Views
from kdsearch.errors import InvalidSetting

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from kdsearch.data.base import Batching, DataSet
    from kdsearch.settings import AugmentationSettings

__all__ = ["Batches", "preprocess"]


class Batches:
    """The training part of a data set as augmented, normalised batches on a device.

    Pixels in the augmentation (`kdsearch.data.resolve`) are those of the data set's images.

    An image is cropped and flipped, jittered, resized, normalised, cut out, then mixed. Image and partner are augmented
    by themselves; mixed, they share λ and box, and the partner is mixed with the partner of the image's mixing partner.
    All draws are made on the host from (seed, epoch, step): neither an earlier epoch nor what a method draws nor the
    device changes them. Those of the views come from the bank of views, where the teacher was asked about one.

    Raises InvalidSetting for an augmentation that these images cannot have.
    """

    def __init__(
        self,
        data: DataSet,
        batching: Batching,
    ) -> None:
        augmentation, size, device = batching.augmentation, batching.size or data.size, batching.device
        _check(augmentation, data)
        self.batch_size = min(batching.batch_size, len(data.train))
        self.steps = len(data.train) // self.batch_size
        self._data = data
        self._split = resident(data.train, device)
        self._augmentation = augmentation
        self._views = Views(data, augmentation, size, device)
        self._mixes = augmentation.cutmix + augmentation.mixup > 0
        self._seed = batching.seed
        self._device = device
        self._size = size
        self._memory_format = batching.memory_format
        self._partners = Partners(data.train.targets.numpy()) if batching.partners else None
        self._targets = data.train.targets.to(device)
        self._one_hot = torch.eye(len(data.classes), device=device)
        known = batching.taught
        self._taught = known.on(device) if known is not None and known.fits(augmentation) else None
        self._bank = None if self._taught is None else self._taught.bank
        self._banked = None if self._bank is None else self._bank.draw(self._views, len(data.train))
        if self._partners is not None:
            self._has_partner = torch.from_numpy(~self._partners.alone).to(device)

    def epoch(self, number: int) -> Iterator[Batch]:
        """The `steps` batches of epoch `number`, from 0."""
        order = self._order(number)
        rows = order if self._bank is None else self._bank.rows(len(self._data.train), number, self._seed)[order]
        batches = self._batches(torch.from_numpy(order), rows, number)
        if self._taught is None:
            return batches
        return self._taught.along(batches, torch.from_numpy(rows[:, : self.batch_size]))

    def _batches(self, order: torch.Tensor, rows: NDArray[np.int64], number: int) -> Iterator[Batch]:
        if isinstance(self._split, MemorySplit):
            order = order.to(self._split.images.device, non_blocking=True)  # once, not at every step
        for step, (index, images) in enumerate(zip(order, self._split.fetch(order), strict=True)):
            yield self._batch(images, index[: self.batch_size], rows[step], (number, step))

    def _order(self, number: int) -> NDArray[np.int64]:
        """Indices of the samples of each step [steps, B]; followed by those of their partners [steps, 2B]."""
        random = stream(self._seed, "order", number)
        order = random.permutation(len(self._data.train))[: self.steps * self.batch_size].reshape(self.steps, -1)
        if self._partners is None:
            return order
        return np.concatenate([order, self._partners.draw(order, random)], axis=1)

    def _batch(
        self, images: torch.Tensor, index: torch.Tensor, rows: NDArray[np.int64], when: tuple[int, int]
    ) -> Batch:
        random = stream(self._seed, "augmentation", *when)
        samples = self.batch_size
        if self._banked is None:
            drawn = self._views.draw(2 * samples, random)[:, : len(images)]
        else:
            drawn = self._banked[:, rows]
        views = self._views.of(images.to(self._device, non_blocking=True), view_draws(drawn, self._device))
        index = index.to(self._device, non_blocking=True)
        targets = self._one_hot.index_select(0, self._targets[index])
        if self._mixes:
            draws = mix_draws(draw_mix(self._augmentation, self._size, samples, random), self._device)
            views = mix(views.view(-1, samples, *views.shape[1:]), draws).flatten(0, 1)
            targets = mix_targets(targets, draws)
        views = views.contiguous(memory_format=self._memory_format)
        generator = torch.Generator(self._device)
        generator.manual_seed(torch_seed(self._seed, "generator", *when))
        if self._partners is None:
            return Batch(views, targets, generator)
        return Batch(views[:samples], targets, generator, views[samples:], self._has_partner[index])


def _check(augmentation: AugmentationSettings, data: DataSet) -> None:
    side = min(data.size)
    images = f"the images of {data.name!r} are {data.size[0]}×{data.size[1]}"
    if augmentation.crop and augmentation.crop >= side:
        raise InvalidSetting("augmentation.crop", augmentation.crop, f"must be below their side: {images}")
    if augmentation.cutout and augmentation.cutout > side:
        raise InvalidSetting("augmentation.cutout", augmentation.cutout, f"must not exceed their side: {images}")
    if augmentation.color_jitter and data.channels != 3:
        raise InvalidSetting(
            "augmentation.color_jitter",
            augmentation.color_jitter,
            f"the images of {data.name!r} have {data.channels} channel(s): only those with 3 have colours to vary",
        )
