"""Budgets of images seen and of training time: what is counted, when a search ends, and that a resume counts on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from kdsearch.data.base import DataSet
from kdsearch.experiment import Experiment
from kdsearch.objective import Report
from kdsearch.results import Results
from kdsearch.results.progress import budget_in_words, progress
from kdsearch.training.trainer import Trainer
from tests.tuning.test_ledger import experiment, ledger_of

if TYPE_CHECKING:
    from pathlib import Path

    from kdsearch.tuning.ledger import Ledger


def search_of(**limit: Any) -> Experiment:
    return experiment(search={"trials": 20, "grace_period": 1, "scheduler": "none", **limit})


def spend(ledger: Ledger, epochs: int) -> list[bool]:
    """So many epochs of the next trial, each of 100 images and 2 seconds; whether each ended it."""
    trial = ledger.next_trial()
    assert trial is not None
    ended = []
    for epoch in range(1, epochs + 1):
        ended.append(ledger.told(trial.number, Report(epoch, 0.1 * epoch, seconds=2.0, images=100)))
    if epochs == ledger.experiment.training.epochs and not any(ended):
        ledger.completed(trial.number, 0.9)
    return ended


@pytest.mark.parametrize(
    ("limit", "why"),
    [({"images": 1200}, "the budget of 1,200 images is spent"), ({"training_time": 24.0}, "24 s of training is spent")],
)
def test_a_search_ends_with_the_epoch_that_spends_its_budget(limit: dict[str, Any], why: str, tmp_path: Path) -> None:
    ledger = ledger_of(search_of(**limit), tmp_path)
    assert spend(ledger, 9) == [False] * 9
    assert spend(ledger, 3) == [False, False, True]
    assert ledger.next_trial() is None
    assert ledger.stopping is not None
    assert why in ledger.stopping


def test_an_epoch_that_is_told_twice_is_paid_for_once(tmp_path: Path) -> None:
    ledger = ledger_of(search_of(images=1000), tmp_path)
    trial = ledger.next_trial()
    assert trial is not None
    for _ in range(20):
        assert not ledger.told(trial.number, Report(1, 0.1, images=400))
    assert ledger.told(trial.number, Report(2, 0.1, images=600))


def test_a_resumed_search_counts_on(tmp_path: Path) -> None:
    made = search_of(images=2000)
    first = ledger_of(made, tmp_path)
    spend(first, 9)  # ended: its sum is kept
    trial = first.next_trial()
    assert trial is not None
    for epoch in range(1, 5):
        first.told(trial.number, Report(epoch, 0.2, images=100))
    again = ledger_of(made, tmp_path, resume=True)
    again.restore()
    taken = again.next_trial()
    assert taken is not None
    assert taken.number == trial.number
    # The checkpoint brings its four epochs back: 900 + 400 are spent, and 700 more may be.
    ended = [again.told(taken.number, Report(epoch, 0.2, images=100)) for epoch in range(1, 9)]
    assert not any(ended)
    again.completed(taken.number, 0.5)
    last = again.next_trial()
    assert last is not None
    assert [again.told(last.number, Report(epoch, 0.3, images=100)) for epoch in (1, 2, 3)] == [False, False, True]


def test_the_run_says_what_its_trials_saw_and_how_far_the_budget_is_spent(tmp_path: Path) -> None:
    made = search_of(images=1800)
    (tmp_path / "experiment.yaml").write_text(made.to_yaml())
    spend(ledger_of(made, tmp_path), 9)
    results = Results(tmp_path)
    assert [trial.images for trial in results.trials] == [900]
    assert progress(results).fraction == 0.5
    assert budget_in_words(progress(results).budget) == "20 trials or 1,800 images"


@pytest.mark.parametrize(("method", "forwards"), [("ce", 1), ("ips", 2)])
def test_an_epoch_reports_the_images_that_its_method_sends_through_the_student(method: str, forwards: int) -> None:
    made = Experiment(
        method=method, data={"name": "digits", "label_fraction": 0.25}, training={"epochs": 1, "batch_size": 32},
        student={"name": "resnet8", "arguments": {"width": 0.25}}, search={"grace_period": 1},
    )  # fmt: skip
    trainer = Trainer(made, made.paper())
    seen: list[int] = []
    handle = trainer.student.register_forward_hook(lambda module, inputs, output: seen.append(len(inputs[0])))
    data: DataSet = trainer.data
    trainer._train(0)
    handle.remove()
    assert sum(seen) == len(data.train) // 32 * 32 * forwards
    assert Trainer(made, made.paper(), data=data).epoch().images == sum(seen)
