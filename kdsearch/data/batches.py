"""Training batches: a function of the seed and the epoch alone, so that a training resumes wherever an epoch begins."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from kdsearch.data.augmentation import color_jitter_, crop_and_flip, cutout_, mix, mix_targets
from kdsearch.data.base import Batch
from kdsearch.data.draws import draw_mix, draw_views, mix_draws, view_draws
from kdsearch.data.partners import Partners
from kdsearch.data.preprocessing import normalise_, preprocess, resize, to_unit
from kdsearch.data.randomness import stream, torch_seed
from kdsearch.data.splits import MemorySplit, resident
from kdsearch.data.teacher_outputs import fixed_views
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
    device changes them.

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
        self._cutout = round((augmentation.cutout or 0) * min(size) / min(data.size))
        self._mixes = augmentation.cutmix + augmentation.mixup > 0
        self._seed = batching.seed
        self._device = device
        self._size = size
        self._memory_format = batching.memory_format
        self._mean, self._std = (
            torch.tensor(values, dtype=torch.float32, device=device) for values in (data.mean, data.std)
        )
        self._partners = Partners(data.train.targets.numpy()) if batching.partners else None
        self._targets = data.train.targets.to(device)
        self._one_hot = torch.eye(len(data.classes), device=device)
        known = batching.taught if fixed_views(augmentation) else None
        self._taught = None if known is None else known.on(device)
        if self._partners is not None:
            self._has_partner = torch.from_numpy(~self._partners.alone).to(device)

    def epoch(self, number: int) -> Iterator[Batch]:
        """The `steps` batches of epoch `number`, from 0."""
        order = torch.from_numpy(self._order(number))
        batches = self._batches(order, number)
        return batches if self._taught is None else self._taught.along(batches, order[:, : self.batch_size])

    def _batches(self, order: torch.Tensor, number: int) -> Iterator[Batch]:
        if isinstance(self._split, MemorySplit):
            order = order.to(self._split.images.device, non_blocking=True)  # once, not at every step
        for step, (index, images) in enumerate(zip(order, self._split.fetch(order), strict=True)):
            yield self._batch(images, index[: self.batch_size], (number, step))

    def _order(self, number: int) -> NDArray[np.int64]:
        """Indices of the samples of each step [steps, B]; followed by those of their partners [steps, 2B]."""
        random = stream(self._seed, "order", number)
        order = random.permutation(len(self._data.train))[: self.steps * self.batch_size].reshape(self.steps, -1)
        if self._partners is None:
            return order
        return np.concatenate([order, self._partners.draw(order, random)], axis=1)

    def _batch(self, images: torch.Tensor, index: torch.Tensor, when: tuple[int, int]) -> Batch:
        random = stream(self._seed, "augmentation", *when)
        samples = self.batch_size
        drawn = draw_views(self._augmentation, self._size, self._cutout, 2 * samples, random)
        views = self._augment(images.to(self._device, non_blocking=True), drawn[:, : len(images)])
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

    def _augment(self, images: torch.Tensor, drawn: NDArray[np.float32]) -> torch.Tensor:
        """uint8 [V, C, H, W] → normalised float [V, C, *size]."""
        settings = self._augmentation
        draws = view_draws(drawn, self._device)
        if settings.crop or settings.flip:
            images = crop_and_flip(images, draws.top, draws.left, draws.flip, settings.crop or 0)
        views = to_unit(images)
        if settings.color_jitter:
            views = color_jitter_(views, draws.brightness, draws.contrast, draws.saturation)
        views = normalise_(resize(views, self._size), self._mean, self._std)
        return cutout_(views, draws.box) if self._cutout else views


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
