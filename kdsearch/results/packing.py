"""`packing.json`: how many trials of a run share a GPU, and what was measured to know it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypedDict, cast

from kdsearch.files import write_atomic
from kdsearch.results.documents import read_json, to_json

DOCUMENT = "packing.json"
GIB = 2**30


class LevelDocument(TypedDict):
    """So many trials on one GPU."""

    copies: int
    memory: int | None
    """Bytes of the GPU that were in use at most; None where it could not be tried."""
    rate: float | None
    """Steps per second of all of them together."""
    failure: str | None


class KindDocument(TypedDict):
    """What was measured on one kind of GPU."""

    gpu: str
    total_memory: int
    mps: bool
    setting: dict[str, Any]
    """The most demanding setting, as far as its values differ between trials."""
    levels: list[LevelDocument]
    copies: int
    why: str
    """Why not more."""
    measured: float
    """When, in seconds since 1970; another run's measurement is taken over where nothing differs."""


class PackingDocument(TypedDict):
    """The whole file."""

    asked: str | float
    """`auto`, or the share that was given."""
    gpus_per_trial: float
    mps: bool | None
    """Whether trials share GPUs through NVIDIA's Multi-Process Service; None: not known."""
    kinds: list[KindDocument]


def read_packing(folder: Path) -> PackingDocument | None:
    """What a run's folder says of it; None for a run whose trials share no GPU."""
    if not (folder / DOCUMENT).is_file():
        return None
    return cast("PackingDocument", read_json(folder / DOCUMENT))


def write_packing(folder: Path, document: PackingDocument) -> None:
    """Put it into a run's folder."""
    write_atomic(folder / DOCUMENT, to_json(document).encode())


def in_words(document: PackingDocument) -> str:
    """`4 trials share a GPU (gpus_per_trial 0.25, measured), through NVIDIA MPS`."""
    share = document["gpus_per_trial"]
    if share == 0:
        return "no GPU in the pool: trials run on CPUs (gpus_per_trial auto)"
    found = "measured" if document["kinds"] else "nothing was measured"
    how = f" ({found})" if document["asked"] == "auto" else ""
    if share >= 1:
        return f"each trial has a GPU for itself{how}"
    ways = {True: "through NVIDIA MPS", False: "by turns, as NVIDIA MPS is off", None: "NVIDIA MPS is not known of"}
    return f"{int(1 / share + 1e-9)} trials share a GPU{how}, {ways[document['mps']]}"


def level_in_words(level: LevelDocument) -> str:
    """`4 on a GPU: 70.3 steps/s, 4.12 GiB in use`."""
    if level["failure"] is not None or level["rate"] is None or level["memory"] is None:
        return f"{level['copies']} on a GPU: {level['failure']}"
    return f"{level['copies']} on a GPU: {level['rate']:.4g} steps/s, {level['memory'] / GIB:.2f} GiB in use"
