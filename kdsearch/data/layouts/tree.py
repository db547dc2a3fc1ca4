"""A class-per-folder tree: root/CLASS/…, or root/train/CLASS/… with root/val/… and root/test/… where they exist."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from kdsearch.data.layouts import Files, Listing
from kdsearch.errors import BadData

if TYPE_CHECKING:
    from pathlib import Path

PART_NAMES = {
    "train": "train",
    "training": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "test": "test",
    "testing": "test",
}
SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".jfif")


def recognise(root: Path) -> Listing:
    """The images of the tree; names that begin with a dot and files that are no images are left out."""
    folders = _part_folders(root)
    if "train" in folders:
        classes = _folders(root / folders["train"])
    else:
        folders, classes = {"train": ""}, _folders(root)
    if not classes or all(name.lower() in PART_NAMES for name in classes):
        raise BadData(
            f"{root} holds no folders of classes: it must hold one per class, or train, val and test with one per class"
        )
    return Listing(root, {part: _files(root, folder, classes) for part, folder in folders.items()}, tuple(classes))


def _part_folders(root: Path) -> dict[str, str]:
    """The folder of each part; the tree is divided where its folder `train` holds folders."""
    found: dict[str, str] = {}
    for folder in _folders(root):
        part = PART_NAMES.get(folder.lower())
        if part is None or (part == "train" and not _folders(root / folder)):
            continue
        if part in found:
            raise BadData(f"{root} holds both {found[part]!r} and {folder!r}: one of them must go")
        found[part] = folder
    return found


def _files(root: Path, part: str, classes: list[str]) -> Files:
    """The images of one part. A class may lack in a part that is not trained on."""
    present = _folders(root / part)
    unknown = sorted(set(present) - set(classes))
    if not present:
        raise BadData(f"{root / part} holds no folders of classes: sort its images into such, or take it away")
    if unknown:
        raise BadData(f"{root / part} holds a class {unknown[0]!r} that the train part does not know")
    paths: list[str] = []
    labels: list[int] = []
    for label, name in enumerate(classes):
        found = _images(root, os.path.join(part, name))
        if not found and PART_NAMES.get(part.lower(), "train") == "train":
            raise BadData(f"{root / part / name} holds no images ({', '.join(SUFFIXES)})")
        paths += found
        labels += [label] * len(found)
    return Files(tuple(paths), tuple(labels))


def _folders(path: Path) -> list[str]:
    return sorted(entry.name for entry in os.scandir(path) if entry.is_dir() and not entry.name.startswith("."))


def _images(root: Path, folder: str) -> list[str]:
    """Image files anywhere under root/folder, sorted, relative to root."""
    found: list[str] = []
    for where, _, names in os.walk(root / folder, followlinks=True):
        relative = os.path.relpath(where, root)
        found += [
            os.path.join(relative, name)
            for name in names
            if name.lower().endswith(SUFFIXES) and not name.startswith(".")
        ]
    return sorted(found)
