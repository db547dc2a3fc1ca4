"""What a data set is to the rest of kdsearch, and what a training batch holds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    import torch

    from kdsearch.data.teacher_outputs import TeacherOutputs
    from kdsearch.settings import AugmentationSettings

IN_MEMORY_BYTES = 4 * 2**30
"""A set that takes less is held in memory unless a person says otherwise."""


class Split(Protocol):
    """One part of a data set: train, validation or test."""

    targets: torch.Tensor
    """int64 [N], class indices; of dense tasks the dominant class of each image."""

    def __len__(self) -> int: ...

    def fetch(self, batches: Iterable[torch.Tensor]) -> Iterator[torch.Tensor]:
        """Images, uint8 [b, C, H, W], for each int64 [b] of indices, in order."""
        ...


@dataclass(frozen=True)
class DataSet:
    """Three splits and the facts about them."""

    name: str
    task: str
    train: Split
    validation: Split
    test: Split
    classes: tuple[str, ...]
    channels: int
    size: tuple[int, int]
    """Height and width of the images."""
    mean: tuple[float, ...]
    """Per channel, of images scaled to [0, 1]; of the training part."""
    std: tuple[float, ...]
    augmentation: AugmentationSettings
    """What this set recommends; fields an experiment leaves at None take these."""
    scale: int = 1
    """How many times larger than the input the output is (super-resolution)."""


@dataclass(frozen=True)
class Facts:
    """What a method may know of the data and the budget when it is built."""

    classes: int
    channels: int
    size: tuple[int, int]
    steps: int
    """Optimiser steps of the full budget."""
    epochs: int
    samples: int = 0
    """Training samples."""
    without_partner: int = 0
    """Training samples that are alone in their class."""


@dataclass(frozen=True)
class Batch:
    """A training batch on the device, augmented and normalised for the student."""

    images: torch.Tensor
    """float [B, C, H, W]."""
    targets: torch.Tensor
    """Classification: float [B, K], a distribution over the classes (one-hot, or mixed by CutMix / Mixup). Dense
    tasks: the truth of each image in the format of the task, moved along with its pixels."""
    generator: torch.Generator
    """Source of all further randomness, on the device of the images."""
    partners: torch.Tensor | None = None
    """float [B, C, H, W]: another image of the same class, augmented likewise, mixed with the partner of the image's
    mixing partner under the same λ and box. Present when the method's `needs_partners` is set."""
    has_partner: torch.Tensor | None = None
    """bool [B]: False where a class has one single image (its partner is then the image itself)."""
    partner_targets: torch.Tensor | None = None
    """The partners' own truth, of dense tasks; a partner in classification has the image's label."""
    taught: torch.Tensor | None = None
    """float32 [B, K, ...]: what the teacher says of `images`, where it was asked once for the whole search; None: ask
    it. Whoever changes the images of a batch sets this to None."""


@dataclass(frozen=True)
class Batching:
    """How the training part becomes batches. The augmentation is resolved: no field that the task uses is at None."""

    batch_size: int
    """Samples a batch; an incomplete last one is dropped unless there is no other."""
    augmentation: AugmentationSettings
    seed: int
    """Of the order, the partners, the augmentation and the generators that the batches bring."""
    device: torch.device
    """Where the batches lie; a split that fits is copied there once."""
    partners: bool = False
    """Bring with every image another one of its class, or of its dominant class."""
    size: tuple[int, int] | None = None
    """Height and width of the network's input; None: as the images are."""
    channels_last: bool = False
    """Lay the images out in that memory format."""
    taught: TeacherOutputs | None = None
    """What a teacher says of the training images as they are, or of a bank of their views; the batches bring it along
    where the augmentation leaves all of them so, or is that of the bank, whose views they then show."""

    @property
    def memory_format(self) -> torch.memory_format:
        import torch

        return torch.channels_last if self.channels_last else torch.contiguous_format


class TrainingBatches(Protocol):
    """The training part as augmented batches: a function of the seed and the epoch alone."""

    steps: int
    """Batches an epoch."""
    batch_size: int

    def epoch(self, number: int) -> Iterator[Batch]:
        """The batches of epoch `number`, from 0."""
        ...
