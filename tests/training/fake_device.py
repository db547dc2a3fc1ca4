"""A GPU that is none: processes share its memory and run out of it, and the more there are the longer a step takes.

What the processes hold is kept in a folder, one file for each, so that all of them see the same memory. A step takes
`step` seconds on the device and `host` seconds around it: alone a process keeps the device busy for a part of the time,
and several of them until it is busy all of the time. A process holds `tensors` bytes from its first step on, and
`context` bytes from its first look.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import torch


@dataclass
class FakeDevice:
    folder: str
    """Where processes meet."""
    total: int = 1000
    context: int = 20
    tensors: int = 100
    others: int = 0
    """Bytes that programs which are none of ours hold."""
    step: float = 0.5
    host: float = 1.0
    model: str = "Fake"
    refuses: int | None = None
    """So many processes find no memory, whatever they hold: what fragments leaves no room."""
    kills: int | None = None
    """Of so many processes the last one is ended from outside."""

    def __post_init__(self) -> None:
        self._clock = 0.0
        self.fraction = 1.0
        """Of the whole, to which this process is held."""
        self._held = 0

    def count(self) -> int:
        return 1

    def name(self) -> str:
        self._hold(0)
        return self.model

    def total_memory(self) -> int:
        return self.total

    def used_memory(self) -> int:
        return self.others + sum(self._holding())

    def reserved_memory(self) -> int:
        return self._held

    def peak_memory(self) -> int:
        return self._held

    def forget(self) -> None:
        self._hold(0)

    def limit_memory(self, fraction: float) -> None:
        self.fraction = fraction
        with (Path(self.folder) / "limits").open("a") as file:
            file.write(f"{os.getpid()} {fraction:.6f}\n")

    def synchronise(self) -> None:
        self._hold(self.tensors)

    def now(self) -> float:
        """Looked at once a step, so each look is a step later."""
        alone = self.step + self.host
        self._clock += max(alone, self.step * len(self._holding()))
        return self._clock

    def _hold(self, tensors: int) -> None:
        """Hold so much. Raises torch's own error where it is more than the share, or than there is."""
        if tensors > self.fraction * self.total:
            raise torch.OutOfMemoryError(f"CUDA out of memory. {self.fraction:.2f} of the device is allowed")
        file = Path(self.folder) / f"{os.getpid()}.held"
        part = file.with_suffix(".part")
        part.write_text(str(self.context + tensors))
        part.replace(file)  # others see all of it or nothing
        self._held = tensors
        together = len(self._holding())
        if self.kills is not None and together >= self.kills:
            os._exit(1)
        if self.used_memory() > self.total or (self.refuses is not None and together >= self.refuses):
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1.00 GiB")

    def _holding(self) -> list[int]:
        """What each living process holds."""
        found = []
        for file in Path(self.folder).glob("*.held"):
            if Path(f"/proc/{file.stem}").exists():
                found.append(int(file.read_text()))
        return found
