"""A network as a program that runs without its Python: torch.export's or ONNX's, checked against PyTorch."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

import torch

from kdsearch.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from torch import nn

    Answer = Callable[[torch.Tensor], torch.Tensor]

FORMATS = {"torch_export": "student.pt2", "onnx": "student.onnx"}
"""Format → file."""
TOLERANCE = 1e-4
"""The largest difference from PyTorch's outputs that is accepted, for outputs up to 1; relative to larger ones."""
INPUT, OUTPUT = "images", "outputs"
"""What ONNX calls them."""

_CHECKED = (1, 2, 5)  # images; programs that hold a batch size of their own fail at one of them


class Program(NamedTuple):
    """What was written."""

    input: tuple[int | None, ...]
    """The shape of its input, [B, C, H, W]; None where any length will do."""
    difference: float
    """The largest from PyTorch's outputs that was found."""


def write_program(
    form: str, network: nn.Module, shape: tuple[int, int, int], path: Path, *, any_sides: bool = False
) -> Program:
    """Write the network in eval mode, on the CPU, as a program for float [B, C, H, W] with any B.

    Where the network's own code counts with the number of images, as that of windowed transformers does, the program
    is for one image at a time. It is read back and compared with PyTorch on random images of several shapes.

    Args:
        form: `torch_export` or `onnx`; the latter needs onnx, onnxscript and onnxruntime.
        network: what to write; it is moved to the CPU and put into eval mode.
        shape: (C, H, W) of its input.
        path: the file.
        any_sides: leave height and width open too, where the network lets them be.

    Raises UserError, with nothing left at `path`, when the network cannot be written so, or the difference exceeds
    `TOLERANCE`.
    """
    network = network.cpu().eval()
    write = {"torch_export": _write_torch_export, "onnx": _write_onnx}[form]
    try:
        with _one_sentence(form), torch.no_grad():
            traced, taken = _traced(network, shape, any_sides)
            answer = write(traced, path)
            difference = max(_difference(network, answer, images) for images in _images(shape, taken))
        if not difference <= TOLERANCE:
            raise UserError(
                f"the network as {form} differs from PyTorch by {difference:.2g} (allowed: {TOLERANCE:g}); does it "
                "draw random numbers when it is evaluated?"
            )
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    return Program(taken, difference)


def _traced(
    network: nn.Module, shape: tuple[int, int, int], any_sides: bool
) -> tuple[torch.export.ExportedProgram, tuple[int | None, ...]]:
    """The network as a program, with as many open lengths as its code allows, and the shape that it takes."""
    channels, height, width = shape
    taken: list[tuple[int | None, ...]] = [(None, channels, None, None)] if any_sides else []
    taken += [(None, *shape), (1, *shape)]
    for place, wanted in enumerate(taken):
        open_lengths = {
            dimension: torch.export.Dim(name)
            for dimension, name in ((0, "batch"), (2, "height"), (3, "width"))
            if wanted[dimension] is None
        }
        example = torch.zeros(wanted[0] or 2, channels, height, width)
        try:
            program = torch.export.export(network, (example,), dynamic_shapes=(open_lengths,))
        except Exception:  # what a network's code lets be open is only known by trying
            if place == len(taken) - 1:
                raise
            continue
        return _without_places(program), wanted
    raise AssertionError("the last attempt returns or raises")


def _without_places(program: torch.export.ExportedProgram) -> torch.export.ExportedProgram:
    for module in program.graph_module.modules():
        for node in getattr(getattr(module, "graph", None), "nodes", ()):
            node.meta.pop("stack_trace", None)  # it names the folders of the machine that exports
    return program


def _write_torch_export(program: torch.export.ExportedProgram, path: Path) -> Answer:
    torch.export.save(program, path)
    read: nn.Module = torch.export.load(path).module()
    return read


def _write_onnx(traced: torch.export.ExportedProgram, path: Path) -> Answer:
    try:
        import onnxruntime
        import onnxscript  # type: ignore[import-not-found, unused-ignore]  # noqa: F401  what torch.onnx writes with
    except ImportError as error:
        raise UserError(f"the format onnx needs {error.name}: pip install onnx onnxscript onnxruntime") from None
    program = torch.onnx.export(traced, (), dynamo=True, input_names=[INPUT], output_names=[OUTPUT], verbose=False)
    assert program is not None
    program.save(path, external_data=False)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])

    def answer(images: torch.Tensor) -> torch.Tensor:
        return torch.from_numpy(session.run([OUTPUT], {INPUT: images.numpy()})[0])

    return answer


def _images(shape: tuple[int, int, int], taken: tuple[int | None, ...]) -> Iterator[torch.Tensor]:
    """Random images of several of the shapes that a program takes."""
    generator = torch.Generator().manual_seed(0)
    for count in _CHECKED if taken[0] is None else (1,) * len(_CHECKED):
        height, width = (
            (side + 3 * count if free is None else side) for side, free in zip(shape[1:], taken[2:], strict=True)
        )
        yield torch.randn(count, shape[0], height, width, generator=generator)


def _difference(network: nn.Module, answer: Answer, images: torch.Tensor) -> float:
    expected, found = network(images), answer(images)
    if expected.shape != found.shape:
        return float("inf")
    return float(((expected - found).abs() / expected.abs().clamp(min=1)).max())


@contextmanager
def _one_sentence(form: str) -> Iterator[None]:
    """Inside, whatever the tracers raise is one sentence."""
    try:
        yield
    except (UserError, OSError):
        raise
    except Exception as error:
        reason = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise UserError(
            f"the network cannot be written as {form} ({type(error).__name__}: {reason[:200]}); the safetensors can"
        ) from error
