"""How many trials a search may hold, by caps, nodes and shares; without Ray."""

from __future__ import annotations

import json
from typing import Any

import pytest

from kdsearch.search_settings import ResourceSettings
from kdsearch.tuning import pool, room, shares
from kdsearch.tuning.room import Room


class Pool:
    """A cluster that a test can change, and a clock."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.nodes: list[dict[str, float]] = []
        self.grows = False
        self.clock = 1000.0
        monkeypatch.setattr(pool, "alive", lambda: list(self.nodes))
        monkeypatch.setattr(pool, "grows", lambda: self.grows)
        monkeypatch.setattr(room.time, "monotonic", lambda: self.clock)

    def has(self, *gpus: float) -> None:
        self.nodes = [{"GPU": count, "CPU": 64} for count in gpus]
        self.clock += room.LOOK


class Told:
    """A membership whose answers the test gives."""

    def __init__(self, share: int | None = None) -> None:
        self.share = share
        self.told: dict[str, Any] = {}

    def update(self, kind: str, size: float, wanted: int, held: int, total: float) -> None:
        self.told = {"kind": kind, "size": size, "wanted": wanted, "held": held, "total": total}


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Pool:
    return Pool(monkeypatch)


def room_for(made: Room, gpus: float, running: int | None = None, waiting: int = 1000) -> int:
    """How many trials it lets out, one after the other, when `running` have a process."""
    out: list[float] = []
    made.look(running or 0, out, gpus, waiting)
    while made.admits(out, gpus):
        out.append(gpus)
    return len(out)


@pytest.mark.parametrize(
    ("share", "promised"), [(1, 10), (0.5, 20), (0.25, 40), (0.125, 80), (0.4, 20), (2, 5), (4, 2), (3, 2)]
)
def test_a_share_of_a_gpu_does_not_spread_over_two_nor_a_trial_over_two_nodes(
    share: float, promised: int, cluster: Pool
) -> None:
    cluster.has(4, 4, 2)
    assert room_for(Room(ResourceSettings(cpus_per_trial=0.5)), share) == promised


@pytest.mark.parametrize(
    ("caps", "share", "most"),
    [
        ({"max_gpus": 3}, 1, 3),
        ({"max_gpus": 3}, 0.5, 6),
        ({"max_gpus": 3}, 0.4, 7),
        ({"max_gpus": 3}, 2, 1),
        ({"max_gpus": 3, "max_concurrent": 2}, 1, 2),
        ({"max_concurrent": 7}, 1, 7),
        ({"max_concurrent": 70}, 1, 10),
        ({"max_gpus": 3}, 0, 3 * 64),  # of a search on CPUs it says nothing
    ],
)
def test_caps(caps: dict[str, int], share: float, most: int, cluster: Pool) -> None:
    cluster.has(4, 4, 2)
    assert room_for(Room(ResourceSettings(**caps)), share) == most


def test_the_cap_on_gpus_counts_what_running_trials_hold_when_later_ones_take_more(cluster: Pool) -> None:
    """Four quarters of a GPU are out when a trial ran out of memory: two halves more fill the second GPU."""
    cluster.has(4)
    made = Room(ResourceSettings(max_gpus=2))
    out = [0.25] * 4
    while made.admits(out, 0.5):
        out.append(0.5)
    assert out == [0.25] * 4 + [0.5] * 2


def test_more_gpus_a_trial_than_the_cap_are_refused_in_one_sentence() -> None:
    with pytest.raises(ValueError, match=r"gpus_per_trial = 2 is more than max_gpus = 1"):
        ResourceSettings(gpus_per_trial=2, max_gpus=1)


def test_nodes_that_join_and_leave_change_it_within_a_second(cluster: Pool) -> None:
    cluster.has(4)
    made = Room(ResourceSettings())
    assert room_for(made, 1) == 4
    cluster.nodes.append({"GPU": 2, "CPU": 8})
    assert room_for(made, 1) == 4
    cluster.clock += room.LOOK
    assert room_for(made, 1) == 6
    cluster.has()
    assert room_for(made, 1) == 1  # a request that waits for the next node


def test_while_ray_does_not_answer_what_was_seen_last_holds(cluster: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    cluster.has(4)
    made = Room(ResourceSettings())
    assert room_for(made, 1) == 4

    def fail() -> list[dict[str, float]]:
        raise ConnectionError("no control store")

    monkeypatch.setattr(pool, "alive", fail)
    cluster.clock += room.LOOK
    assert room_for(made, 1) == 4


def test_it_tells_what_it_could_use_and_keeps_to_its_share(cluster: Pool) -> None:
    cluster.has(4, 4, 2)
    told = Told(share=3)
    made = Room(ResourceSettings(max_gpus=8, address="auto"), told)  # type: ignore[arg-type]
    assert room_for(made, 0.5, running=2) == 3
    assert told.told == {"kind": "GPU", "size": 0.5, "wanted": 16, "held": 2, "total": 10}
    assert room_for(made, 0, waiting=5) == 3
    assert told.told == {"kind": "CPU", "size": 1, "wanted": 5, "held": 0, "total": 192}
    told.share = None
    assert room_for(made, 0.5) == 16


def test_on_a_cluster_that_grows_it_asks_for_twice_what_fits_but_within_its_caps(cluster: Pool) -> None:
    cluster.has(2)
    cluster.grows = True
    capped = Room(ResourceSettings(max_concurrent=3, address="auto"), Told(share=2))  # type: ignore[arg-type]
    free = Room(ResourceSettings(address="auto"), Told(share=2))  # type: ignore[arg-type]
    assert (room_for(free, 1), room_for(capped, 1)) == (4, 3)
    cluster.has(0)
    empty = Room(ResourceSettings(address="auto"), Told(share=1))  # type: ignore[arg-type]
    assert room_for(empty, 1) == 2
    alone = Room(ResourceSettings())  # a Ray of its own, which has no autoscaler
    assert room_for(alone, 1) == 1


def test_it_asks_for_nothing_beyond_while_it_holds_more_than_its_share(cluster: Pool) -> None:
    cluster.has(4)
    cluster.grows = True
    made = Room(ResourceSettings(address="auto"), Told(share=2))  # type: ignore[arg-type]
    assert room_for(made, 1, running=3) == 2
    assert made.exceeded


def test_only_one_that_holds_too_much_for_a_while_pauses_trials(cluster: Pool) -> None:
    cluster.has(4)
    told = Told(share=4)
    made = Room(ResourceSettings(address="auto"), told)  # type: ignore[arg-type]

    def after(seconds: float, running: int) -> tuple[bool, bool]:
        cluster.clock += seconds
        made.look(running, [1.0] * running, 1, 10)
        return made.exceeded, made.must_pause

    assert after(0, 4) == (False, False)
    told.share = 2
    assert after(0, 4) == (True, False)
    assert after(room.PATIENCE - 1, 4) == (True, False)
    assert after(1, 3) == (True, True)
    assert after(1, 2) == (False, False)
    told.share = 1
    assert after(0, 2) == (True, False)  # patient anew


class Control:
    """Ray's control store, as far as an autoscaler writes there."""

    def __init__(self, version: int) -> None:
        from ray.core.generated import autoscaler_pb2

        reply = autoscaler_pb2.GetClusterStatusReply()
        reply.autoscaling_state.autoscaler_state_version = version
        self._answer = reply.SerializeToString()

    def get_cluster_status(self, timeout_s: int) -> bytes:
        return self._answer


@pytest.mark.parametrize(
    ("kinds", "version", "grows"),
    [
        (None, 0, False),  # no monitor at all
        ({"node_3f2a": 1, "node_77b0": 1}, 0, False),  # nodes that were started by hand
        ({"ray.head.default": 1}, 0, True),
        ({"node_3f2a": 1}, 4, True),  # version 2 of the autoscaler tells its state elsewhere
    ],
)
def test_a_cluster_grows_when_its_autoscaler_manages_nodes(
    kinds: dict[str, int] | None, version: int, grows: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the form of Ray 2.60, read in its monitor; no cluster in a cloud was asked."""
    from ray._private import worker
    from ray.experimental import internal_kv

    status = None if kinds is None else json.dumps({"autoscaler_report": {"active_nodes": kinds}}).encode()
    monkeypatch.setattr(internal_kv, "_internal_kv_get", lambda key: status)
    monkeypatch.setattr(type(worker.global_worker), "gcs_client", Control(version), raising=False)
    assert pool.grows() == grows


def test_shares_are_told_often_enough_not_to_expire() -> None:
    assert 3 * shares.BEAT <= shares.EXPIRES < shares.ALONE
