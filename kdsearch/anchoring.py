"""Paths of a person's made absolute, so that an experiment holds from any folder and in any process."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdsearch.user_code import absolute

if TYPE_CHECKING:
    from kdsearch.settings import DataSettings, NetworkSettings


def anchored(
    method: str, data: DataSettings, student: NetworkSettings, teacher: NetworkSettings | None
) -> dict[str, Any]:
    """Those parts of an experiment that may name a place, by their names, with absolute ones."""
    root = None if data.root is None else str(Path(data.root).expanduser().resolve())
    sections: dict[str, Any] = {
        "method": absolute(method),
        "data": data.model_copy(update={"name": absolute(data.name), "root": root}),
        "student": anchored_network(student),
    }
    return sections if teacher is None else sections | {"teacher": anchored_network(teacher)}


def anchored_network(network: NetworkSettings) -> NetworkSettings:
    """The network with absolute paths."""
    # A name with a slash is the folder of an export; without one it is never a file, whatever lies here.
    name = _place(network.name) if "/" in network.name else network.name
    weights = network.weights and _place(network.weights)
    return network.model_copy(update={"name": absolute(name), "weights": weights})


def _place(place: str) -> str:
    """A file or folder, absolute; what is none (`pretrained`) as it is."""
    path = Path(place).expanduser()
    return str(path.resolve()) if path.exists() else place
