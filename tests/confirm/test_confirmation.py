"""The pure part of a confirmation: what is trained, who wins, the book of what was done, and what is said of it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from optuna.trial import TrialState

from kdsearch.errors import InvalidSetting, RunError
from kdsearch.results import Results, add_test_reading, write_export
from kdsearch.results.card import model_card
from kdsearch.results.confirm_log import EARLIER, FILE, TEST, TRAINING, Done, Log, earlier
from kdsearch.results.confirmation import (
    Plan,
    conclude,
    decide,
    fresh_seeds,
    mean_per_class,
    median_seed,
    plan,
    winner,
)
from kdsearch.results.verdict import card_section, probability, readings, scope, verdicts
from tests.results.build_run import RunBuilder, facts

SETTING = {"temperature": 4.0, "alpha": 1.0, "patches_per_side": 4, "stages": 1}


def built(folder: Path, mode: str = "max", sign: int = 1) -> RunBuilder:
    """Paper, control, and four searched trials; trial 4 has the setting of trial 3, trial 5 that of the paper."""
    run = RunBuilder(folder, mode)
    for role, value, change in (
        ("paper", 0.70, {}),
        ("control", 0.95, {"alpha": 0.0}),
        ("search", 0.80, {"temperature": 2.0}),
        ("search", 0.90, {"temperature": 3.0}),
        ("search", 0.89, {"temperature": 3.0}),
        ("search", 0.85, {}),
    ):
        run.trial([sign * value], TrialState.COMPLETE, sign * value, role=role, **{**SETTING, **change})
    run.trial([0.99], TrialState.PRUNED, **{**SETTING, "temperature": 7.0})
    run.describe(state="COMPLETE")
    return run


def planned(folder: Path, top: int = 3, seeds: int = 2, mode: str = "max") -> Plan:
    return plan(Results(built(folder, mode).folder), top, seeds)


def test_the_best_distinct_settings_of_the_method_are_candidates_in_order(tmp_path: Path) -> None:
    found = planned(tmp_path / "run", top=9)
    # Not the control, however good; of equal settings the better trial; the paper's under its own number; none pruned.
    assert [trial.number for trial in found.candidates] == [3, 0, 2]
    assert [trial.number for trial in planned(tmp_path / "again", top=2).candidates] == [3, 0]
    assert [trial.number for trial in planned(tmp_path / "min", mode="min").candidates] == [0, 2, 4]


def test_the_paper_setting_is_not_trained_twice_where_it_has_won(tmp_path: Path) -> None:
    found = planned(tmp_path / "run")
    paper, searched = found.candidates[1], found.candidates[0]
    assert {part: trial.number for part, trial in found.settings(searched).items()} == {
        "winner": 3, "paper": 0, "control": 1,
    }  # fmt: skip
    assert {part: trial.number for part, trial in found.settings(paper).items()} == {"winner": 0, "control": 1}


def test_fresh_seeds_are_disjoint_not_the_searchs_and_more_begin_with_the_fewer() -> None:
    deciding, reporting = fresh_seeds(2**32 - 3, 10)
    assert len({*deciding, *reporting, 2**32 - 3}) == 21
    assert all(0 <= seed < 2**32 for seed in deciding + reporting)
    assert fresh_seeds(2**32 - 3, 4) == (deciding[:4], reporting[:4])


def test_one_candidate_needs_no_deciding(tmp_path: Path) -> None:
    found = planned(tmp_path / "run", top=1)
    assert found.deciding == ()
    chosen = winner(found, Log(tmp_path))
    assert chosen is not None
    assert chosen.number == 3


@pytest.mark.parametrize(
    ("top", "seeds", "sentence"), [(0, 5, "--top = 0: must be at least 1"), (3, 1, "--seeds = 1: must be at least 2")]
)
def test_too_little_is_refused(top: int, seeds: int, sentence: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidSetting, match=sentence):
        planned(tmp_path / "run", top, seeds)


def test_a_run_without_a_finished_setting_of_the_method_is_refused(tmp_path: Path) -> None:
    run = RunBuilder(tmp_path / "run")
    run.trial([0.5], TrialState.FAIL, role="paper", error="no")
    run.trial([0.5], TrialState.COMPLETE, 0.5, role="control")
    run.trial([0.6], TrialState.PRUNED)
    with pytest.raises(RunError, match="'run' has nothing to confirm: none of its 3 trials"):
        plan(Results(run.folder), 3, 5)


@pytest.mark.parametrize(
    ("values", "sign", "best"),
    [
        ({1: [0.8, 0.9], 2: [0.9, 0.9]}, 1, 2),
        ({1: [0.8, 0.9], 2: [0.9, 0.9]}, -1, 1),
        ({1: [0.9, 0.9], 2: [0.9, 0.9]}, 1, 1),
        ({1: [0.99, None], 2: [0.1, 0.1]}, 1, 2),
        ({1: [0.99, None], 2: [None, None]}, 1, 1),
        ({1: [0.01, None], 2: [0.9, 0.9]}, -1, 2),
        ({1: [None, None], 2: [None, None]}, 1, None),
    ],
    ids=["mean", "min", "tie", "one diverged", "all of one", "diverged in min", "all"],
)
def test_the_best_mean_wins_and_who_diverges_goes_behind(
    values: dict[int, list[float | None]], sign: int, best: int | None
) -> None:
    assert decide([1, 2], values, sign) == best


def filled(folder: Path, found: Plan, sign: int = 1) -> Log:
    """Trial 2 decides for itself; on reporting seeds it is 0.01 and 0.03 better than the paper on test."""
    log = Log(folder)
    worth = {3: 0.80, 0: 0.81, 2: 0.82, 1: 0.70}
    for trial in found.candidates:
        for place, seed in enumerate(found.deciding):
            log.add(Done(TRAINING, trial.number, seed, 1.0, value=sign * (worth[trial.number] + place / 1000)))
    for number, tests in {2: [0.76, 0.79], 0: [0.75, 0.76], 1: [0.70, 0.60]}.items():
        for place, seed in enumerate(found.reporting):
            log.add(Done(TRAINING, number, seed, 2.0, value=sign * (worth[number] - 0.02 + place / 100), epoch=3))
            classes = {"per_class_accuracy": {"cat": 0.5 + place / 10, "dog": None}}
            log.add(Done(TEST, number, seed, 3.0 + place, value=sign * tests[place], per_class=classes))
    return log


def test_all_figures_by_hand(tmp_path: Path) -> None:
    run = Results(built(tmp_path / "run").folder)
    found = plan(run, 3, 2)
    document = conclude(run, found, filled(tmp_path, found))
    best = document["settings"]["winner"]
    assert (best["trial"], best["search"]) == (2, 0.80)
    assert best["validation"]["mean"] == pytest.approx(0.805)
    assert best["test"]["mean"] == pytest.approx(0.775)
    gained = document["gains"]["paper"]["test"]
    assert gained["differences"] == pytest.approx([0.01, 0.03])
    # Two values: mean ± t(1) · half their difference, t(1) = 12.706; P = ½ + arctan(2)/π by Cauchy's distribution.
    assert (gained["low"], gained["high"]) == pytest.approx((0.02 - 0.12706, 0.02 + 0.12706), abs=1e-5)
    assert gained["probability_better"] == pytest.approx(0.852416, abs=1e-6)
    assert gained["p_value"] == pytest.approx(2 * (1 - 0.852416), abs=1e-5)
    control = document["gains"]["control"]["test"]
    assert control["p_value_holm"] == pytest.approx(
        max(control["p_value"], 2 * min(control["p_value"], gained["p_value"]))
    )
    assert document["optimism"]["mean"] == pytest.approx(0.80 - 0.805)
    assert document["optimism"]["low"] == pytest.approx(0.80 - best["validation"]["high"])
    assert best["per_class"] == {"per_class_accuracy": {"cat": pytest.approx(0.55), "dog": None}}
    assert len(document["test_readings"]) == 6
    json.dumps(document, allow_nan=False)


def test_where_less_is_better_every_gain_and_the_optimism_turn_round(tmp_path: Path) -> None:
    """All values negated: a metric of which less is better gives the same gains, to the digit."""
    documents = []
    for mode, sign in (("max", 1), ("min", -1)):
        run = Results(built(tmp_path / mode, mode, sign).folder)
        found = plan(run, 3, 2)
        documents.append(conclude(run, found, filled(tmp_path / f"log {mode}", found, sign)))
    first, second = documents
    assert second["settings"]["winner"]["trial"] == first["settings"]["winner"]["trial"] == 2
    assert second["gains"] == first["gains"]
    assert second["optimism"] == pytest.approx(first["optimism"])
    assert second["settings"]["winner"]["test"]["mean"] == -first["settings"]["winner"]["test"]["mean"]


def test_differences_are_of_equal_seeds_and_leave_out_what_diverged(tmp_path: Path) -> None:
    run = Results(built(tmp_path / "run").folder)
    found = plan(run, 3, 3)
    log = Log(tmp_path)
    for trial in found.candidates:
        for seed in found.deciding:
            log.add(Done(TRAINING, trial.number, seed, 1.0, value=0.5 + trial.number / 100))
    tests = {3: [0.9, 0.8, 0.7], 0: [0.6, None, 0.5], 1: [None, 0.4, None]}
    for number, values in tests.items():
        for seed, value in zip(found.reporting, values, strict=True):
            error = "diverged" if value is None else None
            log.add(Done(TRAINING, number, seed, 1.0, value=value, error=error))
            if value is not None:
                log.add(Done(TEST, number, seed, 1.0, value=value))
    document = conclude(run, found, log)
    assert document["gains"]["paper"]["test"]["differences"] == pytest.approx([0.3, 0.2])
    assert document["gains"]["control"]["test"]["count"] == 1
    assert "p_value_holm" not in document["gains"]["control"]["test"]
    said = verdicts(document)
    assert "Nothing can be said of the winner against the student without distillation" in said[1]
    assert said[-2:] == [
        "1 of 3 trainings of the paper's setting diverged and count nowhere in its figures.",
        "2 of 3 trainings of the student without distillation diverged and count nowhere in its figures.",
    ]


def test_the_median_stands_for_the_setting_by_validation(tmp_path: Path) -> None:
    found = planned(tmp_path / "run", top=1, seeds=4)
    log = Log(tmp_path)
    for seed, value in zip(found.reporting, [0.9, 0.7, None, 0.8], strict=True):
        log.add(Done(TRAINING, 3, seed, 1.0, value=value))
    assert median_seed(found, found.candidates[0], log) == found.reporting[3]
    more = Log(tmp_path)
    more.add(Done(TRAINING, 3, found.reporting[2], 1.0, value=0.6))
    assert median_seed(found, found.candidates[0], more) == found.reporting[1]  # of 0.6 0.7 0.8 0.9 the lower middle
    less = replace(found, sign=-1)
    assert median_seed(less, found.candidates[0], more) == found.reporting[3]  # and the higher, where less is better


def test_classes_are_averaged_over_the_students_that_have_them() -> None:
    scores = [{"iou": {"a": 0.5, "b": None}}, {"iou": {"a": 0.7, "b": 0.2}}, {}]
    assert mean_per_class(scores) == {"iou": {"a": pytest.approx(0.6), "b": pytest.approx(0.2)}}


def test_a_torn_line_does_not_count_and_does_not_swallow_the_next(tmp_path: Path) -> None:
    log = Log(tmp_path)
    log.add(Done(TRAINING, 3, 1, 1.0, value=0.5))
    with (tmp_path / FILE).open("ab") as file:
        file.write(b'{"what":"training","trial":3,"se')
    again = Log(tmp_path)
    assert (again.value(3, 1), again.trained(3, 2)) == (0.5, None)
    again.add(Done(TRAINING, 3, 2, 2.0, value=float("nan"), error="diverged"))
    assert Log(tmp_path).trained(3, 2) == Done(TRAINING, 3, 2, 2.0, value=None, error="diverged")
    assert Log(tmp_path).value(3, 1) == 0.5


@pytest.mark.parametrize("line", ["nonsense", "[1]", '{"what": "training"}', '{"unknown": 1}'])
def test_a_damaged_line_is_named(line: str, tmp_path: Path) -> None:
    (tmp_path / FILE).write_text(line + "\n")
    with pytest.raises(RunError, match=r"results\.jsonl: line 1 is no entry"):
        Log(tmp_path)


def test_readings_of_an_earlier_best_are_taken_over_once(tmp_path: Path) -> None:
    log = Log(tmp_path)
    log.add(Done(TEST, 4, 2, 10.0, value=0.7))
    before = {
        "metric": "accuracy",
        "seed": 2,
        "search": {"trial": 4},
        "test_readings": [
            {"time": 10.0, "metrics": {"accuracy": 0.7}},
            {"time": 11.0, "metrics": {"accuracy": 0.7, "loss": 1.0}},
        ],
    }
    for reading in earlier(before, log):
        log.add(reading)
    assert [(done.what, done.time, done.value) for done in log.readings] == [(TEST, 10.0, 0.7), (EARLIER, 11.0, 0.7)]
    assert earlier(before, Log(tmp_path)) == []
    assert earlier({}, log) == []


def confirmation(low: float, high: float, chance: float, **changes: Any) -> dict[str, Any]:
    """A confirmation against the paper's setting with these ends of the gain."""
    interval = {"mean": 0.8, "low": 0.7, "high": 0.9, "count": 2}
    rows = [{"seed": seed, "validation": 0.8, "test": 0.8, "error": None} for seed in (2, 4)]
    setting = {"trial": 4, "role": "search", "search": 0.85, "validation": interval, "test": interval, "per_seed": rows}
    gained = {"mean": (low + high) / 2, "low": low, "high": high, "count": 2, "probability_better": chance}
    return {
        "seeds": {"deciding": [1, 3], "reporting": [2, 4]},
        "interval": "Student's t",
        "settings": {"winner": setting, "paper": {**setting, "trial": 0, "role": "paper"}},
        "gains": {"paper": {"test": gained, "validation": gained}},
        "optimism": {"mean": 0.05, "low": -0.05, "high": 0.15, "count": 2},
        "test_readings": [{"trial": trial, "seed": seed} for trial in (4, 0) for seed in (2, 4)],
        **changes,
    }


