"""Earlier exports as networks: a folder that holds `student.safetensors` and `metrics.json`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from kdsearch.errors import BadWeights
from kdsearch.settings import NetworkSettings

WEIGHTS = "student.safetensors"
METRICS = "metrics.json"

AnyNetwork = TypeVar("AnyNetwork", bound=NetworkSettings)


def is_export(path: str | Path) -> bool:
    return (Path(path).expanduser() / WEIGHTS).is_file()


def read_student(folder: str | Path) -> dict[str, Any]:
    """What an export says of its network: name, stem, input_size, arguments, outputs, channels, size, mean, std.

    Raises BadWeights when the folder is no export or its metrics.json cannot be read.
    """
    if not is_export(folder):
        raise BadWeights(f"{str(folder)!r} is no export: it holds no {WEIGHTS} (a run's export is RUN/best)")
    try:
        student = json.loads((Path(folder).expanduser() / METRICS).read_text(encoding="utf-8"))["student"]
        return dict(student)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BadWeights(f"{str(folder)!r}: its {METRICS} does not describe the network ({error!r})") from error


def from_export(folder: str | Path) -> NetworkSettings:
    """The network of an export, with its weights. Raises BadWeights when it is none."""
    student = read_student(folder)
    described = {key: student[key] for key in ("name", "stem", "input_size", "arguments") if key in student}
    try:
        return NetworkSettings(**described, weights=str(folder))
    except (ValidationError, TypeError) as error:
        raise BadWeights(f"{str(folder)!r}: its {METRICS} does not describe a network: {described}") from error


def resolve(settings: AnyNetwork) -> AnyNetwork:
    """Settings whose name is the folder of an export (written with a `/`): what that describes in its place.

    Raises BadWeights when the folder is none.
    """
    if "/" not in settings.name or ":" in settings.name:
        return settings
    network = from_export(settings.name)
    return settings.model_copy(
        update={
            "name": network.name,
            "stem": network.stem,
            "input_size": settings.input_size or network.input_size,
            "arguments": {**network.arguments, **settings.arguments},
            "weights": settings.weights or network.weights,
        }
    )


def image_size(settings: NetworkSettings, size: tuple[int, int]) -> tuple[int, int]:
    """Height and width of the images that the network was made for: those of its export, else those at hand."""
    if settings.weights is None or not is_export(settings.weights):
        return size
    recorded = read_student(settings.weights).get("size", size)
    try:
        height, width = (int(side) for side in recorded)
    except (TypeError, ValueError) as error:
        raise BadWeights(f"{settings.weights!r}: its {METRICS} gives no image size: {recorded!r}") from error
    return height, width
