"""A folder of pictures for super-resolution: DIV2K as published, train/val/test, or one folder that is divided."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kdsearch.data.restoration.source import PicturePart, PictureSource
from kdsearch.data.source import existing_root
from kdsearch.errors import BadData

if TYPE_CHECKING:
    from pathlib import Path

    from kdsearch.settings import DataSettings

TASKS = ("super_resolution",)

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".ppm")
# Names of the folders of each part. DIV2K's validation part is what the literature reports on: it becomes the test
# part, and validation is drawn from its training pictures.
DIV2K = {"train": ("DIV2K_train_HR",), "test": ("DIV2K_valid_HR",)}
PARTS = {"train": ("train",), "validation": ("val", "valid", "validation"), "test": ("test",)}


def load(settings: DataSettings, task: str) -> PictureSource:
    """The pictures under `settings.root`, in high resolution. Raises BadData when there are none.

    Patches of 160 pixels and 1,000 of them an epoch, or as many as there are training pictures, unless
    `data.patch_size` and `data.samples` say otherwise; bicubic down-sampling without blur, which published networks are
    trained for.
    """
    root = existing_root(settings, "the folder of the pictures")
    for layout in (DIV2K, PARTS):
        folders = {part: folder for part, names in layout.items() if (folder := _first(root, names)) is not None}
        if "train" in folders:
            parts = {part: _pictures(folder) for part, folder in folders.items()}
            break
        if folders:
            raise BadData(f"{root} holds {', '.join(map(repr, folders))} but no {layout['train'][0]!r} to train on")
    else:
        parts = {"train": _pictures(root)}
    train = parts["train"]
    return PictureSource(train, parts.get("validation"), parts.get("test"), samples=max(1000, len(train)))


def _first(root: Path, names: tuple[str, ...]) -> Path | None:
    return next((root / name for name in names if (root / name).is_dir()), None)


def _pictures(folder: Path) -> PicturePart:
    """Every picture in a folder and the folders in it, in the order of their paths."""
    paths = sorted(
        str(path.relative_to(folder))
        for path in folder.rglob("*")
        if path.suffix.lower() in SUFFIXES and path.is_file() and not path.name.startswith(".")
    )
    if not paths:
        raise BadData(f"{folder} holds no pictures ({', '.join(SUFFIXES)})")
    return PicturePart.of_files(folder, paths)
