"""Caltech-UCSD Birds-200-2011 as published (CUB_200_2011.tgz): images/ and the lists of files, labels and parts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kdsearch.data.layouts import Files, Listing
from kdsearch.errors import BadData

if TYPE_CHECKING:
    from pathlib import Path

LISTS = ("images.txt", "image_class_labels.txt", "train_test_split.txt", "classes.txt")


def recognise(root: Path) -> Listing | None:
    """The listing, where the published lists lie in root or in root/CUB_200_2011."""
    for folder in (root, root / "CUB_200_2011"):
        if all((folder / name).is_file() for name in LISTS):
            return _listing(folder)
    return None


def _listing(folder: Path) -> Listing:
    paths, labels, in_train, names = (_table(folder / name) for name in LISTS)
    if not paths.keys() == labels.keys() == in_train.keys():
        raise BadData(f"the lists in {folder} do not name the same images: {', '.join(LISTS[:3])}")
    if not set(labels.values()) <= names.keys():
        raise BadData(f"{folder / LISTS[1]} has classes that {LISTS[3]} does not name")
    index = {identifier: place for place, identifier in enumerate(sorted(names, key=int))}

    def files(flag: str) -> Files:
        chosen = [image for image in paths if in_train[image] == flag]
        return Files(
            tuple(f"images/{paths[image]}" for image in chosen), tuple(index[labels[image]] for image in chosen)
        )

    return Listing(folder, {"train": files("1"), "test": files("0")}, tuple(names[identifier] for identifier in index))


def _table(path: Path) -> dict[str, str]:
    """Lines `<id> <value>`."""
    table = {}
    for line in filter(str.strip, path.read_text().splitlines()):
        identifier, _, value = line.strip().partition(" ")
        if not identifier.isdigit() or not value:
            raise BadData(f"{path} is not the published list: it has a line {line!r}")
        table[identifier] = value.strip()
    return table