@pytest.mark.parametrize(
    ("low", "high", "chance", "sentence"),
    [
        (
            0.001, 0.021, 0.98,
            "The winner beats the paper's setting: +0.0110 on test (95 % interval +0.0010 to +0.0210), "
            "better with probability 98 %.",
        ),
        (-0.001, 0.021, 0.96, "Whether the winner beats the paper's setting stays open: +0.0100 on test"),
        (0.0, 0.02, 0.975, "Whether the winner beats the paper's setting stays open"),
        (-0.02, -0.001, 0.001, "The winner is worse than the paper's setting: -0.0105 on test"),
    ],
)  # fmt: skip
def test_no_sentence_says_more_than_its_interval(low: float, high: float, chance: float, sentence: str) -> None:
    said = verdicts(confirmation(low, high, chance))
    assert said[0].startswith(sentence)
    assert said[1] == (
        "Optimism of the search: +0.0500 (95 % interval -0.0500 to +0.1500); on validation it said 0.8500, "
        "fresh seeds say 0.8000."
    )


def test_a_difference_without_spread_stays_open_and_no_probability_is_rounded_to_certainty() -> None:
    document = confirmation(0.01, 0.01, 0.5)
    document["gains"]["paper"]["test"] |= {"low": None, "high": None, "probability_better": None}
    assert verdicts(document)[0] == (
        "Whether the winner beats the paper's setting stays open: +0.0100 on test on each of 2 seeds, which shows no "
        "spread to judge by."
    )
    assert [probability(value) for value in (0.9999, 0.99, 0.5, 0.004, None)] == [
        "> 99 %",
        "99 %",
        "50 %",
        "< 1 %",
        "–",
    ]


