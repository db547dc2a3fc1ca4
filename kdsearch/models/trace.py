"""What happens inside a network during one forward pass: the tree of calls of its sub-modules."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from torch import nn


@dataclass(eq=False)
class Call:
    """One call of one sub-module."""

    name: str
    """Dotted name of the sub-module; the network itself is ``."""
    module: nn.Module
    arguments: tuple[Any, ...]
    keywords: dict[str, Any]
    children: list[Call] = field(default_factory=list)
    """Calls made during this one, in order."""
    output: Any = None
    version: int = 0
    """Version of the output tensor when the call ended: a later one means that it was overwritten in place."""

    def walk(self) -> Iterator[Call]:
        """This call and all calls made during it, in the order in which they began."""
        yield self
        for child in self.children:
            yield from child.walk()

    @property
    def given(self) -> torch.Tensor | None:
        """The first argument, where it is a tensor."""
        return first_tensor(self.arguments)


def first_tensor(value: Any) -> torch.Tensor | None:
    """A tensor itself, or the first of a tuple or list that begins with one."""
    if isinstance(value, (tuple, list)) and value:
        value = value[0]
    return value if isinstance(value, torch.Tensor) else None


def zeros(module: nn.Module, shape: tuple[int, ...]) -> torch.Tensor:
    """Zeros of `shape` where the parameters of the module are, in their type."""
    parameter = next((parameter for parameter in module.parameters() if parameter.is_floating_point()), None)
    if parameter is None:
        return torch.zeros(shape)
    return torch.zeros(shape, device=parameter.device, dtype=parameter.dtype)


@contextmanager
def undisturbed(module: nn.Module) -> Iterator[None]:
    """Eval mode without gradient; afterwards modes, buffers and the random state are as they were."""
    modes = {part: part.training for part in module.modules()}
    module.eval()
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            yield
    finally:
        for part, mode in modes.items():
            part.training = mode


def uncompiled(module: nn.Module) -> AbstractContextManager[None]:
    """Where a compiled network runs as plain PyTorch: compiled code does not see hooks that come and go."""
    if getattr(module, "_compiled_call_impl", None) is None and not hasattr(module, "_orig_mod"):
        return nullcontext()
    stance: AbstractContextManager[None] = torch.compiler.set_stance("force_eager")
    return stance


def trace(module: nn.Module, example: torch.Tensor) -> Call:
    """The calls of one forward pass of `example`, in eval mode; whatever the network raises comes through."""
    open_calls: list[Call] = []
    finished: list[Call] = []

    def began(name: str, part: nn.Module, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> None:
        open_calls.append(Call(name, part, arguments, keywords))

    def ended(output: Any) -> None:
        call = open_calls.pop()
        call.output = output
        tensor = first_tensor(output)
        call.version = 0 if tensor is None else tensor._version
        (open_calls[-1].children if open_calls else finished).append(call)

    handles = []
    for name, part in module.named_modules():
        before = _before(name, began)
        handles.append(part.register_forward_pre_hook(before, with_kwargs=True))
        handles.append(part.register_forward_hook(lambda _part, _arguments, output: ended(output)))
    try:
        with undisturbed(module), uncompiled(module):
            module(example)
    finally:
        for handle in handles:
            handle.remove()
    return finished[0]


def _before(name: str, began: Any) -> Any:
    def hook(part: nn.Module, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> None:
        began(name, part, arguments, keywords)

    return hook
