"""An export in a format that runs elsewhere: written beside the weights, checked, and noted with its preprocessing."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import torch

from kdsearch import models
from kdsearch.consent import is_code, refuse_code
from kdsearch.errors import BadWeights
from kdsearch.files import write_atomic
from kdsearch.models.runtimes import FORMATS, INPUT, OUTPUT, write_program
from kdsearch.models.speed import latency
from kdsearch.results.documents import read_json, read_yaml, to_json
from kdsearch.results.export import CARD, METRICS
from kdsearch.students import place_of

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

    Raises UserError when its network cannot be written so, or the program differs from PyTorch.
    """
    facts = read_json(folder / METRICS)
    try:
        student = facts["student"]
        height, width = student["input"] or student["size"]
        shape = (int(student["channels"]), int(height), int(width))
        network = _network(folder, student, run, allow_code)
        preprocessing = {"scale": "to [0, 1]", **{name: student[name] for name in ("mean", "std")}}
        any_sides = student.get("task") == "super_resolution"
    except (KeyError, TypeError, ValueError) as error:
        raise BadWeights(f"{folder / METRICS} is not complete: {error}") from None
    path = folder / FORMATS[form]
    program = write_program(form, network, shape, path, any_sides=any_sides)
    taken = _named(program.input)
    example = torch.zeros(1, *shape)
    with torch.no_grad():
        given = list(network(example).shape)
    noted = {
        "file": path.name,
        "bytes": path.stat().st_size,
        "input": {"name": INPUT, "type": "float32", "shape": taken},
        "output": {"name": OUTPUT, "type": "float32", "shape": _of_output(taken, given, int(student.get("scale", 1)))},
        "preprocessing": preprocessing | ({} if any_sides else {"resize": list(shape[1:])}),
        "largest_difference": program.difference,
        "latency": asdict(latency(network, example)),
    }
    facts.setdefault(DEPLOYED, {})[form] = noted
    write_atomic(folder / METRICS, to_json(facts).encode())
    card = (folder / CARD).read_text(encoding="utf-8")
    write_atomic(folder / CARD, f"{card}\n{_section(form, noted, str(facts.get('task')), shape)}".encode())
    return noted


def _named(shape: tuple[int | None, ...]) -> list[int | str]:
    """A shape with names for the lengths that are open."""
    return [
        name if length is None else length
        for name, length in zip(("batch", "channels", "height", "width"), shape, strict=True)
    ]


def _of_output(taken: list[int | str], given: list[int], scale: int) -> list[int | str]:
    """The shape of the output, by that for one image of the example's size."""
    sides = [
        f"{scale}·{side}" if isinstance(side, str) else length
        for side, length in zip(taken[2:], given[2:], strict=False)
    ]
    return [taken[0], given[1], *(sides if len(given) == 4 else given[2:])]


def _network(folder: Path, student: Mapping[str, Any], run: Path | None, allow_code: bool) -> nn.Module:
    network = models.from_export(folder)
    if is_code(network.name):
        content = read_yaml(run / "experiment.yaml") if run is not None else {}
        section = content.get("student")
        place = place_of(content, network.name) or (section.get("name") if isinstance(section, dict) else section)
        network = network.model_copy(update={"name": place if is_code(place) else network.name})
        if not allow_code:
            refuse_code({"student": network.name}, str(run or folder))
    return models.build(
        network,
        outputs=student["outputs"],
        channels=student["channels"],
        size=tuple(student["size"]),
        task=student.get("task", "classification"),
        scale=student.get("scale", 1),
    )


_OUTPUTS = {
    "classification": "Logits of the classes.",
    "segmentation": "Logits of the classes of each pixel.",
    "edges": "The logit of an edge at each pixel.",
    "super_resolution": "The enlarged picture, in [0, 1] but for small overshoots.",
    "detection": "What a detector says before non-maximum suppression, for each of its anchors: logits of background "
    "and classes, four offsets by SSD's coding (variances 0.1 and 0.2), the anchor's x1, y1, x2, y2 in pixels.",
}


def _section(form: str, noted: Mapping[str, Any], task: str, shape: tuple[int, int, int]) -> str:
    """What the model card says of the file."""
    speed, preprocessing = noted["latency"], noted["preprocessing"]
    given, found = (", ".join(map(str, noted[side]["shape"])) for side in ("input", "output"))
    resized = f", resized to {shape[1]} × {shape[2]}" if "resize" in preprocessing else ""
    alone = " One image at a time: the network's own code counts with their number." if "batch" not in given else ""
    return (
        f"## {noted['file']}\n\n"
        f"The same student as {form}, {noted['bytes']:,} bytes. "
        f"Input `{INPUT}`: float32 [{given}], scaled to [0, 1]{resized} and normalised per channel with mean "
        f"{preprocessing['mean']} and standard deviation {preprocessing['std']}.{alone} "
        f"Output `{OUTPUT}`: float32 [{found}]. {_OUTPUTS.get(task, '')} "
        f"Its outputs differ from PyTorch's by {noted['largest_difference']:.2g} at most, on random images. "
        f"One image of {shape[1]} × {shape[2]} takes PyTorch {1000 * speed['seconds']:.3g} ms here "
        f"({speed['device']}, {speed['threads']} thread): the median of {speed['forwards']} passes.\n"
    )
