"""Copies of a trial as Ray runs trials: each an actor with its share of one GPU, which nobody else has meanwhile."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import ray
from ray.exceptions import GetTimeoutError, RayError
from ray.util.placement_group import placement_group, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from kdsearch.training.mps import mps_is_on
from kdsearch.training.packing import CopyFailed, share_of
from kdsearch.training.probe import Probe
from kdsearch.tuning.failures import is_out_of_gpu_memory, reason_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from kdsearch.tuning.objective import TrainerObjectives

PATIENCE = 10.0
"""Seconds of waiting: for a GPU, after which a person is told; for an answer about MPS, which is then done without."""
ANSWERED_WITHIN = 900.0
"""Seconds that a copy may take for one answer: torch.compile takes minutes."""
LITTLE = 0.001
"""Of a resource that only says where to go."""


class Copy(Probe):
    """A probe whose Trainers are made as a trial's are."""

    def __init__(self, objectives: TrainerObjectives) -> None:
        super().__init__(objectives.trainer, objectives.device)


class RayCrew:
    """Copies in Ray's actors."""

    def __init__(self, actors: Sequence[Any]) -> None:
        self._actors = actors

    def each(self, what: str, *arguments: Any) -> list[Any]:
        """What this method of the Probe answers in each copy, called in all at once. Raises CopyFailed."""
        answers = [getattr(actor, what).remote(*arguments) for actor in self._actors]
        try:
            found: list[Any] = ray.get(answers, timeout=ANSWERED_WITHIN)
        except GetTimeoutError:
            raise CopyFailed(f"no answer within {ANSWERED_WITHIN:g} s", out_of_memory=False) from None
        except RayError as error:
            cause = getattr(error, "cause", None) or error
            reason = reason_of(cause).strip().splitlines()[0]
            raise CopyFailed(reason, out_of_memory=is_out_of_gpu_memory(cause)) from None
        return found


@contextlib.contextmanager
def ray_crew(group: Any, objectives: Any, cpus: float, copies: int) -> Iterator[RayCrew]:
    """So many copies on the GPU of a placement group; their processes end with the block.

    The next crew's processes start only when these have ended: together they would take more than there is.
    """
    strategy = PlacementGroupSchedulingStrategy(placement_group=group)
    remote: Any = ray.remote(num_cpus=cpus, num_gpus=share_of(copies), scheduling_strategy=strategy)
    actors = [remote(Copy).remote(objectives) for _ in range(copies)]
    try:
        yield RayCrew(actors)
    finally:
        for actor in actors:
            ray.kill(actor)


@contextlib.contextmanager
def whole_gpu(kind: str, cpus: float, announce: Callable[[str], None]) -> Iterator[Any]:
    """A GPU on which nothing of this cluster runs, with so many CPUs beside it, as a placement group.

    Args:
        kind: resource that tells the nodes with the right kind of GPU; empty: any GPU will do.
        cpus: for all copies together.
        announce: told when it has to be waited for.
    """
    group = placement_group([{"GPU": 1, "CPU": cpus} | ({kind: LITTLE} if kind else {})], strategy="STRICT_PACK")
    try:
        if not group.wait(PATIENCE):
            announce("waiting for a GPU that is free, to measure how many trials can share one")
            while not group.wait(PATIENCE):
                pass
        yield group
    finally:
        remove_placement_group(group)


def ask_about_mps(share: float) -> bool | None:
    """Whether processes share GPUs through NVIDIA MPS on a node with a GPU; None when none is free to ask."""
    answer = ray.remote(num_cpus=0, num_gpus=share, max_retries=0)(mps_is_on).remote()
    ready, _ = ray.wait([answer], timeout=PATIENCE)
    if not ready:
        ray.cancel(answer, force=True)
        return None
    try:
        found: bool = ray.get(answer)
    except RayError:
        return None
    return found
