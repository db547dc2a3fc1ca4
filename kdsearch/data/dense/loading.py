"""A set of a dense task: divided in three, thinned, held or streamed."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from kdsearch.data.base import IN_MEMORY_BYTES, DataSet
from kdsearch.data.cutting import cut
from kdsearch.data.dense.own import as_dense_source
from kdsearch.data.randomness import stream
from kdsearch.data.source import refuse_unused
from kdsearch.data.statistics import statistics
from kdsearch.errors import BadData, InvalidSetting

if TYPE_CHECKING:
    from kdsearch.data.dense.source import DensePart, DenseSource
    from kdsearch.data.dense.splits import DenseSplit
    from kdsearch.settings import DataSettings


def dense_dataset(found: Any, settings: DataSettings, task: str) -> DataSet:
    """The data set of what a set's function returned (a DenseSource, or a person's arrays). Raises UserError."""
    refuse_unused(settings, "scale", "patch_size", "blur", "noise")
    if settings.label_noise > 0:
        raise InvalidSetting("data.label_noise", settings.label_noise, f"is for classification; {task} has no rule")
    source = as_dense_source(found, settings, task)
    parts = _divide(source, settings)
    held = _held(source, parts, settings)
    train, validation, test = (_split(part, held, settings.workers) for part in parts)
    mean, std = statistics(train)
    return DataSet(
        name=settings.name,
        task=task,
        train=train,
        validation=validation,
        test=test,
        classes=source.classes,
        channels=source.channels,
        size=source.size,
        mean=mean,
        std=std,
        augmentation=source.augmentation,
    )


def _divide(source: DenseSource, settings: DataSettings) -> tuple[DensePart, DensePart, DensePart]:
    """Train, validation and test; what the source lacks is cut from its train part, by dominant classes."""
    shares = {"test": settings.test_fraction, "validation": settings.validation_fraction}
    parts = {"test": source.test, "validation": source.validation}
    missing = [name for name in shares if parts[name] is None]
    if sum(shares[name] for name in missing) >= 1:
        lost = sum(shares[name] for name in missing)
        raise InvalidSetting("data.validation_fraction + data.test_fraction", lost, "must leave something to train on")
    rest, samples = source.train, len(source.train)
    if samples <= len(missing):
        raise BadData(f"{settings.name!r} has {samples} image(s): too few to cut {' and '.join(missing)} from them")
    for name in missing:
        count = min(math.ceil(shares[name] * samples - 1e-9), len(rest) - 1)
        # Classes that are rare as the dominant one must not be lost to training: such images go by chance alone.
        chosen, others = cut(_common(rest, len(missing)), count, 0, stream(settings.seed, name))
        parts[name], rest = rest.select(chosen), rest.select(others)
    if settings.label_fraction < 1:
        count = max(1, math.ceil(settings.label_fraction * len(rest) - 1e-9))
        rest = rest.select(cut(_common(rest, 0), count, 0, stream(settings.seed, "label fraction"))[0])
    validation, test = parts["validation"], parts["test"]
    assert validation is not None
    assert test is not None
    return rest, validation, test


def _common(part: DensePart, spare: int) -> Any:
    """The labels, with those that too few images have merged into one."""
    counts = np.bincount(part.labels)
    return np.where(counts[part.labels] > spare + 1, part.labels, len(counts))


def _held(source: DenseSource, parts: tuple[DensePart, ...], settings: DataSettings) -> bool:
    if settings.in_memory is not None:
        return settings.in_memory
    image, truth = source.train.read(int(source.train.rows[0]))
    return sum(map(len, parts)) * (image.nbytes + truth.nbytes) < IN_MEMORY_BYTES


def _split(part: DensePart, held: bool, workers: int) -> DenseSplit:
    from kdsearch.data.dense.splits import DenseStreamedSplit, hold

    return hold(part) if held else DenseStreamedSplit(part, workers)
