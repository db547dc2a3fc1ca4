"""Training batches for super-resolution: pairs of patches, a function of the seed and the epoch alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from kdsearch.data.base import Batch
from kdsearch.data.preprocessing import to_unit
from kdsearch.data.randomness import stream, torch_seed
from kdsearch.data.restoration.splits import PictureSplit
from kdsearch.errors import InvalidSetting

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from kdsearch.data.base import Batching, DataSet
    from kdsearch.settings import AugmentationSettings


class PatchBatches:
    """Random patches of the training pictures in low and in high resolution, on a device.

    Args:
        data: the data set; its `size` is that of the low-resolution patches.
        batching: of its augmentation `flip` mirrors each patch, and turns it by 90°, with probability 1/2; nothing else
            is for pictures whose every pixel is the truth. Patches are degraded on its device.

    Every picture gives as many patches an epoch as any other, or one more. A patch lies where the low-resolution
    picture has whole pixels and is degraded with what surrounds it, so that it equals a cut of the degraded picture.
    All draws are made on the host from (seed, epoch, step). Raises InvalidSetting for another augmentation.
    """

    def __init__(
        self,
        data: DataSet,
        batching: Batching,
    ) -> None:
        assert isinstance(data.train, PictureSplit), f"{data.name} has no pictures to cut patches from"
        _check(batching.augmentation)
        self._split = data.train
        self._degradation = data.train.degradation
        self._side = data.size[0] * data.scale
        self._room = np.array([self._places(place) for place in range(len(data.train))])
        self.batch_size = min(batching.batch_size, data.train.samples)
        self.steps = data.train.samples // self.batch_size
        self._flip = bool(batching.augmentation.flip)
        self._seed = batching.seed
        self._device = batching.device
        self._memory_format = batching.memory_format

    def _places(self, place: int) -> tuple[int, int]:
        """How many tops and lefts a patch of a picture may have, in low-resolution pixels."""
        height, width = ((side - self._side) // self._degradation.scale + 1 for side in self._split.part.size(place))
        return height, width

    def epoch(self, number: int) -> Iterator[Batch]:
        """The `steps` batches of epoch `number`, from 0."""
        places = self._draw(number)
        for step, patches in enumerate(self._split.patches(iter(places), self._side)):
            yield self._batch(patches.to(self._device, non_blocking=True), (number, step))

    def _draw(self, number: int) -> NDArray[np.int64]:
        """Picture, top and left of each patch: [steps, B, 3]."""
        random = stream(self._seed, "order", number)
        count, pictures = self.steps * self.batch_size, len(self._split)
        rounds = [random.permutation(pictures) for _ in range(-(-count // pictures))]
        chosen = np.concatenate(rounds)[:count]
        corners = random.integers(0, self._room[chosen]) * self._degradation.scale
        return np.column_stack([chosen, corners]).reshape(self.steps, self.batch_size, 3)

    def _batch(self, patches: torch.Tensor, when: tuple[int, int]) -> Batch:
        margin = self._degradation.margin
        high = patches[..., margin:-margin, margin:-margin]
        noise = self._degradation.draw(tuple(high.shape), stream(self._seed, "noise", *when))
        low = self._degradation(patches, None if noise is None else noise.to(self._device))
        if self._flip:
            moves = stream(self._seed, "augmentation", *when).random((3, len(patches))) < 0.5
            low, high = (_move(images, torch.from_numpy(moves).to(self._device)) for images in (low, high))
        generator = torch.Generator(self._device)
        generator.manual_seed(torch_seed(self._seed, "generator", *when))
        images = to_unit(low).contiguous(memory_format=self._memory_format)
        return Batch(images, to_unit(high).contiguous(memory_format=self._memory_format), generator)


def _move(images: torch.Tensor, moves: torch.Tensor) -> torch.Tensor:
    """Squares [B, C, S, S], each mirrored, turned upside down and transposed as bool [3, B] says."""
    horizontal, vertical, transposed = moves.view(3, -1, 1, 1, 1)
    images = torch.where(horizontal, images.flip(3), images)
    images = torch.where(vertical, images.flip(2), images)
    return torch.where(transposed, images.transpose(2, 3), images)


def _check(augmentation: AugmentationSettings) -> None:
    for name in ("crop", "color_jitter", "cutout", "cutmix", "mixup"):
        value = getattr(augmentation, name)
        if value:
            why = "is not for super-resolution, whose patches are cut at random, flipped and turned (augmentation.flip)"
            raise InvalidSetting(f"augmentation.{name}", value, why)
