"""Two searches on one cluster take what is idle, and give it back as the other comes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.cluster import searches

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from ray.cluster_utils import Cluster

    Start = Callable[..., searches.Search]

pytestmark = pytest.mark.slow


def holding(search: searches.Search, since: float) -> int:
    """Processes of the search that recorded an epoch since then."""
    return len({epoch.process for epoch in search.epochs() if epoch.end >= since})


def now(*running: searches.Search) -> float:
    """The end of the last epoch that was recorded."""
    return max((epoch.end for search in running for epoch in search.epochs()), default=0.0)


def test_two_searches_hold_half_of_the_gpus_each_and_one_that_is_killed_leaves_all_to_the_other(
    make_cluster: Callable[..., Cluster], start: Start, tmp_path: Path
) -> None:
    """The first makes the actor that divides, and takes it along when it is killed."""
    cluster = make_cluster(4, 4, 2)
    one_gpu = {"gpus_per_trial": 1}
    first = start(tmp_path, cluster.address, name="first", trials=5000, resources=one_gpu, seconds=0.3)
    searches.wait_for("ten trials of the first", lambda: holding(first, now(first) - 20) >= 10, first)
    second = start(tmp_path, cluster.address, name="second", trials=5000, resources=one_gpu, seconds=0.3)
    both = (first, second)
    searches.wait_for("five trials of the second", lambda: holding(second, 0) >= 5, *both)
    came, told = now(second), len(second.epochs())
    # A window in which both have work, long enough for each slot to end several trials.
    searches.wait_for("five trials in each slot of the second", lambda: len(second.epochs()) >= told + 5 * 5 * 3, *both)
    ends = now(second)
    first.kill()
    held = []
    for search in both:
        spans = list(searches.spans(search.epochs(), by="process").values())
        moments = [epoch.end for epoch in second.epochs() if came < epoch.end < ends]
        held.append(sum(searches.at(spans, moment) for moment in moments) / len(moments))
    assert sum(held) <= 10
    assert all(4 <= slots <= 6 for slots in held), held
    # An expired search, and an actor that has to be made again: what the first held is the second's.
    searches.wait_for("ten trials of the second", lambda: holding(second, now(second) - 20) >= 10, second)
    second.kill()


def test_trials_that_would_go_on_for_long_pause_at_a_checkpoint_and_lose_nothing(
    make_cluster: Callable[..., Cluster], start: Start, tmp_path: Path
) -> None:
    """The first search has two trials on two GPUs, which end when the second has had what it needs."""
    cluster = make_cluster(2)
    options: dict[str, Any] = {"resources": {"gpus_per_trial": 1}, "trials": 2, "patience": 0.5, "seconds": 1.0}
    over = tmp_path / "over"
    first = start(tmp_path, cluster.address, name="first", epochs=200, hurry=str(over), **options)
    searches.wait_for("two trials of the first", lambda: holding(first, 0) == 2, first)
    second = start(tmp_path, cluster.address, name="second", epochs=2, **options)
    second.wait()
    over.touch()
    first.wait()
    for search, epochs in ((first, 200), (second, 2)):
        searches.assert_told_once(search.folder, epochs)
        assert len(search.epochs()) == 2 * epochs  # none was trained twice
    begun = searches.spans(second.epochs(), by="trial")
    ended = searches.spans(first.epochs(), by="trial")
    assert min(start for start, _ in begun.values()) < min(end for _, end in ended.values())
    places = {trial: {epoch.process for epoch in first.epochs() if epoch.trial == trial} for trial in ended}
    assert max(map(len, places.values())) >= 2  # one gave its process up, and went on in another
