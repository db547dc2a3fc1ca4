"""A stub objective that imports no torch: rising curves whose end is known from the setting."""

from __future__ import annotations

import json
import os
import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from kdsearch.errors import Diverged
from kdsearch.objective import Report

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from kdsearch.settings import Scalar


def quality(hyperparameters: Mapping[str, Scalar]) -> float:
    """The final score of a setting: the nearer its temperature to 4, the better."""
    return 1.0 - abs(float(hyperparameters["temperature"]) - 4.0) / 20


@dataclass
class StubObjectives:
    """Makes stub objectives; what they do beside scoring is told by the fields."""

    epochs: int = 9
    seconds: float = 0.0
    diverge_above: float = float("inf")
    """Temperature above which the loss explodes at the second epoch."""
    raise_above: float = float("inf")
    """Temperature above which the code raises."""
    die_once_in: str | None = None
    """A file: the first process that trains a third epoch while it does not exist makes it and dies."""

    die_above: float = float("inf")
    """Temperature above which the process dies at once."""
    heal_with: str | None = None
    """A file that, once there, lets no trial raise any more."""
    gpu_share: float = 0.0
    """The share of a GPU below which a trial runs out of memory in its second epoch."""
    break_gpu_above: float = float("inf")
    """Temperature above which the third epoch fails as if a kernel had; so does all else in that process after it."""

    def __call__(self, hyperparameters: Mapping[str, Scalar]) -> StubObjective:
        return StubObjective(self, hyperparameters)


class StubObjective:
    def __init__(self, settings: StubObjectives, hyperparameters: Mapping[str, Scalar]) -> None:
        self.settings = settings
        self.hyperparameters = hyperparameters
        self.history: list[Report] = []

    def epoch(self) -> Report:
        number, temperature = len(self.history) + 1, float(self.hyperparameters["temperature"])
        time.sleep(self.settings.seconds)
        if temperature > self.settings.die_above:
            os._exit(1)
        if temperature > self.settings.raise_above and not os.path.exists(self.settings.heal_with or ""):
            raise ValueError(f"temperature {temperature:.2f} is too hot")
        if temperature > self.settings.diverge_above and number == 2:
            raise Diverged(17, {"cross_entropy": float("nan"), "kl": 3.0})
        if self.settings.die_once_in and number == 3:
            self._die_once(self.settings.die_once_in)
        if number == 2 and self.settings.gpu_share > 0:
            self._allocate(self.settings.gpu_share)
        if "KDSEARCH_STUB_BROKEN" in os.environ or (temperature > self.settings.break_gpu_above and number == 3):
            os.environ["KDSEARCH_STUB_BROKEN"] = "1"
            raise RuntimeError("CUDA error: device-side assert triggered")
        value = quality(self.hyperparameters) * number / self.settings.epochs
        report = Report(number, value, {"loss/total": 1 / number}, self.settings.seconds)
        self.history.append(report)
        return report

    @staticmethod
    def _die_once(marker: str) -> None:
        try:
            os.close(os.open(marker, os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            return
        os._exit(1)

    @staticmethod
    def _allocate(needed: float) -> None:
        import ray
        import torch

        assigned = ray.get_runtime_context().get_assigned_resources()
        share = max(amount for name, amount in assigned.items() if name.startswith("GPU"))
        if share < needed:
            raise torch.OutOfMemoryError(
                f"CUDA out of memory. Tried to allocate {needed:.2f} GiB, {share:.2f} are free"
            )

    def save(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "last.ckpt").write_text(json.dumps([asdict(report) for report in self.history]))

    def load(self, folder: Path) -> bool:
        try:
            stored = json.loads((folder / "last.ckpt").read_text())
        except FileNotFoundError:
            return False
        self.history = [Report(**report) for report in stored]
        return True

    def finish(self, folder: Path) -> float:
        return max(report.value for report in self.history)
