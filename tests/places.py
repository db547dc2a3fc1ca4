"""Whether files that are given to others tell of the machine, the folders and the person they come from."""

from __future__ import annotations

import getpass
import re
import socket
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
NOBODY = {"root", "localhost"}
"""Names of any machine, and words of style sheets and settings."""


def told_places(files: Iterable[Path], *folders: Path) -> list[str]:
    """Where one of the files names one of these folders, the home folder, kdsearch's own, the person or the host."""
    paths = {str(folder) for folder in (*folders, Path.home(), ROOT) if len(folder.parts) > 1}
    host = socket.gethostname()
    names = {getpass.getuser(), host, host.partition(".")[0]} - NOBODY
    # In a binary file three letters stand by chance; a name does not stand between slashes by chance.
    in_text = re.compile("|".join([*map(re.escape, paths), *(rf"\b{re.escape(name)}\b" for name in names)]).encode())
    in_bytes = re.compile("|".join([*map(re.escape, paths), *(f"/{re.escape(name)}/" for name in names)]).encode())
    found = []
    for name, content in (part for file in files if file.is_file() for part in _parts(file)):
        pattern = in_text if _is_text(content) else in_bytes
        found += [
            f"{name}: {content[max(0, hit.start() - 40) : hit.end() + 20]!r}" for hit in pattern.finditer(content)
        ]
    return found


def _parts(file: Path) -> Iterator[tuple[str, bytes]]:
    yield file.name, file.read_bytes()
    if zipfile.is_zipfile(file):
        with zipfile.ZipFile(file) as archive:
            yield from ((f"{file.name}/{name}", archive.read(name)) for name in archive.namelist())


def _is_text(content: bytes) -> bool:
    try:
        content.decode()
    except UnicodeDecodeError:
        return False
    return b"\0" not in content
