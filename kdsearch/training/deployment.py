"""An export in a format that runs elsewhere: written beside the weights, checked, and noted with its preprocessing."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import torch

from kdsearch import models
from kdsearch.consent import is_code, refuse_code
from kdsearch.errors import BadWeights, UserError
from kdsearch.files import write_atomic
from kdsearch.models.runtimes import FORMATS, INPUT, OUTPUT, write_program
from kdsearch.models.speed import latency
from kdsearch.results.documents import read_json, read_yaml, to_json
from kdsearch.results.export import CARD, METRICS

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from torch import nn

DEPLOYED = "deployed"
"""Where metrics.json notes the formats."""


def deploy(folder: Path, form: str, *, run: Path | None = None, allow_code: bool = False) -> dict[str, Any]:
    """Write the student of the export in `folder` as `student.pt2` or `student.onnx` too; what metrics.json notes.

    Args:
        folder: the export.
        form: `torch_export` or `onnx`.
        run: the run that it is from, whose experiment says where a person's network file lies.
        allow_code: whether a network of a person's own file, which has to be run, may be.

    Raises UserError when it is no classifier, its network cannot be written so, or the program differs from PyTorch.
    """
    facts = read_json(folder / METRICS)
    if facts.get("task") != "classification":
        raise UserError(
            f"--format {form} is for classification, not {facts.get('task')}; safetensors serves every task"
        )
    try:
        student = facts["student"]
        height, width = student["input"] or student["size"]
        shape = (int(student["channels"]), int(height), int(width))
        network = _network(folder, student, run, allow_code)
        preprocessing = {name: student[name] for name in ("mean", "std")}
    except (KeyError, TypeError, ValueError) as error:
        raise BadWeights(f"{folder / METRICS} is not complete: {error}") from None
    path = folder / FORMATS[form]
    difference = write_program(form, network, shape, path)
    noted = {
        "file": path.name,
        "bytes": path.stat().st_size,
        "input": {"name": INPUT, "type": "float32", "shape": ["batch", *shape]},
        "output": {"name": OUTPUT, "type": "float32", "shape": ["batch", student["outputs"]]},
        "preprocessing": {"scale": "to [0, 1]", "resize": list(shape[1:]), **preprocessing},
        "largest_difference": difference,
        "latency": asdict(latency(network, torch.zeros(1, *shape))),
    }
    facts.setdefault(DEPLOYED, {})[form] = noted
    write_atomic(folder / METRICS, to_json(facts).encode())
    card = (folder / CARD).read_text(encoding="utf-8")
    write_atomic(folder / CARD, f"{card}\n{_section(form, noted)}".encode())
    return noted


def _network(folder: Path, student: Mapping[str, Any], run: Path | None, allow_code: bool) -> nn.Module:
    network = models.from_export(folder)
    if is_code(network.name):
        section = read_yaml(run / "experiment.yaml").get("student") if run is not None else None
        place = section.get("name") if isinstance(section, dict) else section
        network = network.model_copy(update={"name": place if is_code(place) else network.name})
        if not allow_code:
            refuse_code({"student": network.name}, str(run or folder))
    return models.build(network, outputs=student["outputs"], channels=student["channels"], size=tuple(student["size"]))


def _section(form: str, noted: Mapping[str, Any]) -> str:
    """What the model card says of the file."""
    speed, preprocessing = noted["latency"], noted["preprocessing"]
    channels, height, width = noted["input"]["shape"][1:]
    return (
        f"## {noted['file']}\n\n"
        f"The same student as {form}, {noted['bytes']:,} bytes. "
        f"Input `{INPUT}`: float32 [B, {channels}, {height}, {width}], any B, scaled to [0, 1], resized to "
        f"{height} × {width} and normalised per channel with mean {preprocessing['mean']} and standard deviation "
        f"{preprocessing['std']}. Output `{OUTPUT}`: float32 [B, {noted['output']['shape'][1]}]. "
        f"Its outputs differ from PyTorch's by {noted['largest_difference']:.2g} at most, on random images. "
        f"One image takes PyTorch {1000 * speed['seconds']:.3g} ms here "
        f"({speed['device']}, {speed['threads']} thread): the median of {speed['forwards']} passes.\n"
    )
