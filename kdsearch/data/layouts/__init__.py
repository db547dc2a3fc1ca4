"""Folders of images as they are published: one module each, with `recognise(root) -> Listing | None`.

`tree`, the plain class-per-folder tree, is what every other folder is taken for.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


@dataclass(frozen=True)
class Files:
    """Paths relative to the listing's folder, and the class index of each."""

    paths: tuple[str, ...]
    labels: tuple[int, ...]


@dataclass(frozen=True)
class Listing:
    """The image files of a folder, by part (train, validation, test), and the names of the classes."""

    folder: Path
    parts: Mapping[str, Files]
    classes: tuple[str, ...]
