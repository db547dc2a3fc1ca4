"""Pictures of what students make of a few validation images: kept as arrays beside a trial, shown as one grid."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import numpy as np

from kdsearch.files import write_atomic
from kdsearch.results.pictures import grid

if TYPE_CHECKING:
    from pathlib import Path

    from kdsearch.objective import Panels

FILE = "panels.npz"
STUDENT, WITHOUT = "student", "without distillation"


def write_panels(folder: Path, panels: Panels) -> None:
    """Keep panels in the folder of a trial, whole or not at all."""
    arrays = {f"{name}/{place}": picture for name, column in panels.items() for place, picture in enumerate(column)}
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]
    write_atomic(folder / FILE, buffer.getvalue())


def read_panels(folder: Path) -> Panels:
    """The panels that a trial kept; nothing where it kept none."""
    if not (folder / FILE).is_file():
        return {}
    panels: dict[str, list[np.ndarray]] = {}
    with np.load(folder / FILE, allow_pickle=False) as arrays:
        for key in sorted(arrays.files, key=lambda key: int(key.rpartition("/")[2])):
            panels.setdefault(key.rpartition("/")[0], []).append(arrays[key])
    return panels


def samples_grid(panels: Panels, without: Panels) -> bytes:
    """A PNG, a row for each image: input, target, teacher, the student without distillation, the student.

    `without`: the panels of the control, of which the student's column is taken; nothing where there is no control.
    """
    columns = dict(panels)
    student = columns.pop(STUDENT)
    if STUDENT in without:
        columns[WITHOUT] = without[STUDENT]
    columns[STUDENT] = student
    return grid(list(zip(*columns.values(), strict=True)), list(columns))
