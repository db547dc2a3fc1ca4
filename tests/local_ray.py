"""A real Ray of a test file's own, in pytest's process."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

import ray

from kdsearch.tuning.pool import ENVIRONMENT


@contextlib.contextmanager
def started(cpus: int) -> Iterator[None]:
    """Ray with so many CPUs for the time of the block, in the environment of a search."""
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    ray.init(address="local", num_cpus=cpus, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()