def test_the_card_gives_the_interval_its_scope_and_every_reading(tmp_path: Path) -> None:
    document = confirmation(0.001, 0.021, 0.98)
    reading = {"time": 1.0, "metrics": {"accuracy": 0.8}}
    write_export(
        tmp_path / "best",
        weights={},
        facts=facts(confirmation=document, test_readings=[reading]),
        hyperparameters={"temperature": 4.0},
    )
    card = (tmp_path / "best" / "README.md").read_text()
    assert card_section(document, "accuracy") in card
    assert "| winner | 4 | 0.8000 | 0.7000 to 0.9000 | 0.8000 |" in card
    assert scope(document) in card
    assert "The test split was read 4 times, for 4 students, once for each of them." in card
    assert "median by validation" in card
    assert "The test split was read once for this student" in card
    assert "took no part" not in card
    stored = json.loads((tmp_path / "best" / "metrics.json").read_text())
    assert stored["confirmation"]["gains"]["paper"]["test"]["low"] == 0.001
    assert add_test_reading(tmp_path / "best", {"accuracy": 0.7}) == 2
    assert "The test split was read 2 times for this student" in (tmp_path / "best" / "README.md").read_text()


def test_a_reading_is_counted_in_the_card_but_not_in_one_that_a_person_has_changed(tmp_path: Path) -> None:
    write_export(tmp_path, weights={}, facts=facts(), hyperparameters={"temperature": 4.0})
    card = tmp_path / "README.md"
    assert "The test split took no part" in card.read_text()
    add_test_reading(tmp_path, {"accuracy": 0.7})
    assert "The test split was read once for this student" in card.read_text()
    card.write_text("My own words.")
    add_test_reading(tmp_path, {"accuracy": 0.7})
    assert card.read_text() == "My own words."
    assert "read 2 times" in model_card(json.loads((tmp_path / "metrics.json").read_text()))


def test_readings_beyond_one_a_student_are_told() -> None:
    twice = [{"trial": 4, "seed": 2}, {"trial": 4, "seed": 2}, {"trial": 0, "seed": 2}]
    assert readings({"test_readings": twice}) == "The test split was read 3 times, for 2 students."
