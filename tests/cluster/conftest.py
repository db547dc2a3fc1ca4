"""Clusters of several nodes on this machine, each a raylet of its own with logical GPUs."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest

from tests.cluster import searches

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ray.cluster_utils import Cluster


@pytest.fixture(scope="module")
def make_cluster() -> Iterator[Callable[..., Cluster]]:
    """`make_cluster(4, 4, 2)`: a cluster whose nodes have so many GPUs, the first being its head; all end with the
    file, and the environment is as it was."""
    before = dict(os.environ)
    from kdsearch.tuning.pool import ENVIRONMENT

    # A node would start as many processes ahead as it has CPUs, which no trial can use. And Ray gives its processes a
    # low priority, so that on a busy machine trials would hardly start.
    os.environ.update({**ENVIRONMENT, "RAY_prestart_worker_first_driver": "0", "RAY_worker_niceness": "0"})
    from ray.cluster_utils import Cluster

    made: list[Cluster] = []

    def make(*gpus: int, cpus: int = 2, **head: Any) -> Cluster:
        cluster = Cluster(
            initialize_head=True,
            head_node_args={"num_cpus": cpus, "num_gpus": gpus[0], "include_dashboard": False, **head},
        )
        made.append(cluster)
        for more in gpus[1:]:
            cluster.add_node(num_cpus=cpus, num_gpus=more)
        return cluster

    try:
        yield make
    finally:
        for cluster in made:
            cluster.shutdown()
        os.environ.clear()
        os.environ.update(before)


@pytest.fixture
def start() -> Iterator[Callable[..., searches.Search]]:
    """`searches.start`, whose searches end with the test."""
    begun: list[searches.Search] = []

    def begin(*place: Any, **plan: Any) -> searches.Search:
        begun.append(searches.start(*place, **plan))
        return begun[-1]

    yield begin
    for search in begun:
        if search.process.poll() is None:
            search.kill()
