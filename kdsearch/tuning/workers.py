"""Work on a run's pool that is no search: a Ray task for each training."""

from __future__ import annotations

import contextlib
from collections import deque
from typing import TYPE_CHECKING, Any

from kdsearch import data as data_sets
from kdsearch.errors import RunError, SearchFailed
from kdsearch.tuning.failures import full_disk, reason_of
from kdsearch.tuning.pool import pool, slots

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from kdsearch.experiment import Experiment
    from kdsearch.results.confirm_log import Done
    from kdsearch.results.remote import Remote
    from kdsearch.tuning.confirm_student import Job, Work


class Workers:
    """The pool of a run with its data and teacher, there from the first work on and until the block is left.

    Args:
        experiment: of the run.
        storage: where trained teachers lie.
        announce: told in a sentence what is prepared.
        verbose: let Ray speak.
        remote: the storage at a URL of the run; a pool of more than one node is then refused, as what the work writes
            must lie in a folder of this machine.
    """

    def __init__(
        self,
        experiment: Experiment,
        storage: Path,
        announce: Callable[[str], None],
        *,
        verbose: bool = False,
        remote: Remote | None = None,
    ) -> None:
        self._experiment = experiment
        self._storage = storage
        self._announce = announce
        self._verbose = verbose
        self._remote = remote
        self._held = contextlib.ExitStack()
        self._objectives: Any = None

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *error: object) -> None:
        self._held.close()

    def each(self, work: Work, jobs: Sequence[Job]) -> Iterator[Done]:
        """What the work gives for each job, as they end; where one fails, the others are ended.

        Where the caller leaves, as by Ctrl-C, they end with the pool: a terminal has told their processes too, and Ray
        2.60 ends this one (`_Exit(1)`) when a task that it cancels answers at that moment.

        Each has the CPUs and GPUs of a trial, and as many run at a time as trials would. A lost process or node is
        made up for as often as the run allows. Raises SearchFailed with the reason of a failure, and the OSError of a
        full disk.
        """
        if not jobs:
            return
        import ray

        objectives, resources = self.ready(), self._experiment.resources
        gpus = resources.gpus
        task: Any = ray.remote(num_cpus=resources.cpus_per_trial, num_gpus=gpus, max_retries=resources.max_failures)
        remote = task(work)
        room = slots(resources.cpus_per_trial, gpus, resources.max_concurrent, resources.max_gpus)
        waiting = deque(jobs)
        running: dict[Any, Job] = {}
        try:
            while waiting or running:
                while waiting and len(running) < room:
                    job = waiting.popleft()
                    running[remote.remote(objectives, job)] = job
                (reference,), _ = ray.wait(list(running))
                yield _answer(reference, running.pop(reference))
        except Exception:
            for reference in running:
                ray.cancel(reference, force=True)
            raise

    def ready(self) -> Any:
        """Data and teacher in the object store, where all processes of a node map the same memory."""
        if self._objectives is None:
            wait_for_ray = self._held.enter_context(pool(self._experiment.resources, self._verbose))
            self._announce("loading the data")
            data = data_sets.load(self._experiment.data, self._experiment.task)
            wait_for_ray()
            # Not above: it imports ray, for which the pool sets the environment.
            import ray

            from kdsearch.tuning.prepare import prepare

            check_pool(self._remote)
            self._objectives = ray.put(prepare(self._experiment, data, self._storage, self._announce, self._remote))
        return self._objectives


def check_pool(remote: Remote | None) -> None:
    """Raise RunError where the run lies at a URL and the pool, which is there by now, has more than one node."""
    from kdsearch.tuning.nodes import other_nodes  # imports ray, for which the pool sets the environment

    if remote is not None and other_nodes():
        raise RunError(
            f"the run lies at {remote}, for which a confirmation works on one machine and the pool has several: "
            "leave the cluster, or copy the run to a folder that all nodes see"
        )


def _answer(reference: Any, job: Job) -> Done:
    import ray

    try:
        done: Done = ray.get(reference)
    except ray.exceptions.RayError as error:
        cause = getattr(error, "cause", None) or error
        if (full := full_disk(cause)) is not None:
            raise full from None
        reason = reason_of(cause).strip().splitlines()[0]
        raise SearchFailed(
            f"trial {job.trial} with seed {job.seed} failed: {reason}\n"
            "what had ended is kept; mend it and give the same command again"
        ) from None
    return done
