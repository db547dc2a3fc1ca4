"""One search on many nodes: shares of GPUs give the concurrency that they promise, and nodes come and go."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from kdsearch.results import Results
from tests.cluster import searches

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from ray.cluster_utils import Cluster

    Start = Callable[..., searches.Search]

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def mixed(make_cluster: Callable[..., Cluster]) -> Cluster:
    """Three nodes with 4, 4 and 2 GPUs."""
    return make_cluster(4, 4, 2)


@pytest.mark.parametrize(
    ("share", "resources", "promised"),
    [(0.5, {"max_gpus": 5}, 10), (2, {"max_concurrent": 4}, 4)],
    ids=["halves of five", "two GPUs each, four at a time"],
)
def test_so_many_trials_run_at_a_time_as_shares_and_caps_promise_and_no_gpu_is_given_out_twice(
    share: float, resources: dict[str, Any], promised: int, mixed: Cluster, start: Start, tmp_path: Path
) -> None:
    given = {"gpus_per_trial": share, **resources}
    search = start(
        tmp_path, mixed.address, trials=promised + 3, epochs=3, resources=given, together=promised, seconds=0.1
    )
    search.wait()
    epochs = search.epochs()
    assert searches.most_at_once(epochs) == promised
    assert searches.most_at_once(epochs, by="process") == promised
    assert searches.most_of_a_gpu(epochs, share) <= 1
    assert {len(epoch.gpus) for epoch in epochs} == {max(1, int(share))}
    assert all(epoch.visible == ",".join(epoch.gpus) for epoch in epochs)
    searches.assert_told_once(tmp_path / "run", epochs=3)
    assert_shared(search)


def assert_shared(search: searches.Search) -> None:
    """Data in memory was packed once, and every process reads it where the object store of its node has it; what the
    trials of a process share, as they do the teacher, was made once in each."""
    processes, notes = {epoch.process for epoch in search.epochs()}, search.notes()
    assert len(search.epochs()) > len(processes)
    assert notes["packed"] == [search.process.pid]
    assert notes["copied"] == []
    for what in ("shared", "teacher"):
        assert sorted(notes[what]) == sorted(processes)


def test_eight_trials_share_one_gpu(make_cluster: Callable[..., Cluster], start: Start, tmp_path: Path) -> None:
    search = start(
        tmp_path, make_cluster(1).address, trials=10, epochs=2, resources={"gpus_per_trial": 0.125}, together=8
    )
    search.wait()
    epochs = search.epochs()
    assert searches.most_at_once(epochs) == 8
    assert searches.most_of_a_gpu(epochs, 0.125) == 1
    assert {tuple(epoch.gpus) for epoch in epochs} == {("0",)}


def test_a_node_that_joins_is_used_and_one_that_leaves_costs_no_trial(
    make_cluster: Callable[..., Cluster], start: Start, tmp_path: Path
) -> None:
    """Four trials at a time, which one node cannot hold; then the second node goes, in the middle of two trials."""
    cluster = make_cluster(2)
    search = start(
        tmp_path, cluster.address, trials=9, epochs=12, resources={"gpus_per_trial": 1}, together=4, seconds=0.2
    )
    searches.wait_for("two trials on the first node", lambda: len(list(search.log.glob("*.begun"))) == 2, search)
    joined = cluster.add_node(num_cpus=2, num_gpus=2)

    def well_under_way() -> bool:
        last = {epoch.trial: epoch.epoch for epoch in search.epochs() if epoch.node == joined.node_id}
        return len(last) >= 2 and all(3 <= epoch <= 9 for epoch in list(last.values())[-2:])

    searches.wait_for("two trials in their midst on the second node", well_under_way, search)
    cluster.remove_node(joined, allow_graceful=False)
    search.wait()
    results = Results(tmp_path / "run")
    assert Counter(trial.state for trial in results.trials) == {"COMPLETE": 9}
    searches.assert_told_once(tmp_path / "run", epochs=12)
    epochs = search.epochs()
    on_joined = [epoch for epoch in epochs if epoch.node == joined.node_id]
    assert searches.most_at_once(on_joined, by="process") == 2
    cut = {epoch.trial for epoch in on_joined} & {epoch.trial for epoch in epochs if epoch.node != joined.node_id}
    assert 1 <= len(cut) <= 2  # they went on where there was room
    # No more than the epoch after the last checkpoint is trained again.
    assert len(epochs) <= 9 * 12 + len(cut)
