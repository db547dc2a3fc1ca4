"""The least that a search on Ray must wait for: Ray's start and one worker that has imported torch."""

from __future__ import annotations

import time

import ray
import workload


@ray.remote
def work() -> str:
    import torch

    return torch.__version__


ray.init(address="local")
ray.get(work.remote())
workload.log(time.time(), 0.0)  # its end, which is not waited for, would be Ray's shutdown
