"""A run's folder that came from someone else may hold links: what is written into it would land where they lead."""

from __future__ import annotations

import os
from pathlib import Path

from kdsearch.errors import RunError


def refuse_links(folder: str | Path) -> None:
    """Raise RunError where something in the folder is a link that leads out of it."""
    root = Path(folder).resolve()
    waiting = [str(root)]
    while waiting:
        with os.scandir(waiting.pop()) as entries:
            for entry in entries:
                if entry.is_symlink():
                    _check(Path(entry.path), root)
                elif entry.is_dir():
                    waiting.append(entry.path)


def _check(link: Path, root: Path) -> None:
    target = Path(os.path.realpath(link))
    if not target.is_relative_to(root):
        raise RunError(
            f"{link} leads out of the run's folder, to {target}, where this would write; put there what it leads to, "
            "or say --allow-code if you made that link yourself"
        )
