"""A stub objective that writes checkpoints as the Trainer does, leaves a student, and can be killed."""

from __future__ import annotations

import errno
import json
import os
import signal
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kdsearch import files
from kdsearch.objective import Report
from tests.results.build_run import facts
from tests.tuning.stub import StubObjective, StubObjectives

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kdsearch.settings import Scalar


@dataclass
class FaultyObjectives(StubObjectives):
    """Makes stub objectives in which things go wrong once."""

    kill_in_checkpoint: tuple[int, int, int] | None = None
    """Process, epoch, renaming: when a checkpoint is about to do that renaming, the process and this one are killed."""
    hold_at: str | None = None
    """A file: the first trial that begins its third epoch while it is not there writes process and node, and stays."""
    full_at: int | None = None
    """Epoch whose checkpoint does not fit on the disk."""

    def __call__(self, hyperparameters: Mapping[str, Scalar]) -> FaultyObjective:
        return FaultyObjective(self, hyperparameters)


class FaultyObjective(StubObjective):
    settings: FaultyObjectives

    def epoch(self) -> Report:
        if self.settings.hold_at and len(self.history) == 2 and not os.path.exists(self.settings.hold_at):
            self._hold(Path(self.settings.hold_at))
        number = len(self.history) + 1
        # Best at a temperature of 9, which is not the paper's: the winner has to be found.
        value = (1 - abs(float(self.hyperparameters["temperature"]) - 9) / 20) * number / self.settings.epochs
        self.history.append(Report(number, value, {"loss/total": 1 / number}))
        return self.history[-1]

    @staticmethod
    def _hold(marker: Path) -> None:
        import ray

        place = {"process": os.getpid(), "node": ray.get_runtime_context().get_node_id()}
        files.write_atomic(marker, json.dumps(place).encode())
        time.sleep(600)

    def save(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        content = json.dumps([asdict(report) for report in self.history]).encode()
        before, replace = Path.replace, Path.replace
        calls = 0
        kill = self.settings.kill_in_checkpoint
        if len(self.history) == self.settings.full_at:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder / "last.ckpt"))

        def replace_or_die(path: Path, target: Path) -> Path:
            nonlocal calls
            calls += 1
            if kill is not None and (len(self.history), calls) == kill[1:]:
                os.kill(kill[0], signal.SIGKILL)
                os.kill(os.getpid(), signal.SIGKILL)
            return replace(path, target)

        Path.replace = replace_or_die  # type: ignore[method-assign, assignment]
        try:
            files.write_checked(folder / "last.ckpt", content)
        finally:
            Path.replace = before  # type: ignore[method-assign]

    def load(self, folder: Path) -> bool:
        content = files.read_checked(folder / "last.ckpt")
        if content is None:
            return False
        self.history = [Report(**report) for report in json.loads(content)]
        return True

    def finish(self, folder: Path) -> float:
        from safetensors.numpy import save

        value = super().finish(folder)
        folder.mkdir(parents=True, exist_ok=True)
        weights = {"temperature": np.array([float(self.hyperparameters["temperature"])])}
        files.write_atomic(folder / "student.safetensors", save(weights))
        known: dict[str, Any] = facts(value=value, epochs=self.settings.epochs)
        files.write_atomic(folder / "facts.json", json.dumps(known).encode())
        return value
