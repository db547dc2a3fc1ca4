"""Which of a person's files travel with a submitted job: those that are named by a relative path, and no others.

An absolute path means the same file on the cluster.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from kdsearch.errors import InvalidSetting, UserError
from kdsearch.models.names import PRETRAINED

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from kdsearch.experiment import Experiment

LARGEST_MIB = 100
"""Of all files together: Ray keeps them in the memory of the cluster's head."""


def travelling(experiment: Experiment, typed: Sequence[str]) -> list[str]:
    """The relative paths that the experiment names, and those of the files that were `typed`, each once.

    Raises UserError for one that is not there, lies above this folder, or is a folder of data, which do not travel.
    """
    root = experiment.data.root
    if root is not None and not _is_elsewhere(root):
        why = "folders of data do not travel; give the path that all nodes of the cluster see"
        raise InvalidSetting("data.root", root, why)
    found = {path for path in (*_named(experiment), *typed) if not _is_elsewhere(path)}
    for path in found:
        if not Path(path).exists():
            raise UserError(f"{path!r} is to travel with the job, but there is no such file here")
        if not Path(path).resolve().is_relative_to(Path.cwd()):
            raise UserError(f"{path!r} lies outside {Path.cwd()}: files that travel lie in the folder you work in")
    return sorted(found)


def _named(experiment: Experiment) -> Iterator[str]:
    """Files and folders that the experiment names."""
    for name in (experiment.method, experiment.data.name):
        yield from _code(name)
    for network in experiment.networks:
        yield from _code(network.name)
        if "/" in network.name and Path(network.name).is_dir():
            yield network.name
        if network.weights not in (None, PRETRAINED):
            yield str(network.weights)


def _code(name: str) -> Iterator[str]:
    """The file of `file.py:function`."""
    place, _, _ = name.rpartition(":")
    if place.endswith(".py"):
        yield place


def _is_elsewhere(path: str) -> bool:
    return os.path.isabs(path) or path.startswith("~")


def pack(paths: Sequence[str], folder: Path) -> str:
    """Copy the paths into `folder`, where they have the same names; a digest of all.

    Raises UserError where they are too large to travel.
    """
    for path in paths:
        if Path(path).is_dir():
            shutil.copytree(path, folder / path, dirs_exist_ok=True)
        else:
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, folder / path)
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    size = sum(file.stat().st_size for file in files)
    if size > LARGEST_MIB * 2**20:
        raise UserError(
            f"{', '.join(paths)} are {size / 2**20:.0f} MiB, and more than {LARGEST_MIB} do not travel: put them where "
            "all nodes of the cluster see them, and give that absolute path"
        )
    digest = hashlib.sha256()
    for file in files:
        content = file.read_bytes()
        digest.update(f"{file.relative_to(folder)}\n{len(content)}\n".encode() + content)
    return digest.hexdigest()[:16]
