"""From settings to a data set: found, checked, divided in three, thinned, made noisy, held or streamed."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from kdsearch.data.base import IN_MEMORY_BYTES, DataSet, Facts
from kdsearch.data.cutting import corrupt, cut
from kdsearch.data.finding import find
from kdsearch.data.own import as_source
from kdsearch.data.randomness import stream
from kdsearch.data.source import refuse_unused
from kdsearch.data.statistics import statistics
from kdsearch.errors import BadData, InvalidSetting

if TYPE_CHECKING:
    from kdsearch.data.source import Part, Source
    from kdsearch.settings import AugmentationSettings, DataSettings


def load(settings: DataSettings, task: str = "classification") -> DataSet:
    """The data set of these settings for a task, with three splits; label fraction and noise act on train alone.

    Sets of less than 4 GiB as uint8 are read into memory (`settings.in_memory` overrides). Splits, fraction and noise
    are a function of `settings.seed`. Mean and standard deviation are those of the training images, all of them where
    they are in memory, else of 2,000 spread evenly over them.

    Raises UnknownName, InvalidSetting or BadData.
    """
    found = find(settings.name, task)(settings)
    if task == "classification":
        return _classification(as_source(found, settings), settings)
    if task == "super_resolution":
        from kdsearch.data.restoration.loading import restoration_dataset

        return restoration_dataset(found, settings)
    from kdsearch.data.dense.loading import dense_dataset

    return dense_dataset(found, settings, task)


def _classification(source: Source, settings: DataSettings) -> DataSet:
    refuse_unused(settings, "scale", "patch_size", "blur", "noise")
    parts = divide(source, settings)
    held = _held(settings, parts)
    train, validation, test = (part.split(held, settings.workers) for part in parts)
    channels, height, width = source.train.shape
    mean, std = statistics(train)
    return DataSet(
        name=settings.name,
        task="classification",
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
