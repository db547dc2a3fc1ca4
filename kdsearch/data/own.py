"""What a person's function may return, brought to a Source.

A dict {"train": part, "validation" or "val": part, "test": part, "classes": names}, of which only train is needed; or
a tuple (train, validation, test); or one part, which is then divided. A part is (images, labels) or a map-style data
set of (image, label) items. Images are uint8 or floating in [0, 1], [N, C, H, W] or [N, H, W, C]; labels are integers
from 0. Items may also be PIL pictures.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from kdsearch.data.decoding import image_arrays, label_array
from kdsearch.data.pictures import DatasetItems, common_shape, dataset_labels, picture_part
from kdsearch.data.source import ArrayPart, Source
from kdsearch.errors import BadData, InvalidSetting, UnknownName
from kdsearch.settings import AugmentationSettings

if TYPE_CHECKING:
    from kdsearch.data.source import Part
    from kdsearch.settings import DataSettings

_KEYS = {"train": "train", "validation": "validation", "val": "validation", "test": "test"}
_SHAPES = "a dict of splits, a tuple (train, validation, test), a pair (images, labels) or a data set of (image, label)"


def as_source(value: Any, settings: DataSettings) -> Source:
    """Bring what a set's function returned to a Source. Raises BadData, InvalidSetting or UnknownName."""
    if isinstance(value, Source):
        return value
    named = _by_name(value, settings.name)
    classes = named.pop("classes", None)
    augmentation = named.pop("augmentation", AugmentationSettings())
    if not isinstance(augmentation, AugmentationSettings):
        raise BadData(f"'augmentation' of {settings.name!r} must be an AugmentationSettings, not {augmentation!r:.60}")
    parts: dict[str, Part] = {}
    for key, part in named.items():
        if key not in _KEYS:
            raise UnknownName(f"split of {settings.name!r}", str(key), [*_KEYS, "classes", "augmentation"])
        if part is not None:
            parts[_KEYS[key]] = _part(part, f"{key} of {settings.name!r}", settings, parts.get("train"))
    highest, samples = int(parts["train"].targets.max()), len(parts["train"].targets)
    if highest >= samples:
        raise BadData(
            f"{settings.name!r} has the label {highest} with {samples} images: labels go from 0 without a gap"
        )
    names = _class_names(classes, highest + 1, settings.name)
    return Source(classes=names, augmentation=augmentation, **parts)


def _by_name(value: Any, name: str) -> dict[str, Any]:
    """The parts by name, train first."""
    if isinstance(value, dict):
        if value.get("train") is None:
            raise BadData(f"{name!r} returned no 'train' part, only {', '.join(map(str, value)) or 'nothing'}")
        return {"train": value["train"], **value}
    if isinstance(value, tuple) and len(value) == 3:
        return dict(zip(("train", "validation", "test"), value, strict=True))
    if isinstance(value, tuple) and len(value) == 2 and any(map(_is_part, value)):
        raise BadData(
            f"{name!r} returned two parts without names: return a dict with 'train' and 'validation' or 'test'"
        )
    if _is_part(value):
        return {"train": value}
    raise BadData(f"{name!r} returned {type(value).__name__}: it must return {_SHAPES}")


def _is_part(value: Any) -> bool:
    if isinstance(value, tuple):
        return len(value) == 2
    return hasattr(value, "__getitem__") and hasattr(value, "__len__") and not _is_array(value)


def _is_array(value: Any) -> bool:
    return hasattr(value, "shape") or isinstance(value, (list, str, dict))


def _part(value: Any, name: str, settings: DataSettings, train: Part | None) -> Part:
    if not _is_part(value):
        raise BadData(
            f"{name} is {type(value).__name__}: a part is a pair (images, labels) or a data set of such items"
        )
    if isinstance(value, tuple):
        images = image_arrays(value[0], f"the images of {name}")
        if settings.image_size is not None and images.shape[2:] != (settings.image_size, settings.image_size):
            height, width = images.shape[2:]
            raise InvalidSetting("data.image_size", settings.image_size, f"the images are arrays of {height}×{width}")
        return ArrayPart(images, label_array(value[1], len(images), name))
    return dataset_part(value, name, settings, train)


def dataset_part(
    dataset: Any, name: str, settings: DataSettings, train: Part | None = None, threads: bool = False
) -> Part:
    """The part of a map-style data set; pictures take the shape of `train` where that is given."""
    if len(dataset) == 0:
        raise BadData(f"{name} has no images")
    items = DatasetItems(dataset, name, threads)
    labels = dataset_labels(items)
    if labels is None:
        raise BadData(f"{name} has labels that are not one integer per image: it is no set for classification")
    shape = common_shape(items, settings.image_size)
    if train is not None and items.look(0).resizable:
        shape = train.shape
    return picture_part(items, label_array(labels, len(dataset), name), shape)


def _class_names(classes: Any, count: int, name: str) -> tuple[str, ...]:
    if classes is None:
        return tuple(str(index) for index in range(count))
    names = tuple(str(item) for item in np.atleast_1d(np.asarray(classes, dtype=object)))
    if len(names) < count or len(set(names)) < len(names):
        raise BadData(f"{name!r} has labels 0 to {count - 1} and {len(set(names))} different names of classes")
    return names
