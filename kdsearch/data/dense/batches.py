"""Training batches of dense tasks: as those of classification, with a truth that moves along with its image."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch

from kdsearch.data.base import Batch
from kdsearch.data.dense.splits import DenseMemorySplit, DenseSplit
from kdsearch.data.draws import ViewDraws, view_draws
from kdsearch.data.partners import Partners
from kdsearch.data.randomness import stream, torch_seed
from kdsearch.data.views import Views
from kdsearch.errors import BadData, InvalidSetting

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from kdsearch.data.base import Batching, DataSet
    from kdsearch.settings import AugmentationSettings


class Move(Protocol):
    """How truths [V, ...] follow their images."""

    def __call__(self, truth: torch.Tensor, draws: ViewDraws, padding: int) -> torch.Tensor: ...


class DenseBatches:
    """The training part of a dense set as augmented, normalised batches on a device.

    An image is cropped and flipped (its truth with it), jittered, normalised. All draws are made on the host from
    (seed, epoch, step), as in `kdsearch.data.batches`.

    Args:
        data: the data set, whose training part is a DenseSplit.
        move: how a truth follows a crop and a flip.
        batching: of its augmentation crop, flip and color_jitter are used; images are never resized.

    Raises InvalidSetting for an augmentation that has no rule for such truths, or that these images cannot have, and
    BadData for a single training image.
    """

    def __init__(
        self,
        data: DataSet,
        move: Move,
        batching: Batching,
    ) -> None:
        _check(batching.augmentation, data)
        assert isinstance(data.train, DenseSplit), f"{data.name} is no set for a dense task"
        split, device = data.train, batching.device
        self.batch_size = min(batching.batch_size, len(split))
        self.steps = len(split) // self.batch_size
        self._split = split.on(device) if isinstance(split, DenseMemorySplit) else split
        self._move = move
        self._augmentation = batching.augmentation
        self._seed = batching.seed
        self._device = device
        self._memory_format = batching.memory_format
        self._views = Views(data, batching.augmentation, data.size, device)
        self._partners = Partners(split.targets.numpy()) if batching.partners else None
        if self._partners is not None:
            self._has_partner = torch.from_numpy(~self._partners.alone).to(device)
        known = batching.taught
        self._taught = known.on(device) if known is not None and known.fits(batching.augmentation) else None

    def epoch(self, number: int) -> Iterator[Batch]:
        """The `steps` batches of epoch `number`, from 0."""
        order = torch.from_numpy(self._order(number))
        batches = self._batches(order, number)
        return batches if self._taught is None else self._taught.along(batches, order[:, : self.batch_size])

    def _batches(self, order: torch.Tensor, number: int) -> Iterator[Batch]:
        for step, (index, (images, truths)) in enumerate(zip(order, self._split.fetch_pairs(order), strict=True)):
            yield self._batch(images, truths, index[: self.batch_size], (number, step))

    def _order(self, number: int) -> NDArray[np.int64]:
        """Indices of the samples of each step [steps, B]; followed by those of their partners [steps, 2B]."""
        random = stream(self._seed, "order", number)
        order = random.permutation(len(self._split))[: self.steps * self.batch_size].reshape(self.steps, -1)
        if self._partners is None:
            return order
        return np.concatenate([order, self._partners.draw(order, random)], axis=1)

    def _batch(self, images: torch.Tensor, truths: torch.Tensor, index: torch.Tensor, when: tuple[int, int]) -> Batch:
        random = stream(self._seed, "augmentation", *when)
        samples = self.batch_size
        drawn = self._views.draw(2 * samples, random)
        draws = view_draws(drawn[:, : len(images)], self._device)
        images, truths = (tensor.to(self._device, non_blocking=True) for tensor in (images, truths))
        views, targets = self._augment(images, truths, draws)
        generator = torch.Generator(self._device)
        generator.manual_seed(torch_seed(self._seed, "generator", *when))
        if self._partners is None:
            return Batch(views, targets, generator)
        has_partner = self._has_partner[index.to(self._device, non_blocking=True)]
        return Batch(views[:samples], targets[:samples], generator, views[samples:], has_partner, targets[samples:])

    def _augment(
        self, images: torch.Tensor, truths: torch.Tensor, draws: ViewDraws
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """uint8 [V, C, H, W] and truths → normalised float [V, C, H, W] and moved truths."""
        settings = self._augmentation
        if settings.crop or settings.flip:
            truths = self._move(truths, draws, settings.crop or 0)
        return self._views.of(images, draws).contiguous(memory_format=self._memory_format), truths


def _check(augmentation: AugmentationSettings, data: DataSet) -> None:
    if len(data.train) < 2:
        raise BadData(f"{data.name!r} has one training image: networks that normalise over a batch need at least two")
    for name in ("cutout", "cutmix", "mixup"):
        value = getattr(augmentation, name)
        if value:
            raise InvalidSetting(f"augmentation.{name}", value, f"has no rule for {data.task}: leave it at 0")
    if augmentation.crop and augmentation.crop >= min(data.size):
        size = f"{data.size[0]}×{data.size[1]}"
        raise InvalidSetting("augmentation.crop", augmentation.crop, f"must be below the side of the images, {size}")
    if augmentation.color_jitter and data.channels != 3:
        raise InvalidSetting(
            "augmentation.color_jitter",
            augmentation.color_jitter,
            f"the images of {data.name!r} have {data.channels} channel(s): only those with 3 have colours to vary",
        )
