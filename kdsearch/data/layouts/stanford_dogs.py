"""Stanford Dogs as published: Images/ of images.tar, train_list.mat and test_list.mat of lists.tar."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from kdsearch.data.layouts import Files, Listing
from kdsearch.errors import BadData

if TYPE_CHECKING:
    from pathlib import Path

LISTS = {"train": "train_list.mat", "test": "test_list.mat"}


def recognise(root: Path) -> Listing | None:
    """The listing, where the published lists lie in root or in root/lists, beside Images."""
    for folder in (root, root / "lists"):
        if (root / "Images").is_dir() and all((folder / name).is_file() for name in LISTS.values()):
            parts = {part: _files(folder / name) for part, name in LISTS.items()}
            return Listing(root, parts, _names(parts["train"]))
    return None


def _files(path: Path) -> Files:
    """`file_list` is a cell array [N, 1] of paths under Images, `labels` [N, 1] counts from 1."""
    from scipy.io import loadmat  # type: ignore[import-untyped]

    try:
        content = loadmat(str(path))
        paths = tuple(f"Images/{cell.item()}" for cell in content["file_list"].ravel())
        labels = tuple(int(label) - 1 for label in np.ravel(content["labels"]))
    except Exception as error:  # scipy raises many kinds for files that are damaged or of another format
        raise BadData(f"{path} is not the published list of Stanford Dogs: {type(error).__name__}: {error}") from error
    return Files(paths, labels)


def _names(train: Files) -> tuple[str, ...]:
    """The breed of each class, from a path such as Images/n02085620-Chihuahua/n02085620_7.jpg."""
    breeds = {
        label: path.split("/")[1].partition("-")[2] for path, label in zip(train.paths, train.labels, strict=True)
    }
    return tuple(breeds.get(label, str(label)) for label in range(max(breeds, default=-1) + 1))
