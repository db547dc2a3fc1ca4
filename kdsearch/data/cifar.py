"""CIFAR-10 and CIFAR-100 (Krizhevsky 2009) from their published archives.

The archives are pickles. They are read by torchvision, which opens a file only when its md5 is the published one.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from kdsearch.data.source import ArrayPart, Source, existing_root, refuse_unused
from kdsearch.errors import BadData
from kdsearch.settings import AugmentationSettings

if TYPE_CHECKING:
    from kdsearch.settings import DataSettings

PAGE = "https://www.cs.toronto.edu/~kriz/cifar.html"


def load(settings: DataSettings, class_name: str) -> Source:
    """50,000 training and 10,000 test images 3×32×32; `class_name` is torchvision's.

    `settings.root` is the folder that holds the unpacked archive, or the unpacked archive itself.
    """
    from torchvision import datasets  # type: ignore[import-untyped]

    refuse_unused(settings, "samples", "image_size")
    published = getattr(datasets, class_name)
    place = f"the folder that holds {published.base_folder} (unpack {published.filename} of {PAGE} there)"
    root = existing_root(settings, place)
    if root.name == published.base_folder:
        root = root.parent
    if not (root / published.base_folder).is_dir():
        raise BadData(f"{root} holds no {published.base_folder}: unpack {published.filename} of {PAGE} there")
    try:
        train, test = published(root=Path(root), train=True), published(root=root, train=False)
    except RuntimeError as error:
        raise BadData(
            f"files in {root / published.base_folder} are missing or not the published ones (their md5 differs): "
            f"unpack {published.filename} of {PAGE} again"
        ) from error
    return Source(
        train=_part(train.data, train.targets),
        test=_part(test.data, test.targets),
        classes=tuple(train.classes),
        augmentation=AugmentationSettings(crop=4, flip=True),
    )


def _part(images: np.ndarray[tuple[int, ...], np.dtype[np.uint8]], targets: list[int]) -> ArrayPart:
    """torchvision's uint8 [N, H, W, C] as ours."""
    return ArrayPart(np.ascontiguousarray(images.transpose(0, 3, 1, 2)), np.asarray(targets, dtype=np.int64))
