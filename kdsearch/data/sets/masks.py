"""A folder of images and masks of one's own, for segmentation and for edges.

`root/images` and `root/masks`, or `train`, `val` and `test` under root with the two in each. A mask is named as its
image and a PNG: images/a.jpg has masks/a.png. What a mask holds is the task's:

- segmentation: the class of each pixel, from 0 (the background, where there is one), 255 where a pixel does not count;
  8-bit grey or palette. `root/classes.txt` names the classes, one a line; without it they are numbered.
- edges: 0, and any other value where an edge is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kdsearch.data.dense.masks import (
    SUFFIX,
    Look,
    Pair,
    classes_part,
    common_size,
    edges_part,
    look_at_classes,
    look_at_edges,
)
from kdsearch.data.dense.source import OUTSIDE_MASK, DensePart, DenseSource
from kdsearch.data.layouts.tree import PART_NAMES, SUFFIXES
from kdsearch.data.source import existing_root, refuse_unused
from kdsearch.errors import BadData
from kdsearch.settings import AugmentationSettings

if TYPE_CHECKING:
    from pathlib import Path

    from kdsearch.settings import DataSettings

TASKS = ("segmentation", "edges")
IMAGES, MASKS, CLASSES = "images", "masks", "classes.txt"


def load(settings: DataSettings, task: str) -> DenseSource:
    """The parts under `settings.root`, letterboxed to one size. Raises BadData naming the file that cannot be used."""
    refuse_unused(settings, "samples")
    root = existing_root(settings, "the folder that holds 'images' and 'masks', or train, val and test with both")
    parts = {name: _pairs(folder) for name, folder in _folders(root).items()}
    edges = task == "edges"
    looks = {name: (look_at_edges if edges else look_at_classes)(pairs) for name, pairs in parts.items()}
    classes = ("edge",) if edges else _class_names(root, parts, looks)
    size = common_size([look for part in looks.values() for look in part], settings.image_size)
    found: dict[str, DensePart] = {
        name: edges_part(pairs, size) if edges else classes_part(pairs, looks[name], size)
        for name, pairs in parts.items()
    }
    return DenseSource(
        train=found["train"],
        validation=found.get("validation"),
        test=found.get("test"),
        classes=classes,
        channels=3,
        size=size,
        augmentation=AugmentationSettings(crop=min(size) // 8, flip=True),
    )


def _folders(root: Path) -> dict[str, Path]:
    """The folder of each part; where the set is undivided, its root as `train`."""
    if _is_part(root):
        return {"train": root}
    found: dict[str, Path] = {}
    for folder in sorted(path for path in root.iterdir() if path.is_dir()):
        part = PART_NAMES.get(folder.name.lower())
        if part is None or not _is_part(folder):
            continue
        if part in found:
            raise BadData(f"{root} holds both {found[part].name!r} and {folder.name!r}: one of them must go")
        found[part] = folder
    if "train" not in found:
        raise BadData(
            f"{root} holds no folders {IMAGES!r} and {MASKS!r}: it must hold both, or train, val and test with both"
        )
    return found


def _is_part(folder: Path) -> bool:
    return (folder / IMAGES).is_dir() and (folder / MASKS).is_dir()


def _pairs(folder: Path) -> list[Pair]:
    """Every image with its mask, in the order of their names."""
    images = _by_name(folder / IMAGES, SUFFIXES)
    masks = _by_name(folder / MASKS, (SUFFIX,))
    if not images:
        raise BadData(f"{folder / IMAGES} holds no images ({', '.join(SUFFIXES)})")
    lonely = next((name for name in images if name not in masks), None)
    if lonely is not None:
        raise BadData(f"the image {images[lonely]} has no mask {folder / MASKS / lonely}{SUFFIX}")
    lonely = next((name for name in masks if name not in images), None)
    if lonely is not None:
        raise BadData(f"the mask {masks[lonely]} has no image of its name in {folder / IMAGES}")
    return [Pair(image, masks[name]) for name, image in images.items()]


def _by_name(folder: Path, suffixes: tuple[str, ...]) -> dict[str, str]:
    """Files anywhere under a folder, by their path in it without the suffix."""
    found: dict[str, str] = {}
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() not in suffixes or path.name.startswith("."):
            continue
        name = str(path.relative_to(folder).with_suffix(""))
        if name in found:
            raise BadData(f"{found[name]} and {path} have one name: each image needs a mask of its own")
        found[name] = str(path)
    return found


def _class_names(root: Path, parts: dict[str, list[Pair]], looks: dict[str, list[Look]]) -> tuple[str, ...]:
    pairs = [pair for part in parts.values() for pair in part]
    highest = [look.highest for part in looks.values() for look in part]
    if not (root / CLASSES).is_file():
        if max(highest) == 0:
            raise BadData(f"the masks under {root} hold no class but 0: there is nothing to tell apart")
        return tuple(map(str, range(max(highest) + 1)))
    names = tuple(line.strip() for line in (root / CLASSES).read_text(encoding="utf-8").splitlines() if line.strip())
    if not 2 <= len(names) <= OUTSIDE_MASK or len(set(names)) < len(names):
        raise BadData(f"{root / CLASSES} names {len(set(names))} classes in {len(names)} lines: 2 to 255, each once")
    for pair, label in zip(pairs, highest, strict=True):
        if label >= len(names):
            raise BadData(
                f"the mask {pair.mask} holds the class {label}, and {CLASSES} names {len(names)}, 0 to {len(names) - 1}"
            )
    return names
