"""From settings to a data set: found, checked, divided in three, thinned, made noisy, held or streamed."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from kdsearch.data.base import DataSet, Facts
from kdsearch.data.cutting import corrupt, cut
from kdsearch.data.finding import find
from kdsearch.data.own import as_source
from kdsearch.data.randomness import stream
from kdsearch.errors import BadData, InvalidSetting, UnknownName

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

    from kdsearch.data.base import Split
    from kdsearch.data.source import Part, Source
    from kdsearch.settings import AugmentationSettings, DataSettings

IN_MEMORY_BYTES = 4 * 2**30
STATISTICS_IMAGES = 2000


def load(settings: DataSettings, task: str = "classification") -> DataSet:
    """The data set of these settings, with three splits; `label_fraction` and `label_noise` act on train alone.

    Sets of less than 4 GiB as uint8 are read into memory (`settings.in_memory` overrides). Splits, fraction and noise
    are a function of `settings.seed`. Mean and standard deviation are those of the training images, all of them where
    they are in memory, else of 2,000 spread evenly over them.

    Raises UnknownName, InvalidSetting or BadData.
    """
    if task != "classification":
        raise UnknownName("task of a data set", task, ["classification"])
    source = as_source(find(settings.name)(settings), settings)
    parts = divide(source, settings)
    held = _held(settings, parts)
    train, validation, test = (part.split(held, settings.workers) for part in parts)
    channels, height, width = source.train.shape
    mean, std = _statistics(train)
    return DataSet(
        name=settings.name,
        task=task,
        train=train,
        validation=validation,
        test=test,
        classes=source.classes,
        channels=channels,
        size=(height, width),
        mean=mean,
        std=std,
        augmentation=source.augmentation,
    )


def divide(source: Source, settings: DataSettings) -> tuple[Part, Part, Part]:
    """Train, validation and test; what the source lacks is cut from its train part, stratified.

    Both fractions are shares of the train part as it came: 0.2 and 0.2 of an undivided set give 60/20/20.
    """
    shares = {"test": settings.test_fraction, "validation": settings.validation_fraction}
    parts = {"test": source.test, "validation": source.validation}
    missing = {name: share for name, share in shares.items() if parts[name] is None}
    if sum(missing.values()) >= 1:
        raise InvalidSetting(
            "data.validation_fraction + data.test_fraction", sum(missing.values()), "must leave something to train on"
        )
    _require_samples(source, list(missing))
    rest, samples = source.train, len(source.train.targets)
    for left, (name, share) in zip(range(len(missing), 0, -1), missing.items(), strict=True):
        chosen, others = cut(rest.targets, _ceil(share * samples), left, stream(settings.seed, name))
        parts[name], rest = rest.select(chosen), rest.select(others)
    validation, test = parts["validation"], parts["test"]
    assert validation is not None
    assert test is not None
    return _known(rest, settings, len(source.classes)), validation, test


def _ceil(value: float) -> int:
    return math.ceil(value - 1e-9)


def _require_samples(source: Source, missing: list[str]) -> None:
    counts = np.bincount(source.train.targets)
    scarcest = int(counts.argmin())
    if counts[scarcest] <= len(missing):
        raise BadData(
            f"class {source.classes[scarcest]!r} has {counts[scarcest]} image(s), but to cut {' and '.join(missing)} "
            f"from train every class needs at least {len(missing) + 1}"
        )


def _known(train: Part, settings: DataSettings, classes: int) -> Part:
    """The training part with the labels that are known, and as wrong as they are said to be."""
    if settings.label_fraction < 1:
        samples = _ceil(settings.label_fraction * len(train.targets))
        train = train.select(cut(train.targets, samples, 0, stream(settings.seed, "label fraction"))[0])
    if settings.label_noise > 0:
        random = stream(settings.seed, "label noise")
        train = train.relabel(corrupt(train.targets, settings.label_noise, classes, random))
    return train


def _held(settings: DataSettings, parts: tuple[Part, ...]) -> bool:
    """Whether the images are held in memory."""
    streamable = all(part.streamable for part in parts)
    if settings.in_memory is False and not streamable:
        raise InvalidSetting("data.in_memory", False, f"{settings.name!r} is read as a whole and cannot be streamed")
    if settings.in_memory is not None:
        return settings.in_memory
    return not streamable or sum(len(part.targets) * math.prod(part.shape) for part in parts) < IN_MEMORY_BYTES


def _statistics(split: Split) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel, of images scaled to [0, 1]: exact, from counts of the 256 values.

    The deviation is at least half a grey level, so that a channel without contrast can be divided by it.
    """
    import torch

    from kdsearch.data.splits import MemorySplit, evenly_spaced

    images = len(split) if isinstance(split, MemorySplit) else STATISTICS_IMAGES
    batches = torch.split(evenly_spaced(len(split), images), 1024)
    counts = np.sum([_value_counts(batch) for batch in split.fetch(batches)], axis=0)
    values = np.arange(256) / 255
    share = counts / np.sum(counts, axis=1, keepdims=True)
    mean = share @ values
    std = np.sqrt((share * (values - mean[:, None]) ** 2).sum(1))
    return tuple(mean.tolist()), tuple(np.maximum(std, 0.5 / 255).tolist())


def _value_counts(images: torch.Tensor) -> NDArray[np.int64]:
    """Images [b, C, H, W] → how often each of the 256 values occurs in each channel [C, 256]."""
    return np.stack([np.bincount(channel.numpy().ravel(), minlength=256) for channel in images.unbind(1)])


def resolve(augmentation: AugmentationSettings, recommended: AugmentationSettings) -> AugmentationSettings:
    """The augmentation with every field at None taken from what the data set recommends, or else switched off."""
    off: dict[str, Any] = {"crop": 0, "flip": False, "color_jitter": 0.0, "cutout": 0}
    values = {name: getattr(recommended, name) for name in off if getattr(augmentation, name) is None}
    filled = {name: off[name] if value is None else value for name, value in values.items()}
    return augmentation.model_copy(update=filled)


def facts(data: DataSet, steps: int, epochs: int, size: tuple[int, int] | None = None) -> Facts:
    """What a method may know: `steps` of the full budget, `size` of the student's input (None: that of the images)."""
    counts = data.train.targets.bincount()
    return Facts(
        classes=len(data.classes),
        channels=data.channels,
        size=size or data.size,
        steps=steps,
        epochs=epochs,
        samples=len(data.train),
        without_partner=int((counts == 1).sum()),
    )
