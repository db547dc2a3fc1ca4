"""What a person's function may return for a dense task, brought to a DenseSource.

A dict {"train": part, "validation" or "val": part, "test": part, "classes": names}, of which only train is needed, or
a tuple (train, validation, test). A part is a pair (images, truths): images uint8, or floating in [0, 1],
[N, C, H, W] or [N, H, W, C]; truths by task:

- segmentation: classes, integers [N, H, W], 255 where a pixel does not count;
- edges: [N, H, W], or [N, A, H, W] of A annotators; what is not 0 is an edge;
- detection: a list of N pairs (boxes [n, 4] as x1, y1, x2, y2 in pixels, classes [n]).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from kdsearch.data.decoding import as_numpy, image_arrays
from kdsearch.data.dense.source import NO_BOX, OUTSIDE_MASK, DensePart, DenseSource
from kdsearch.errors import BadData, UnknownName
from kdsearch.settings import AugmentationSettings

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from kdsearch.settings import DataSettings

    Truths = Callable[[Any, NDArray[np.uint8], str], NDArray[Any]]

_KEYS = {"train": "train", "validation": "validation", "val": "validation", "test": "test"}
ANNOTATORS = 13
"""Edge maps an image may have: as many as the bits of a truth hold beside the one for what does not count."""


def as_dense_source(value: Any, settings: DataSettings, task: str) -> DenseSource:
    """Bring what a set's function returned to a DenseSource. Raises BadData or UnknownName."""
    if isinstance(value, DenseSource):
        return value
    named = _by_name(value, settings.name)
    classes = named.pop("classes", None)
    augmentation = named.pop("augmentation", AugmentationSettings())
    parts: dict[str, DensePart] = {}
    for key, part in named.items():
        if key not in _KEYS:
            raise UnknownName(f"split of {settings.name!r}", str(key), [*_KEYS, "classes", "augmentation"])
        if part is not None:
            parts[_KEYS[key]] = _part(part, f"{key} of {settings.name!r}", task)
    names = _class_names(classes, parts, task, settings.name)
    images = parts["train"].read(0)[0]
    for key, part in parts.items():
        if part.read(0)[0].shape != images.shape:
            raise BadData(f"images of the {key} part of {settings.name!r} have another shape than those of train")
    channels, height, width = images.shape
    return DenseSource(classes=names, channels=channels, size=(height, width), augmentation=augmentation, **parts)


def _by_name(value: Any, name: str) -> dict[str, Any]:
    if isinstance(value, dict) and value.get("train") is not None:
        return {"train": value["train"], **value}
    if isinstance(value, tuple) and len(value) == 3:
        return dict(zip(("train", "validation", "test"), value, strict=True))
    raise BadData(
        f"{name!r} returned {type(value).__name__}: it must return a dict with 'train', or a tuple (train, validation, "
        "test), of pairs (images, truths)"
    )


def _part(value: Any, name: str, task: str) -> DensePart:
    if not isinstance(value, tuple) or len(value) != 2:
        raise BadData(f"{name} is {type(value).__name__}: a part is a pair (images, truths)")
    images = image_arrays(value[0], f"the images of {name}")
    if len(value[1]) != len(images):
        raise BadData(f"{name} has {len(images)} images but {len(value[1])} truths")
    if task == "detection":
        boxes = _boxes(value[1], images, name)
        return DensePart.of_arrays(images, boxes, dominant_of_boxes(boxes))
    maps = as_numpy(value[1])
    if maps.shape[-2:] != images.shape[2:]:
        raise BadData(
            f"{name}: truths are {maps.shape[-2]}×{maps.shape[-1]}, images {images.shape[2]}×{images.shape[3]}"
        )
    if task == "edges":
        return DensePart.of_arrays(images, _edges(maps, name), np.zeros(len(images), np.int64))
    masks = _masks(maps, name)
    return DensePart.of_arrays(images, masks, dominant_of_masks(masks))


