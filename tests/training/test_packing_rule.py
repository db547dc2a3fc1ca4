"""How many trials share a GPU, as a function of what is measured; and which setting is the one to measure."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from kdsearch.experiment import Experiment
from kdsearch.training.packing import (
    CopyFailed,
    Level,
    Limit,
    Packing,
    alternatives,
    most_demanding,
    pack,
    share_of,
)
from kdsearch.training.probe import Described, Occupied, Pace

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from kdsearch.settings import Scalar

ENOUGH = Limit(64, "nobody needs more")


@dataclass
class Gpu:
    """A GPU of which is known how fast so many copies are together, and what each takes."""

    rates: dict[int, float]
    """Steps per second of so many copies together."""
    tensors: int = 100
    context: int = 20
    others: int = 0
    total: int = 10_000
    fails: dict[int, CopyFailed] = field(default_factory=dict)
    """What so many copies end in."""
    started: list[int] = field(default_factory=list)
    asked: list[dict[str, Scalar]] = field(default_factory=list)

    @contextlib.contextmanager
    def start(self, copies: int) -> Iterator[Gpu]:
        assert self.running == 0, "the crew before has not ended"
        self.started.append(copies)
        self.running = copies
        yield self
        self.running = 0

    running = 0

    def each(self, what: str, *arguments: Any) -> list[Any]:
        return [getattr(self, what)(*arguments) for _ in range(self.running)]

    def describe(self) -> Described:
        return Described("Fake", self.total, mps=False)

    def peak(self, setting: Mapping[str, Scalar]) -> int:
        self.asked.append(dict(setting))
        return self.tensors

    def prepare(self, setting: Mapping[str, Scalar]) -> None:
        if self.running in self.fails:
            failure = self.fails[self.running]
            self.running = 0
            raise failure

    def run(self, seconds: float) -> Pace:
        used = self.others + self.running * (self.context + self.tensors)
        steps = round(self.rates[self.running] * seconds)
        return Pace(steps, seconds * self.running, Occupied(self.tensors, self.tensors, used))


def packed(gpu: Gpu, limit: Limit = ENOUGH) -> Packing:
    made = Experiment(method="ce", space={"learning_rate": {"low": 0.1, "high": 1}})
    return pack(gpu.start, made, (), limit, seconds=1000.0)


def test_copies_double_until_the_throughput_no_longer_grows_by_a_twentieth() -> None:
    gpu = Gpu({1: 10, 2: 19, 4: 30, 8: 31.4})
    found = packed(gpu)
    assert gpu.started == [1, 2, 4, 8]
    assert found.copies == 4
    assert found.why == "8 took +5% steps a second"
    assert [level.rate for level in found.levels] == pytest.approx([10, 19, 30, 31.4])
    assert packed(Gpu({1: 10, 2: 19, 4: 30, 8: 31.6, 16: 31.6})).copies == 8  # 1.05 × 30 = 31.5


def test_memory_limits_the_copies_and_as_many_as_fit_are_tried() -> None:
    """Nine tenths of 900 bytes hold six of 120, not eight."""
    gpu = Gpu({1: 10, 2: 20, 4: 40, 6: 60}, total=900)
    found = packed(gpu)
    assert gpu.started == [1, 2, 4, 6]
    assert (found.copies, found.levels[-1].memory) == (6, 720)
    assert found.why.startswith("7 would take")


def test_what_other_programs_hold_is_not_counted_for_each_copy() -> None:
    gpu = Gpu({1: 10, 2: 20, 4: 40, 6: 60}, total=1000, others=150)
    assert packed(gpu).copies == 6  # 150 + 6·120 = 870 of 900


def test_a_copy_that_is_out_of_memory_sends_the_search_back() -> None:
    gpu = Gpu({1: 10, 2: 20}, fails={4: CopyFailed("CUDA out of memory", out_of_memory=True)})
    found = packed(gpu)
    assert gpu.started == [1, 2, 4]
    assert (found.copies, found.why) == (2, "4 failed: out of GPU memory")
    assert found.levels[-1] == Level(4, failure="out of GPU memory")


def test_a_copy_that_dies_sends_it_back_too() -> None:
    gpu = Gpu({1: 10}, fails={2: CopyFailed("the worker died", out_of_memory=False)})
    assert (packed(gpu).copies, packed(gpu).why) == (1, "2 failed: the worker died")


def test_when_one_alone_fails_there_is_no_answer() -> None:
    with pytest.raises(CopyFailed, match="CUDA out of memory"):
        packed(Gpu({}, fails={1: CopyFailed("CUDA out of memory", out_of_memory=True)}))


def test_more_copies_than_there_is_a_use_for_are_not_tried() -> None:
    gpu = Gpu({1: 10, 2: 20, 3: 30})
    found = packed(gpu, Limit(3, "a node has CPUs for no more than 3 a GPU"))
    assert gpu.started == [1, 2, 3]
    assert (found.copies, found.why) == (3, "a node has CPUs for no more than 3 a GPU")


def test_slower_together_is_alone() -> None:
    assert packed(Gpu({1: 10, 2: 9})).copies == 1


def test_what_is_known_is_not_measured_again() -> None:
    gpu = Gpu({1: 10, 2: 20})
    made = Experiment(method="ce")
    known = Packing(Described("Fake", 1, mps=True), {}, (), 7, "it was found before", 0.0)
    assert pack(gpu.start, made, (), ENOUGH, known=lambda device: known) is known
    assert gpu.started == [1]


@pytest.mark.parametrize(("copies", "share"), [(1, 1.0), (2, 0.5), (3, 0.3333), (6, 0.1666), (7, 0.1428), (8, 0.125)])
def test_as_many_shares_as_copies_are_one_gpu_for_ray(copies: int, share: float) -> None:
    assert share_of(copies) == share
    assert int(1 / share + 1e-9) == copies  # how the pool counts its slots


def lsskd(**changes: Any) -> Experiment:
    space = {
        "alpha": {"low": 0, "high": 0.9},
        "batch_size": {"choices": [32, 256, 64]},
        "heads": {"choices": ["middle", "all", "last"]},
        "head_kind": {"choices": ["light", "deep"]},
        "gamma": {"low": 0.001, "high": 1, "log": True, "or_zero": True},
    }
    return Experiment(**({"method": "lsskd", "space": space} | changes))


def test_of_numbers_the_largest_is_measured_and_of_other_choices_each() -> None:
    found = alternatives(lsskd())
    assert found == {
        "alpha": [0.9],
        "batch_size": [256],
        "gamma": [1.0],
        "head_kind": ["light", "deep"],
        "heads": ["all", "middle", "last"],  # the paper's first
    }


def test_the_papers_value_and_what_is_tried_first_count_too() -> None:
    made = lsskd(training={"batch_size": 512})
    assert alternatives(made)["batch_size"] == [512]
    found = alternatives(made, [{"batch_size": 1024, "heads": "1,2", "optimizer": "adam"}, {"batch_size": 8}])
    assert found["batch_size"] == [1024]
    assert found["heads"] == ["all", "1,2", "middle", "last"]
    assert found["optimizer"] == ["sgd", "adam"]


def test_the_most_demanding_setting_is_the_largest_numbers_and_the_measured_worst_of_the_rest() -> None:
    asked: list[Mapping[str, Scalar]] = []

    def memory(setting: Mapping[str, Scalar]) -> int:
        asked.append(setting)
        heads = {"all": 30, "middle": 10, "last": 20}[str(setting["heads"])]
        return heads * (2 if setting["head_kind"] == "deep" else 1)

    setting = most_demanding(lsskd(), (), memory)
    assert (setting["heads"], setting["head_kind"], setting["batch_size"]) == ("all", "deep", 256)
    assert len(asked) == 5  # two kinds, then three choices of stages
    assert all(one["batch_size"] == 256 for one in asked)
    lsskd().resolve(setting)


def test_what_is_off_in_trial_0_is_on_in_the_most_demanding_setting() -> None:
    made = Experiment(method="ce", space={"mixup": {"low": 0.1, "high": 0.5, "or_zero": True}})
    assert made.paper()["mixup"] == 0
    assert most_demanding(made, (), lambda setting: 1)["mixup"] == 0.5


def test_numbers_keep_their_type_and_mixing_stays_possible() -> None:
    space = {"batch_size": {"low": 16, "high": 128}, "cutmix": {"low": 0, "high": 0.6}, "mixup": 0.0}
    made = Experiment(method="ce", space=space)
    setting = most_demanding(made, [{"mixup": 0.9, "cutmix": 0.1}], lambda setting: 1)
    assert repr(setting["batch_size"]) == "128"
    assert setting["cutmix"] == 0.6
    assert setting["mixup"] == pytest.approx(0.4)
    made.resolve(setting)


@pytest.mark.parametrize("method", ["auto", "ce", "kd", "ips", "lsskd", "edge_kd", "sr_kd", "supervised"])
def test_the_most_demanding_setting_of_every_shipped_space_can_be_trained(method: str) -> None:
    made = Experiment.load(method)
    setting = most_demanding(made, (), lambda setting: 1)
    made.resolve(setting)
    for name, dimension in made.dimensions.items():
        if hasattr(dimension, "high") and name in setting:
            assert setting[name] == dimension.high


def test_of_several_methods_the_one_that_takes_the_most_memory_is_measured() -> None:
    made = Experiment.load("auto", {"space.method.choices": ["ce", "kd", "lsskd"], "space.batch_size": 32})
    asked: list[str] = []

    def memory(setting: Mapping[str, Scalar]) -> int:
        asked.append(str(setting["method"]))
        made.resolve(setting)
        return {"ce": 1, "kd": 3, "lsskd": 2}[str(setting["method"])] + (setting.get("lsskd/heads") == "all")

    tried: list[dict[str, Scalar]] = [
        {"method": "lsskd", "lsskd/heads": "1", "batch_size": 256},
        {"method": "ce", "batch_size": 512},
    ]
    setting = most_demanding(made, tried, memory)
    assert setting["method"] == "kd"
    assert asked.count("lsskd") == 1 + len(alternatives(made, tried)["lsskd/heads"])
    assert alternatives(made, tried)["method"] == ["ce", "kd", "lsskd"]
