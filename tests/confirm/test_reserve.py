"""What a search keeps of its budget for its confirmation, against counting by hand and a real training."""

from __future__ import annotations

from typing import Any

import pytest

from kdsearch import data as data_sets
from kdsearch.chain import Chain
from kdsearch.comparison import compare
from kdsearch.errors import InvalidSetting, UserError
from kdsearch.experiment import Experiment
from kdsearch.search_settings import SearchSettings
from kdsearch.training.trainer import Trainer
from kdsearch.tuning.reserve import Epoch, Trainings, images_of_an_epoch, reserve, sharing, trainings, within


def experiment(method: str = "ips", **search: Any) -> Experiment:
    given = {f"search.{name}": value for name, value in ({"confirm": {}} | search).items()}
    return Experiment.load(method, {"data.label_fraction": 0.15, "training.epochs": 4, **given})


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        # Paper and control; three settings on five seeds decide; winner, paper and control on five others.
        ({}, Trainings(2, 15, 15)),
        ({"confirm": {"top": 1, "seeds": 7}}, Trainings(2, 0, 21)),
        # Of three trials two are settings of the method.
        ({"trials": 3}, Trainings(2, 10, 15)),
        # The paper's setting alone has nothing to be decided against, and is the winner.
        ({"trials": 2}, Trainings(2, 0, 10)),
        ({"trials": 1}, Trainings(1, 0, 5)),
        # A grid of two points, beside the paper's: three settings, though four were to be confirmed.
        ({"confirm": {"top": 4}, "sampler": "grid", "trials": 40}, Trainings(2, 15, 15)),
    ],
    ids=str,
)
def test_trainings_are_counted_as_a_confirmation_makes_them(given: dict[str, Any], expected: Trainings) -> None:
    made = experiment(**{name: value for name, value in given.items() if name != "sampler"})
    if "sampler" in given:
        content = made.model_dump(mode="json") | {"space": {"alpha": {"choices": [0.5, 2.0]}}}
        content["search"] |= {"sampler": "grid"}
        made = Experiment(**content)
    assert trainings(made) == expected


def test_a_search_over_several_methods_begins_with_the_setting_of_each() -> None:
    made = experiment("auto")
    assert set(made.methods) == {"ce", "ips", "kd", "lsskd"}
    assert trainings(made).first == 4 + 1  # that of ce smooths its labels, and so is not the control


def test_each_limit_keeps_what_the_trainings_take_of_it() -> None:
    made = experiment(images=10**6, time=1e5, gpu_hours=50.0)
    found = reserve(made, (), Epoch(images=256, seconds=9.0), slots=4, gpus=0.5)
    # 30 trainings of 4 epochs, 15 of them before the other 15: four rounds of four slots each time.
    assert found.of(made.search) == {
        "images": 30 * 4 * 256,
        "time": (4 + 4) * 4 * 9.0,
        "gpu_hours": pytest.approx(30 * 4 * 9.0 * 0.5 / 3600),
    }
    left = within(made.search, found.of(made.search))
    assert (left.images, left.time) == (10**6 - 30720, 1e5 - 288)
    assert within(made.search, {}) == made.search
    assert reserve(experiment(), (), Epoch(256, 9.0), slots=4, gpus=0.5).of(experiment().search) == {}


@pytest.mark.parametrize(
    ("limit", "too_little", "least"),
    [
        ("images", 32767, "32768img"),
        ("time", 323.5, "324s"),
        ("gpu_hours", 0.159, "0.16gpuh"),
        ("training_time", 1151.0, "1152s"),
    ],
)
def test_what_leaves_too_little_for_paper_and_control_is_refused_with_the_least(
    limit: str, too_little: float, least: str
) -> None:
    """30 trainings of 4 epochs are kept: 30720 images, 288 s on four slots, 0.15 GPU hours, 1080 s of training."""

    def check(amount: float) -> None:
        made = experiment(**{limit: amount})
        reserve(made, (), Epoch(images=256, seconds=9.0), slots=4, gpus=0.5).check(made.search)

    with pytest.raises(
        InvalidSetting, match=rf"the 30 trainings of the confirmation .*give at least {least}, or fewer"
    ):
        check(too_little)
    enough = float(least.rstrip("imgspuh"))
    check(int(enough) if limit == "images" else enough)


@pytest.mark.parametrize("method", ["ips", "kd", "lsskd"])
def test_images_of_an_epoch_are_those_that_a_training_counts(method: str) -> None:
    made = Experiment.load(method, {"data.label_fraction": 0.15, "training.epochs": 1, "search.grace_period": 1})
    data = data_sets.load(made.data, made.task)
    teacher = None
    if made.needs_teacher:
        from kdsearch.training.teacher import load_teacher

        teacher = load_teacher(made, data)
    trainer = Trainer(made, made.paper(), data=data, teacher=teacher)
    assert images_of_an_epoch(made, trainer) == trainer.epoch().images


def test_where_settings_have_their_own_batch_size_no_epoch_counts_more() -> None:
    made = experiment()
    content = made.model_dump(mode="json")
    content["space"] = {"batch_size": {"choices": [16, 48, 64, 100]}, "alpha": {"low": 0.5, "high": 1.0}}
    made = Experiment(**content)
    data = data_sets.load(made.data, made.task)
    most = images_of_an_epoch(made, Trainer(made, made.paper(), data=data))
    for size in (16, 48, 64, 100):
        batches = Trainer(made, made.paper() | {"batch_size": size}, data=data).batches
        assert batches.steps * batches.batch_size * 2 <= most


def test_an_experiment_that_confirms_nothing_reads_as_before_and_one_that_does_is_read_back() -> None:
    plain, asked = Experiment.load("ips"), experiment(confirm={"seeds": 2})
    assert "confirm" not in plain.to_yaml()
    assert "confirm" not in SearchSettings().model_dump()
    assert Experiment(**asked.model_dump(mode="json")) == asked == asked.revalidated()
    assert asked.anchored().search == asked.search


def test_in_a_chain_it_is_refused_and_a_comparison_confirms_in_its_own_way() -> None:
    generations = [{"student": "resnet8"}, {"student": "resnet8"}]
    with pytest.raises(UserError, match=r"generations\.0: search\.confirm = .* is for a search by itself"):
        Chain(name="c", search={"confirm": {}}, generations=generations)
    found = compare(
        ["kd"], lambda method, given: Experiment.load(method, {"search.confirm": {}, **given}),
        unit="images", amount=10_000, controls=False,
    )  # fmt: skip
    assert {entry.experiment.search.confirm for entry in found.entries} == {None}


def test_beside_others_on_a_gpu_an_epoch_takes_as_much_longer_as_was_measured() -> None:
    """Alone 10 steps a second; of four together 4 each: 2.5 times as long. Of two kinds of GPU the slower counts."""

    def kind(rates: dict[int, float | None], copies: int) -> Any:
        return {"copies": copies, "levels": [{"copies": count, "rate": rate} for count, rate in rates.items()]}

    epoch, fast = Epoch(images=256, seconds=8.0), kind({1: 10.0, 2: 15.0, 4: 16.0, 8: None}, 4)
    document: Any = {"kinds": [kind({1: 10.0, 2: 19.0}, 1), fast]}
    assert sharing(epoch, document) == Epoch(256, 20.0)
    assert (
        sharing(epoch, {**document, "kinds": [kind({4: 16.0}, 4)]})
        == sharing(epoch, {**document, "kinds": []})
        == epoch
    )
