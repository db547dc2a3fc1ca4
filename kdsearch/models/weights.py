"""Weights out of files: tensors only, and only where they fit; no code of a file ever runs."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from kdsearch.errors import BadWeights
from kdsearch.models import exported
from kdsearch.models.names import PRETRAINED
from kdsearch.models.sources import find
from kdsearch.models.stem import first_convolution

if TYPE_CHECKING:
    from torch import nn

    from kdsearch.models.sources import Normalisation
    from kdsearch.settings import NetworkSettings

# Where training programs put the state dict in their checkpoints.
_WRAPPERS = ("state_dict", "model_state_dict", "model", "net", "params_ema", "params")
# What DataParallel and torch.compile put before every name.
_PREFIXES = ("module.", "_orig_mod.")
# Tensors that an error names of each kind of misfit.
_NAMED = 3


def load_weights(module: nn.Module, path: str | Path) -> None:
    """Load a .safetensors file, a state dict saved by PyTorch, or the folder of an export, into the whole module.

    A checkpoint may hold the state dict under a usual key (`state_dict`, `model`, …) and under the prefixes of
    DataParallel or torch.compile. Raises BadWeights when the file is missing, damaged, holds more than tensors, or
    does not fit (the message names the tensors); the module is then as it was.
    """
    fit(module, read_state(path), str(path))


def read_state(path: str | Path) -> dict[str, torch.Tensor]:
    """The state dict in a file or the folder of an export. Raises BadWeights; see `load_weights`."""
    path = Path(path).expanduser()
    if path.is_dir():
        exported.read_student(path)
        path = path / exported.WEIGHTS
    if not path.is_file():
        raise BadWeights(f"there is no weights file {str(path)!r}")
    content = _read_safetensors(path) if path.suffix == ".safetensors" else _read_checkpoint(path)
    return _without_prefixes(_state_dict(content, path))


def read_published(url: str, network: str) -> dict[str, torch.Tensor]:
    """The state dict that is published at `url`, from where torch keeps its downloads; nothing is downloaded.

    Raises BadWeights, naming `network`, when it is not there or damaged.
    """
    path = Path(torch.hub.get_dir()) / "checkpoints" / Path(url).name
    if not path.is_file():
        raise BadWeights(
            f"the pretrained weights of {network} are not on this machine: put {path.name} into "
            f"{str(path.parent)!r}, or name a file of your own"
        )
    try:
        state: dict[str, torch.Tensor] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file can make the reader raise nearly anything
        raise BadWeights(f"{str(path)!r} is damaged, or holds more than tensors: remove or replace it") from error
    return state


def fit(module: nn.Module, state: Mapping[str, torch.Tensor], origin: str) -> None:
    """Load a state dict strictly. Raises BadWeights, naming tensors, where it does not fit; nothing is loaded then."""
    own = module.state_dict()
    misfits = [
        *_listed("lack", (name for name in own if name not in state)),
        *_listed("have beside them", (name for name in state if name not in own)),
        *_listed(
            "have in another shape",
            (
                f"{name} {_shape(state[name])} instead of {_shape(own[name])}"
                for name in own
                if name in state and state[name].shape != own[name].shape
            ),
        ),
    ]
    if misfits:
        raise BadWeights(f"the weights in {origin!r} do not fit {type(module).__name__}: they {'; '.join(misfits)}")
    module.load_state_dict(state)


def normalisation(settings: NetworkSettings, module: nn.Module, task: str = "classification") -> Normalisation | None:
    """Mean and standard deviation, per channel of images in [0, 1], that the network's weights were trained with.

    Known for pretrained weights and exports; None otherwise. Of pretrained weights that were brought to one channel
    it is the mean over the colours, and unknown for other numbers of channels.
    """
    settings = exported.resolve(settings)
    if settings.weights is None:
        return None
    if settings.weights == PRETRAINED:
        published = find(settings.name, task).normalisation()
        return None if published is None else _for_channels(published, _channels(module))
    if not exported.is_export(settings.weights):
        return None
    student = exported.read_student(settings.weights)
    if not student.get("mean") or not student.get("std"):
        return None
    return tuple(map(float, student["mean"])), tuple(map(float, student["std"]))


def _channels(module: nn.Module) -> int | None:
    convolution = first_convolution(module)
    return None if convolution is None else convolution.in_channels


def _for_channels(normalisation: Normalisation, channels: int | None) -> Normalisation | None:
    mean, std = normalisation
    if channels is None or channels == len(mean):
        return mean, std
    if channels != 1:
        return None
    return (sum(mean) / len(mean),), (sum(std) / len(std),)


def _read_safetensors(path: Path) -> dict[str, torch.Tensor]:
    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise BadWeights(f"{str(path)!r} is damaged or no safetensors file ({error})") from error


def _read_checkpoint(path: Path) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file can make the reader raise nearly anything
        raise BadWeights(
            f"{str(path)!r} is damaged, or holds more than tensors and plain values, which is never loaded"
            f"{_refused(error)}; save `model.state_dict()` alone"
        ) from error


def _refused(error: Exception) -> str:
    """The function or class that a file asks PyTorch's careful reader for."""
    named = re.search(r"GLOBAL (\S+)", str(error))
    return f" (it asks for {named[1].rstrip('.')})" if named else ""


def _state_dict(content: Any, path: Path) -> dict[str, torch.Tensor]:
    for _ in _WRAPPERS:
        inner = next((content[key] for key in _WRAPPERS if _has_mapping(content, key)), None)
        if inner is None:
            break
        content = inner
    if not isinstance(content, Mapping) or not content:
        raise BadWeights(f"{str(path)!r} holds no state dict, but a {type(content).__name__}")
    others = [str(name) for name, value in content.items() if not isinstance(value, torch.Tensor)]
    if others:
        raise BadWeights(f"{str(path)!r} holds no state dict: {_some(others)} is no tensor")
    return {str(name): tensor for name, tensor in content.items()}


def _has_mapping(content: Any, key: str) -> bool:
    return isinstance(content, Mapping) and isinstance(content.get(key), Mapping)


def _without_prefixes(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    for _ in _PREFIXES:
        for prefix in _PREFIXES:
            if all(name.startswith(prefix) for name in state):
                state = {name.removeprefix(prefix): tensor for name, tensor in state.items()}
    return state


def _listed(what: str, names: Iterable[str]) -> list[str]:
    found = list(names)
    return [f"{what} {_some(found)}"] if found else []


def _some(names: list[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return f"{', '.join(names[:_NAMED])}{more}"


def _shape(tensor: torch.Tensor) -> str:
    return "×".join(map(str, tensor.shape)) or "scalar"