def _masks(maps: NDArray[Any], name: str) -> NDArray[np.uint8]:
    if maps.ndim != 3 or not np.issubdtype(maps.dtype, np.integer):
        raise BadData(f"{name}: masks are {maps.dtype} {list(maps.shape)}, and integers [N, H, W] are needed")
    if maps.min() < 0 or maps.max() > OUTSIDE_MASK:
        raise BadData(f"{name}: masks hold {int(maps.min())} to {int(maps.max())}; classes are 0 to 254, 255 is none")
    return maps.astype(np.uint8)


def _edges(maps: NDArray[Any], name: str) -> NDArray[np.int16]:
    if maps.ndim == 3:
        maps = maps[:, None]
    if maps.ndim != 4 or maps.shape[1] > ANNOTATORS:
        raise BadData(
            f"{name}: edges are {list(maps.shape)}; [N, H, W], or [N, A, H, W] of up to {ANNOTATORS} annotators"
        )
    bits = (1 << np.arange(maps.shape[1], dtype=np.int16)).reshape(1, -1, 1, 1)
    truths: NDArray[np.int16] = ((maps != 0) * bits).sum(1).astype(np.int16)
    return truths


def _boxes(pairs: Any, images: NDArray[np.uint8], name: str) -> NDArray[np.float32]:
    height, width = images.shape[2:]
    found = []
    for place, pair in enumerate(pairs):
        boxes, labels = (as_numpy(part).astype(np.float32) for part in pair)
        rows = np.concatenate([boxes.reshape(-1, 4), labels.reshape(-1, 1)], axis=1)
        for x1, y1, x2, y2, label in rows:
            if not (0 <= x1 < x2 <= width and 0 <= y1 < y2 <= height) or label < 0:
                raise BadData(f"{name}: image {place} has the box {x1:g}, {y1:g}, {x2:g}, {y2:g} of class {label:g}")
        found.append(rows)
    return padded_boxes(found)


def padded_boxes(found: list[NDArray[np.float32]]) -> NDArray[np.float32]:
    """Boxes of each image, [n, 5], as one array [N, M, 5]: M is the largest n, or 1."""
    most = max([1, *map(len, found)])
    padded = np.zeros((len(found), most, 5), np.float32)
    padded[..., 4] = NO_BOX
    for row, boxes in zip(padded, found, strict=True):
        row[: len(boxes)] = boxes
    return padded


def dominant_of_masks(masks: NDArray[np.uint8]) -> NDArray[np.int64]:
    """The most frequent class of each mask [N, H, W] but 0, the background; 0 where there is no other: int64 [N]."""
    counts = np.stack([np.bincount(mask.ravel(), minlength=256) for mask in masks])
    counts[:, [0, OUTSIDE_MASK]] = 0
    dominant: NDArray[np.int64] = counts.argmax(1).astype(np.int64)
    return dominant


def dominant_of_boxes(boxes: NDArray[np.float32]) -> NDArray[np.int64]:
    """The most frequent class of each image's boxes [N, M, 5], ties to the larger area; without any, one more than
    all classes: int64 [N]."""
    labels = boxes[..., 4].astype(np.int64)
    area = (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])
    classes = int(labels.max(initial=0)) + 1
    of_class = labels[..., None] == np.arange(classes)
    weight = of_class.sum(1) + (of_class * area[..., None]).sum(1) / (1 + area.sum(1, keepdims=True))
    return np.where((labels >= 0).any(1), weight.argmax(1), classes).astype(np.int64)


def _class_names(classes: Any, parts: dict[str, DensePart], task: str, name: str) -> tuple[str, ...]:
    if task == "edges":
        return ("edge",)
    highest = 0
    for part in parts.values():
        for row in part.rows.tolist():
            truth = part.read(row)[1]
            labels = truth[..., 4] if task == "detection" else truth[truth != OUTSIDE_MASK]
            highest = max(highest, int(labels.max(initial=0)))
    if classes is None:
        return tuple(map(str, range(highest + 1)))
    names = tuple(str(item) for item in classes)
    if len(names) <= highest or len(set(names)) < len(names):
        raise BadData(f"{name!r} has labels 0 to {highest} and {len(set(names))} different names of classes")
    return names
