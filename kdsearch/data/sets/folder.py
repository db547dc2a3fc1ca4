"""Any class-per-folder image tree, and the published layouts that `kdsearch.data.layouts` recognises."""

from __future__ import annotations

import importlib
import pkgutil
from typing import TYPE_CHECKING

from kdsearch.data import layouts
from kdsearch.data.pictures import ImageFiles, common_shape, file_part
from kdsearch.data.source import Source, existing_root, refuse_unused
from kdsearch.errors import BadData
from kdsearch.settings import AugmentationSettings

if TYPE_CHECKING:
    from pathlib import Path

    from kdsearch.data.layouts import Listing
    from kdsearch.settings import DataSettings


def load(settings: DataSettings) -> Source:
    """The images under `settings.root`. Raises BadData when the folder is missing, empty or has one class."""
    refuse_unused(settings, "samples")
    root = existing_root(settings, "the folder that holds one folder per class, or a published data set")
    listing = _recognise(root)
    train = listing.parts["train"]
    if not train.paths:
        raise BadData(f"{root} holds no training images")
    shape = common_shape(ImageFiles(str(listing.folder), train.paths), settings.image_size)
    parts = {name: file_part(listing.folder, files.paths, files.labels, shape) for name, files in listing.parts.items()}
    return Source(
        train=parts["train"],
        validation=parts.get("validation"),
        test=parts.get("test"),
        classes=listing.classes,
        augmentation=AugmentationSettings(crop=min(shape[1:]) // 8, flip=True),
    )


def _recognise(root: Path) -> Listing:
    published = (module.name for module in pkgutil.iter_modules(layouts.__path__) if module.name != "tree")
    for name in (*published, "tree"):
        listing: Listing | None = importlib.import_module(f"{layouts.__name__}.{name}").recognise(root)
        if listing is not None:
            return listing
    raise AssertionError("the tree layout recognises every folder or raises")
