"""A set of pictures: divided in three, checked against patch and scale, held or read when needed."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from kdsearch.data.base import IN_MEMORY_BYTES, DataSet
from kdsearch.data.cutting import cut
from kdsearch.data.randomness import stream
from kdsearch.data.restoration.own import as_picture_source
from kdsearch.data.source import refuse_unused
from kdsearch.errors import BadData, InvalidSetting
from kdsearch.settings import AugmentationSettings

if TYPE_CHECKING:
    from kdsearch.data.restoration.degradation import Degradation
    from kdsearch.data.restoration.source import PicturePart, PictureSource
    from kdsearch.data.restoration.splits import PictureSplit
    from kdsearch.settings import DataSettings

DEFAULT_SCALE = 4
# Low-resolution sides below this are smaller than the window of SSIM on what is left of them, or of a transformer.
SMALLEST_LOW = 16


def restoration_dataset(found: Any, settings: DataSettings) -> DataSet:
    """The data set of what a set's function returned (a PictureSource, or a person's pictures). Raises UserError.

    Images have mean 0 and deviation 1: networks for super-resolution take [0, 1] and normalise for themselves.
    `data.label_fraction` keeps that share of the training pictures. A part of less than 4 GiB is held in memory,
    unless `data.in_memory` says otherwise.
    """
    from kdsearch.data.restoration.degradation import Degradation

    refuse_unused(settings, "image_size")
    if settings.label_noise > 0:
        raise InvalidSetting("data.label_noise", settings.label_noise, "is for classification: pictures have no labels")
    source = as_picture_source(found, settings.name)
    scale = settings.scale or DEFAULT_SCALE
    parts = _divide(source, settings)
    patch = _patch_size(source, parts["train"], settings.patch_size, scale)
    blur = source.blur if settings.blur is None else settings.blur
    degradation = Degradation(scale, blur, settings.noise or 0.0)
    for name in ("validation", "test"):
        _check_sides(parts[name], SMALLEST_LOW * scale, f"to be evaluated at ×{scale}")
    samples = settings.samples or source.samples
    splits = {
        name: _split(part, degradation, settings, samples if name == "train" else 0) for name, part in parts.items()
    }
    return DataSet(
        name=settings.name,
        task="super_resolution",
        train=splits["train"],
        validation=splits["validation"],
        test=splits["test"],
        classes=(),
        channels=3,
        size=(patch // scale, patch // scale),
        mean=(0.0, 0.0, 0.0),
        std=(1.0, 1.0, 1.0),
        augmentation=AugmentationSettings(flip=True),
        scale=scale,
    )


def _divide(source: PictureSource, settings: DataSettings) -> dict[str, PicturePart]:
    """Train, validation and test; what the source lacks is drawn from its training pictures."""
    parts = {"train": source.train, "validation": source.validation, "test": source.test}
    for name, part in parts.items():
        if part is not None and len(part) == 0:
            raise BadData(f"the {name} part of {settings.name!r} has no pictures")
    shares = {"test": settings.test_fraction, "validation": settings.validation_fraction}
    missing = [name for name in shares if parts[name] is None]
    rest, pictures = source.train, len(source.train)
    lost = sum(shares[name] for name in missing)
    if lost >= 1:
        raise InvalidSetting("data.validation_fraction + data.test_fraction", lost, "must leave something to train on")
    if pictures <= len(missing):
        raise BadData(
            f"{settings.name!r} has {pictures} picture(s): too few to set {' and '.join(missing)} apart from them"
        )
    for left, name in zip(range(len(missing), 0, -1), missing, strict=True):
        chosen, others = _draw(len(rest), shares[name] * pictures, left, stream(settings.seed, name))
        parts[name], rest = rest.select(chosen), rest.select(others)
    if settings.label_fraction < 1:
        count = settings.label_fraction * len(rest)
        rest = rest.select(_draw(len(rest), count, 0, stream(settings.seed, "label fraction"))[0])
    return {**parts, "train": rest}  # type: ignore[dict-item]


def _draw(pictures: int, count: float, spare: int, random: np.random.Generator) -> Any:
    return cut(np.zeros(pictures, dtype=np.int64), math.ceil(count - 1e-9), spare, random)


def _patch_size(source: PictureSource, train: PicturePart, asked: int | None, scale: int) -> int:
    """Side of the high-resolution patches, a multiple of the scale."""
    if asked is not None and asked % scale:
        raise InvalidSetting("data.patch_size", asked, f"must be a multiple of data.scale = {scale}")
    patch = asked or source.patch_size // scale * scale
    if patch // scale < 4:
        raise InvalidSetting("data.patch_size", patch, f"must be at least {4 * scale}, four pixels at ×{scale}")
    _check_sides(train, patch, "to cut a patch of data.patch_size from")
    return patch


def _check_sides(part: PicturePart, side: int, why: str) -> None:
    for place in range(len(part)):
        height, width = part.size(place)
        if min(height, width) < side:
            raise BadData(
                f"{part.name(place)} is {height}×{width}: it needs {side}×{side} pixels {why}; leave it out, or choose "
                "a smaller data.patch_size or data.scale"
            )


def _split(part: PicturePart, degradation: Degradation, settings: DataSettings, samples: int) -> PictureSplit:
    from kdsearch.data.restoration.splits import PictureSplit

    held = settings.in_memory
    if held is None:
        held = sum(3 * math.prod(part.size(place)) for place in range(len(part))) < IN_MEMORY_BYTES
    if held:
        return PictureSplit(part.held(), degradation, settings.seed, samples)
    return PictureSplit(part, degradation, settings.seed, samples, settings.workers)
