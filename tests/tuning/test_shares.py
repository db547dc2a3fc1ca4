"""Shares of a cluster, without one: who may hold how much."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import hypothesis
import pytest
from hypothesis import strategies

from kdsearch.tuning import shares
from kdsearch.tuning.shares import Need, Shares, fair_shares


def needs(*wanted: int, total: float = 10, **more: Any) -> dict[str, Need]:
    """Searches a, b, c … of one GPU a trial."""
    return {
        name: Need("GPU", 1, count, more.get("held", 0), total, order=order)
        for order, (name, count) in enumerate(zip("abcdefgh", wanted, strict=False))
    }


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ((100,), [10]),
        ((100, 100), [5, 5]),
        ((100, 2), [8, 2]),
        ((3, 100, 100), [3, 4, 3]),  # the last slot goes to who came first
        ((0, 100), [0, 10]),
        ((4, 4), [4, 4]),
    ],
)
def test_what_one_does_not_want_is_the_others(wanted: tuple[int, ...], expected: list[int]) -> None:
    assert list(fair_shares(needs(*wanted)).values()) == expected


@hypothesis.given(
    strategies.lists(
        strategies.tuples(strategies.sampled_from([0.25, 0.5, 1, 2]), strategies.integers(0, 40)),
        min_size=1,
        max_size=6,
    ),
    strategies.integers(1, 32),
)
def test_nothing_is_given_twice_or_left_idle_and_nobody_envies_one_that_has_more(
    searches: list[tuple[float, int]], total: int
) -> None:
    told = {
        str(order): Need("GPU", size, wanted, 0, total, order=order) for order, (size, wanted) in enumerate(searches)
    }
    found = fair_shares(told)
    amounts = {name: found[name] * need.size for name, need in told.items()}
    left = total - sum(amounts.values())
    assert left >= 0
    for name, need in told.items():
        assert found[name] <= need.wanted
        if found[name] < need.wanted:
            assert left < need.size
            # Whoever has more got its last trial when it had no more than this one.
            for other, theirs in told.items():
                if found[other]:
                    assert amounts[other] - theirs.size <= amounts[name] + 1e-9 or need.size > theirs.size


def test_searches_on_gpus_and_on_cpus_do_not_take_from_each_other() -> None:
    told = needs(100) | {"cpu": Need("CPU", 2, 100, 0, 16)}
    assert fair_shares(told) == {"a": 10, "cpu": 8}


def test_of_more_searches_than_slots_each_has_its_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three searches, two slots, a trial of 50 s each: over a long time all three were served alike."""
    clock = 0.0
    monkeypatch.setattr(shares.time, "monotonic", lambda: clock)
    actor, held, served = Shares(), dict.fromkeys("abc", 0), dict.fromkeys("abc", 0.0)
    for step in range(2000):
        clock += 5
        for name in "abc":
            served[name] += 5 * held[name]
            share = actor.tell(name, "GPU", 1, 4, held[name], 2)
            if step % 10 == 0 or share > held[name]:  # it gives back when a trial ends, and takes what is free
                held[name] = min(share, held[name] + 2 - sum(held.values()))
    assert sum(served.values()) > 0.9 * 2 * clock
    assert max(served.values()) - min(served.values()) <= 3 * shares.TURN


def test_a_search_that_tells_nothing_holds_no_share(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = 0.0
    monkeypatch.setattr(shares.time, "monotonic", lambda: clock)
    actor = Shares()
    assert actor.tell("a", "GPU", 1, 100, 0, 10) == 10
    assert actor.tell("b", "GPU", 1, 100, 0, 10) == 5
    clock += shares.EXPIRES - 0.1
    assert actor.tell("b", "GPU", 1, 100, 5, 10) == 5
    clock += 0.2
    assert actor.tell("b", "GPU", 1, 100, 5, 10) == 10
    assert actor.searches() == ["b"]


def test_one_that_leaves_gives_its_share_back_at_once() -> None:
    actor = Shares()
    actor.tell("a", "GPU", 1, 100, 0, 10)
    assert actor.tell("b", "GPU", 1, 100, 0, 10) == 5
    actor.leave("a")
    actor.leave("a")  # twice does no harm
    assert actor.tell("b", "GPU", 1, 100, 5, 10) == 10


def test_a_newcomer_does_not_get_all_for_what_others_held_before(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = 0.0
    monkeypatch.setattr(shares.time, "monotonic", lambda: clock)
    actor = Shares()
    for _ in range(2000):
        clock += 5
        actor.tell("old", "GPU", 1, 4, 1, 1)
    assert actor.tell("new", "GPU", 1, 4, 0, 1) == 0
    assert actor.tell("old", "GPU", 1, 4, 1, 1) == 1


class Broken:
    """An actor none of whose calls ever works."""

    def __getattr__(self, name: str) -> Any:
        raise ConnectionError("no control store")


def test_a_search_that_never_hears_of_the_others_goes_on_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = 0.0
    monkeypatch.setattr(shares.time, "monotonic", lambda: clock)
    monkeypatch.setattr(shares, "_shared_actor", Broken)
    membership = shares.Membership("a")
    assert membership.share == 1
    for _ in range(int(shares.ALONE)):
        clock += 1
        membership.update("GPU", 1, 4, 0, 4)
        assert membership.share == 1
    clock += 1
    membership.update("GPU", 1, 4, 0, 4)
    assert membership.share is None
    membership.leave()


def test_the_actor_needs_no_torch_and_ray_only_where_it_is_called() -> None:
    script = "import sys, kdsearch.tuning.shares; print([name for name in ('torch', 'ray') if name in sys.modules])"
    answer = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "[]"
