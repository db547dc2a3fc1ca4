"""Tiny-ImageNet as published (tiny-imagenet-200.zip): train/WNID/images/*, val/images/* with val/val_annotations.txt.

Its test images have no labels, so the literature reports accuracy on val: val is the test part here, and validation
is cut from train.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kdsearch.data.layouts import Files, Listing
from kdsearch.errors import BadData

if TYPE_CHECKING:
    from pathlib import Path


def recognise(root: Path) -> Listing | None:
    """The listing, where root/val/val_annotations.txt and root/train exist."""
    annotations = root / "val" / "val_annotations.txt"
    if not annotations.is_file() or not (root / "train").is_dir():
        return None
    identifiers = sorted(folder.name for folder in (root / "train").iterdir() if folder.is_dir())
    label = {identifier: index for index, identifier in enumerate(identifiers)}
    train = [
        (str(path.relative_to(root)), label[identifier])
        for identifier in identifiers
        for path in sorted((root / "train" / identifier / "images").glob("*.JPEG"))
    ]
    test = []
    for line in annotations.read_text().splitlines():
        name, _, rest = line.partition("\t")
        identifier = rest.partition("\t")[0]
        if identifier not in label:
            raise BadData(f"{annotations} names a class {identifier!r} that has no folder in {root / 'train'}")
        test.append((f"val/images/{name}", label[identifier]))
    return Listing(root, {"train": _files(train), "test": _files(test)}, _names(root, identifiers))


def _files(pairs: list[tuple[str, int]]) -> Files:
    return Files(tuple(path for path, _ in pairs), tuple(index for _, index in pairs))


def _names(root: Path, identifiers: list[str]) -> tuple[str, ...]:
    """The first word that words.txt has for each class, where these differ; else the WordNet identifiers."""
    words = root / "words.txt"
    if not words.is_file():
        return tuple(identifiers)
    known = dict(line.split("\t", 1) for line in words.read_text().splitlines() if "\t" in line)
    names = [known.get(identifier, identifier).split(",")[0].strip() for identifier in identifiers]
    return tuple(
        name if names.count(name) == 1 else f"{name} ({key})" for name, key in zip(names, identifiers, strict=True)
    )
