"""What runs in each slot of the pool: one reused process, trial after trial."""

from __future__ import annotations

import contextlib
import os
import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import ray
from ray import tune

from kdsearch.errors import Diverged, LeaseLost, StorageError
from kdsearch.tuning.checkpoints import CheckpointClock
from kdsearch.tuning.failures import full_disk, is_broken_gpu, is_out_of_gpu_memory, reason_of
from kdsearch.tuning.folder import BEST
from kdsearch.tuning.metrics import GPUMemory, held_bytes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from kdsearch.objective import Objective, Report
    from kdsearch.settings import Scalar
    from kdsearch.tuning.place import Place

AGAIN_SECONDS = 2.0
"""Until a storage that is away is asked again by a trial that cannot go on without it."""
TOGETHER_SECONDS = 0.5
"""Short epochs are told together once they have taken this long: each way to the driver and back costs milliseconds."""


@dataclass(frozen=True)
class TrialContext:
    """What all trials of a search share; travels through the object store once per node."""

    objective: Callable[[Mapping[str, Scalar]], Objective]
    """Makes the objective of a setting. One instance per process: it may cache what its trials share."""
    place: Place
    """Keeps the trials' folders."""
    epochs: int
    checkpoint_every: int
    checkpoint_seconds: float
    decisions: frozenset[int] | None
    """Epochs after which the trial may be ended by its value, so that it waits for the verdict; None: each."""
    run: str | None = None
    """Under this name a trial's process tells its metrics; None: it tells none."""


class TrialActor(tune.Trainable):
    """Ray's side of a trial.

    The checkpoint is the objective's own file in the trial's folder, not Ray's: a new trial looks there first, so a
    retry after a lost process, a pause and a resumed search are one mechanism. What goes wrong inside a trial comes
    back as a result, not as an exception: the process survives and takes the next trial.
    """

    def setup(self, config: dict[str, Any], context: TrialContext | None = None) -> None:
        assert context is not None, "made by tune.with_parameters(TrialActor, context=…)"
        self._context = context
        self._memory = GPUMemory(context.run, held_bytes) if context.run is not None else None
        self._begin(config)

    def reset_config(self, config: dict[str, Any]) -> bool:
        """The process takes another trial: the one before has ended, or was paused right after a checkpoint."""
        self._leave()
        self._begin(config)
        return True

    def cleanup(self) -> None:
        """The process ends: an unfinished trial keeps what it did since its last checkpoint.

        Where that cannot be written, as on a full disk, the checkpoint before stays.
        """
        with contextlib.suppress(OSError):
            self._save()
        self._leave()

    def _begin(self, config: dict[str, Any]) -> None:
        self._number: int = config["number"]
        if self._memory is not None:
            self._memory.begin(self._number)
        self._hyperparameters: dict[str, Scalar] = config["hyperparameters"]
        self._begun: bool = config["begun"]
        self._place = self._context.place
        self._folder = self._place.folder(self._number)
        self._objective: Objective | None = None
        self._saved = 0
        self._checkpoints = CheckpointClock(self._context.checkpoint_every, self._context.checkpoint_seconds)
        self._untold: list[Report] = []
        self._value: float | None = None
        """Of a trial that is done, until its student is delivered."""
        self._behind: str | None = None
        """Why its last checkpoint is not where other processes find it."""

    def step(self) -> dict[str, Any]:
        place = {"number": self._number, "node": ray.util.get_node_ip_address(), "gpu_ids": _gpu_ids()}
        try:
            return place | self._advance()
        except (StorageError, LeaseLost) as error:
            time.sleep(AGAIN_SECONDS)
            return place | {"reports": [], "saved": False, "behind": str(error)}
        except Exception as error:
            epoch = len(self._objective.history) + 1 if self._objective is not None else 1
            self._objective = None
            return place | {"epoch": epoch, "reports": self._told()} | _answer_to(error, str(self._folder))

    def _advance(self) -> dict[str, Any]:
        """Some epochs; or, first after a restart, the reports that the checkpoint brings back."""
        if self._value is not None:
            return {"reports": [], "saved": False} | self._deliver()
        if self._objective is None:
            if self._begun:
                self._place.fetch(self._number)
            self._objective = self._context.objective(self._hyperparameters)
            if self._objective.load(self._folder):
                self._saved = len(self._objective.history)
                self._untold = list(self._objective.history)
                return self._answer(self._saved)
        until = time.monotonic() + TOGETHER_SECONDS
        while not self._must_tell(epoch := self._epoch(self._objective)) and time.monotonic() < until:
            pass
        return self._answer(epoch)

    def _epoch(self, objective: Objective) -> int:
        """Train one epoch, and write the checkpoint where it is due; the epoch's number."""
        report = objective.epoch()
        self._untold.append(report)
        if report.epoch < self._context.epochs and self._checkpoints.is_due(report.epoch):
            self._save()
        return report.epoch

    def _must_tell(self, epoch: int) -> bool:
        """Whether the trial goes on only when the driver has heard of this epoch.

        A checkpoint is a place to pause; and what the driver knows should not be behind it for long.
        """
        decisions = self._context.decisions
        return epoch >= self._context.epochs or self._saved == epoch or decisions is None or epoch in decisions

    def _told(self) -> list[dict[str, Any]]:
        """The reports that the driver has not heard of, which it is told now."""
        reports, self._untold = self._untold, []
        return [asdict(report) for report in reports]

    def _answer(self, epoch: int) -> dict[str, Any]:
        answer: dict[str, Any] = {"saved": self._saved == epoch and self._behind is None, "reports": self._told()}
        if epoch >= self._context.epochs:
            assert self._objective is not None
            self._value = self._objective.finish(self._folder / BEST)
            self._objective = None
            with self._noting_trouble():
                answer |= self._deliver()
        return answer | ({"behind": self._behind} if self._behind else {})

    def _deliver(self) -> dict[str, Any]:
        """The value of a trial that is done, once its student is where the driver finds it."""
        self._place.deliver(self._number)
        value, self._value, self._behind = self._value, None, None
        return {"value": value}

    def _save(self) -> None:
        if self._objective is not None and len(self._objective.history) > self._saved:
            self._objective.save(self._folder)
            self._saved = len(self._objective.history)
            self._checkpoints.written()
            with self._noting_trouble():
                self._place.deliver(self._number)

    @contextlib.contextmanager
    def _noting_trouble(self) -> Iterator[None]:
        """A storage that is away ends no trial: the next checkpoint goes there, or the student does later."""
        self._behind = None
        try:
            yield
        except (StorageError, LeaseLost) as error:
            self._behind = str(error)

    def _leave(self) -> None:
        self._objective = None
        self._place.leave(self._number)

    def save_checkpoint(self, checkpoint_dir: str) -> dict[str, Any]:
        self._save()
        return {}

    def load_checkpoint(self, checkpoint: Any) -> None:
        """Nothing to do: the first step looks into the trial's folder."""


def _answer_to(error: Exception, folder: str) -> dict[str, Any]:
    """What went wrong inside a trial, by its kind. Raises it where this process is of no use to the next trial."""
    if isinstance(error, Diverged):
        return {"diverged": str(error)}
    if is_out_of_gpu_memory(error):
        return {"out_of_memory": reason_of(error)}
    if (full := full_disk(error)) is not None:
        return {"full_disk": str(full.filename or folder)}
    if is_broken_gpu(error):
        raise error
    return {"failed": reason_of(error)}


def _gpu_ids() -> list[str]:
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    return [str(gpu) for gpu in ray.get_gpu_ids()] if visible else []
