"""What a data set's `load` function hands over: labelled parts, still undivided or divided as published."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from kdsearch.errors import BadData, InvalidSetting
from kdsearch.settings import AugmentationSettings

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from kdsearch.data.base import Split
    from kdsearch.settings import DataSettings


class Part(Protocol):
    """Labelled images that can be selected from before any of them is read."""

    @property
    def targets(self) -> NDArray[np.int64]:
        """Class indices [N]."""
        ...

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width that every image has, or is brought to."""
        ...

    def select(self, indices: NDArray[np.int64]) -> Part: ...

    def relabel(self, targets: NDArray[np.int64]) -> Part: ...

    @property
    def streamable(self) -> bool:
        """Whether the images can be read one by one."""
        ...

    def split(self, held: bool, workers: int) -> Split:
        """The images held in memory, or streamed by so many workers."""
        ...


@dataclass(frozen=True)
class ArrayPart:
    """Images that are in memory already: uint8 [N, C, H, W]."""

    images: NDArray[np.uint8]
    targets: NDArray[np.int64]

    @property
    def shape(self) -> tuple[int, int, int]:
        _, channels, height, width = self.images.shape
        return channels, height, width

    def select(self, indices: NDArray[np.int64]) -> ArrayPart:
        return ArrayPart(self.images[indices], self.targets[indices])

    def relabel(self, targets: NDArray[np.int64]) -> ArrayPart:
        return replace(self, targets=targets)

    @property
    def streamable(self) -> bool:
        return False

    def split(self, held: bool, workers: int) -> Split:
        from kdsearch.data.splits import MemorySplit

        return MemorySplit.of_arrays(self.images, self.targets)


@dataclass(frozen=True)
class Source:
    """A data set as its `load` function found it; parts at None are cut from `train`."""

    train: Part
    classes: tuple[str, ...]
    validation: Part | None = None
    test: Part | None = None
    augmentation: AugmentationSettings = field(default_factory=AugmentationSettings)
    """What the set recommends."""

    def __post_init__(self) -> None:
        if len(self.classes) < 2:
            raise BadData(
                f"the data have one class ({', '.join(self.classes) or 'none'}): there is nothing to tell apart"
            )
        _check_part("train", self.train, self)
        missing = np.flatnonzero(np.bincount(self.train.targets, minlength=len(self.classes)) == 0)
        if len(missing):
            raise BadData(
                f"class {self.classes[missing[0]]!r} (label {missing[0]}) has no training image: the labels must be "
                f"0 to {len(self.classes) - 1} without a gap"
            )
        for name, part in (("validation", self.validation), ("test", self.test)):
            if part is not None:
                _check_part(name, part, self)


def _check_part(name: str, part: Part, source: Source) -> None:
    if len(part.targets) == 0:
        raise BadData(f"the {name} part has no images")
    low, high = int(part.targets.min()), int(part.targets.max())
    if low < 0 or high >= len(source.classes):
        wrong = low if low < 0 else high
        raise BadData(
            f"label {wrong} in the {name} part is not one of the {len(source.classes)} classes (labels from 0)"
        )
    if part.shape != source.train.shape:
        raise BadData(
            f"images of the {name} part are {_size(part.shape)}, those of the train part {_size(source.train.shape)}: "
            "all must have one size and number of channels"
        )


def _size(shape: tuple[int, int, int]) -> str:
    return f"{shape[0]}×{shape[1]}×{shape[2]} (channels × height × width)"


def refuse_unused(settings: DataSettings, *keys: str) -> None:
    """InvalidSetting for each of these settings that is given although the set makes no use of it."""
    for key in keys:
        value: Any = getattr(settings, key)
        if value is not None:
            raise InvalidSetting(f"data.{key}", value, f"the data set {settings.name!r} makes no use of it")


def existing_root(settings: DataSettings, content: str) -> Path:
    """The folder `settings.root`. Raises BadData when it is not given, missing or empty; `content` says what it is."""
    if settings.root is None:
        raise BadData(f"{settings.name!r} is read from disk: data.root (--data-root) must name {content}")
    root = Path(settings.root).expanduser()
    if not root.is_dir():
        raise BadData(f"there is no folder {str(root)!r}: data.root (--data-root) must name {content}")
    if not any(root.iterdir()):
        raise BadData(f"the folder {str(root)!r} is empty: data.root (--data-root) must name {content}")
    return root
