"""A network as a program that runs without its Python: torch.export's or ONNX's, for any number of images, checked."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

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


def write_program(form: str, network: nn.Module, shape: tuple[int, int, int], path: Path) -> float:
    """Write the network in eval mode, on the CPU, as a program for float [B, C, H, W] with any B.

    The program is read back and compared with PyTorch on random images in batches of several sizes.

    Args:
        form: `torch_export` or `onnx`; the latter needs onnx, onnxscript and onnxruntime.
        network: what to write; it is moved to the CPU and put into eval mode.
        shape: (C, H, W) of its input.
        path: the file.

    Returns the largest difference found. Raises UserError, with nothing left at `path`, when the network cannot be
    written so, or the difference exceeds `TOLERANCE`.
    """
    network = network.cpu().eval()
    write = {"torch_export": _write_torch_export, "onnx": _write_onnx}[form]
    try:
        with _one_sentence(form), torch.no_grad():
            answer = write(network, torch.zeros(2, *shape), path)
            difference = max(_difference(network, answer, images) for images in _images(shape))
        if not difference <= TOLERANCE:
            raise UserError(
                f"the network as {form} differs from PyTorch by {difference:.2g} (allowed: {TOLERANCE:g}); does it "
                "draw random numbers when it is evaluated?"
            )
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    return difference


def _write_torch_export(network: nn.Module, example: torch.Tensor, path: Path) -> Answer:
    torch.export.save(_program(network, example), path)
    read: nn.Module = torch.export.load(path).module()
    return read


def _write_onnx(network: nn.Module, example: torch.Tensor, path: Path) -> Answer:
    try:
        import onnxruntime
        import onnxscript  # type: ignore[import-not-found, unused-ignore]  # noqa: F401  what torch.onnx writes with
    except ImportError as error:
        raise UserError(f"the format onnx needs {error.name}: pip install onnx onnxscript onnxruntime") from None
    program = torch.onnx.export(
        _program(network, example), (), dynamo=True, input_names=[INPUT], output_names=[OUTPUT], verbose=False
    )
    assert program is not None
    program.save(path, external_data=False)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])

    def answer(images: torch.Tensor) -> torch.Tensor:
        return torch.from_numpy(session.run([OUTPUT], {INPUT: images.numpy()})[0])

    return answer


def _program(network: nn.Module, example: torch.Tensor) -> Any:
    return torch.export.export(network, (example,), dynamic_shapes=({0: torch.export.Dim("batch")},))


def _images(shape: tuple[int, int, int]) -> Iterator[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    for count in _CHECKED:
        yield torch.randn(count, *shape, generator=generator)


def _difference(network: nn.Module, answer: Answer, images: torch.Tensor) -> float:
    expected, found = network(images), answer(images)
    if expected.shape != found.shape:
        return float("inf")
    return float((expected - found).abs().max() / max(1.0, float(expected.abs().max())))


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
