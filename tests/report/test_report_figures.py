"""Every figure of a report equals the run's own data, read here by Optuna and counted anew."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
import yaml
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState
from scipy.stats import kendalltau  # type: ignore[import-untyped]

from kdsearch.results import Results
from kdsearch.results.report import report
from kdsearch.results.report.axes import OFF
from kdsearch.results.report.fanova import importances
from tests.counting import calls
from tests.report.page_reader import Page, places
from tests.report.searched_run import SPACE, large_run, searched_run

RUNGS = (3, 9, 27)
NAMES = sorted(name for name in SPACE if name != "gamma")  # as the experiment of the run lists them


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path: Path = tmp_path_factory.mktemp("runs") / "my-run"
    searched_run(path)
    return path


@pytest.fixture(scope="module")
def page(folder: Path) -> Page:
    return Page(report(Results(folder)))


@pytest.fixture(scope="module")
def trials(folder: Path) -> list[FrozenTrial]:
    storage = JournalStorage(JournalFileBackend(str(folder / "study.journal")))
    return optuna.load_study(study_name="my-run", storage=storage).trials


def failed(trial: FrozenTrial) -> bool:
    return trial.state == TrialState.FAIL or bool(trial.user_attrs.get("error"))


def complete(trials: list[FrozenTrial]) -> list[FrozenTrial]:
    return [trial for trial in trials if trial.state == TrialState.COMPLETE]


def at(trial: FrozenTrial, epoch: int) -> float | None:
    if failed(trial) and epoch > trial.user_attrs["epochs"]:
        return None
    reached = trial.intermediate_values.get(epoch)
    return trial.value if epoch == 27 and reached is not None else reached


def setting(trial: FrozenTrial) -> dict[str, Any]:
    return dict(trial.user_attrs["hyperparameters"])


def test_the_answer_is_the_best_complete_trial_with_its_gains(page: Page, trials: list[FrozenTrial]) -> None:
    best = max(complete(trials), key=lambda trial: trial.value or 0)
    assert best.value is not None
    data = page.data
    assert (data["winner"]["number"], data["winner"]["best"]) == (best.number, best.value)
    assert data["over_paper"] == pytest.approx(best.value - (trials[0].value or 0))
    assert data["over_control"] == pytest.approx(best.value - (trials[1].value or 0))
    cards = [node.text for node in page.section("The answer").find("b")]
    assert cards == [f"{best.value:.4f}", f"{data['over_paper']:+.4f}", f"{data['over_control']:+.4f}"]
    remarks = [node.text for node in page.section("The answer").find("dd")]
    assert f"trial {best.number}, on validation" in remarks[0]
    assert f"trial 0: {trials[0].value:.4f}" in remarks[1]
    assert f"the best of {len(complete(trials))} noisy ones" in page.section("The answer").text
    assert "kdsearch confirm my-run" in page.section("The answer").text


def test_the_table_of_the_best_is_the_ranking_of_the_study(page: Page, trials: list[FrozenTrial]) -> None:
    ranked = sorted(complete(trials), key=lambda trial: -(trial.value or 0))[:10]
    head, *rows = page.table("The best trials")
    assert head[:6] == ["", "trial", "accuracy", "epochs", "state", "time"]
    assert head[6:] == NAMES
    for place, (trial, row) in enumerate(zip(ranked, rows, strict=True), 1):
        assert row[0] == str(place)
        assert row[1].split()[0] == str(trial.number)
        assert row[2:5] == [f"{trial.value:.4f}", "27", "full budget"]
        assert [float(cell) for cell in row[6:]] == [pytest.approx(setting(trial)[name], rel=1e-3) for name in head[6:]]


def test_the_question_names_budget_and_space(page: Page) -> None:
    rows = dict(page.table("What was searched"))
    assert (rows["budget"], rows["full budget of a trial"], rows["student"]) == ("60 trials", "27 epochs", "resnet8")
    _, *space = page.table("The search space")
    assert [row[0] for row in space] == NAMES
    assert {row[0]: row[1] for row in space}["alpha"] == "0.3 to 3 (log, or 0)"
    assert {row[0]: row[1] for row in space}["patches_per_side"] == "2, 4, 8"


def test_the_history_is_the_running_best_of_the_complete_trials(page: Page, trials: list[FrozenTrial]) -> None:
    epochs, best, expected = 0, None, []
    for ended, trial in enumerate(trials, 1):  # they ran one after the other
        epochs += trial.user_attrs["epochs"] if failed(trial) else len(trial.intermediate_values)
        if trial.state == TrialState.COMPLETE:
            best = max(value for value in (best, trial.value) if value is not None)
        expected.append((trial.number, ended, epochs, best))
    assert [(event[0], event[2], event[3], event[5]) for event in page.data["history"]] == expected
    for by, words in ((3, "epochs of the trials"), (2, "over trials that ended")):
        drawn = places(page.drawing(words), "complete")
        wanted = [(event[by], event[4]) for event in page.data["history"] if event[1] == "COMPLETE"]
        assert np.asarray(drawn) == pytest.approx(np.asarray(wanted), abs=epochs / 300 if by == 3 else 0.3)
        assert [value for _, value in drawn] == pytest.approx([value for _, value in wanted], abs=0.003)
        corners = places(page.drawing(words), "best")
        assert max(value for _, value in corners) == pytest.approx(best, abs=0.003)
        assert corners[-1][0] == pytest.approx(expected[-1][1 if by == 2 else 2], rel=0.01)
    _, *steps = page.table("Improvements")
    assert [float(row[3]) for row in steps] == sorted({round(b, 4) for *_, b in expected if b is not None})[-12:]


def test_rungs_count_who_reached_them_and_tau_is_that_of_scipy(page: Page, trials: list[FrozenTrial]) -> None:
    _, *rows = page.table("Rungs")
    ends = complete(trials)
    for epoch, row in zip(RUNGS, rows, strict=True):
        reached = sum(at(trial, epoch) is not None for trial in trials)
        assert row[:2] == [f"{epoch}" + (" (the end)" if epoch == 27 else ""), str(reached)]
        if epoch < 27:
            tau = kendalltau([at(trial, epoch) for trial in ends], [trial.value for trial in ends]).statistic
            assert row[2:] == [f"{tau:+.2f}", str(len(ends))]
    bars = page.section("Rungs").find("rect")
    widths = [float(bar.attributes["width"] or 0) for bar in bars]
    assert [width / widths[0] for width in widths] == [
        pytest.approx(int(row[1]) / int(rows[0][1]), abs=0.003) for row in rows
    ]


def test_the_landscape_is_every_trial_with_a_score_at_the_first_rung(page: Page, trials: list[FrozenTrial]) -> None:
    landscape = page.data["landscape"]
    there = [trial for trial in trials if at(trial, 3) is not None and trial.number != 1]
    assert landscape["epoch"] == 3
    assert {number: value for number, value, _ in landscape["tried"]} == {trial.number: at(trial, 3) for trial in there}
    assert landscape["without"] == len(trials) - len(there) - 1
    names = [axis["name"] for axis in landscape["axes"]]
    by_number = {number: values for number, _, values in landscape["tried"]}
    assert by_number == {trial.number: [setting(trial)[name] for name in names] for trial in there}
    said = page.section("Which hyperparameters matter").text
    assert f"at the rung after 3 of 27 epochs, which {len(there)} trials have" in said
    assert f"{landscape['without']} trials have none there" in said


def position(name: str, value: float) -> float:
    entry: Any = SPACE[name]
    if "choices" in entry:
        return (entry["choices"].index(value) + 0.5) / len(entry["choices"])
    start = OFF if entry.get("or_zero") else 0
    if value == 0:
        return start / 2
    return start + (1 - start) * math.log(value / entry["low"]) / math.log(entry["high"] / entry["low"])


def test_slices_draw_each_trial_at_its_value_and_score(page: Page) -> None:
    landscape = page.data["landscape"]
    for place, axis in enumerate(landscape["axes"]):
        drawn = places(page.drawing(f"over {axis['name']}."), "tried")
        assert len(drawn) == len(landscape["tried"])
        for (across, up), (_, value, values) in zip(drawn, landscape["tried"], strict=True):
            assert up == pytest.approx(value, abs=0.004)
            one_of_many = "choices" in SPACE[axis["name"]] or values[place] == 0  # side by side there
            assert across == pytest.approx(position(axis["name"], values[place]), abs=0.11 if one_of_many else 0.001)


def test_importance_is_computed_of_these_scores(page: Page) -> None:
    landscape = page.data["landscape"]
    rows = landscape["tried"]
    order = [axis["name"] for axis in landscape["axes"]]
    positions = np.asarray(
        [[position(name, value) for name, value in zip(NAMES, _in_space(order, row), strict=True)] for row in rows]
    )
    found = importances(positions, np.asarray([value for _, value, _ in rows]))
    assert found is not None
    expected = dict(zip(NAMES, (one.share for one in found), strict=True))
    told = {name: share for name, (share, _) in landscape["importance"].items()}
    assert told == {name: pytest.approx(share, abs=1e-9) for name, share in expected.items()}
    assert list(told) == sorted(told, key=lambda name: -told[name])
    assert order[0] == "learning_rate"  # what the function of the run depends on most
    _, *table = page.table("Importance")
    assert [(row[0], row[1]) for row in table[:-1]] == [(name, f"{share:.3f}") for name, share in told.items()]
    assert float(table[-1][1]) == pytest.approx(1 - sum(told.values()), abs=0.001)
    assert landscape["measured"] == len(rows)


def _in_space(order: list[str], row: list[Any]) -> list[Any]:
    """The values of a row in the order of the space."""
    named = dict(zip(order, row[2], strict=True))
    return [named[name] for name in NAMES]


def test_the_contour_holds_the_two_most_important_and_all_trials(page: Page) -> None:
    one, other = (axis["name"] for axis in page.data["landscape"]["axes"][:2])
    contour = page.drawing("Estimated", f"over {one} (across) and {other} (up)")
    drawn = places(contour, "over")
    assert len(drawn) == len(page.data["landscape"]["tried"])
    for (across, up), (_, _, values) in zip(drawn, page.data["landscape"]["tried"], strict=True):
        for name, at_, value in ((one, across, values[0]), (other, up, values[1])):
            apart = "choices" in SPACE[name] or value == 0
            assert at_ == pytest.approx(position(name, value), abs=0.11 if apart else 0.002)


def test_parallel_coordinates_hold_a_line_for_each_trial(page: Page) -> None:
    tried = page.data["landscape"]["tried"]
    drawing = page.drawing("as lines through 4 hyperparameters")
    lines = {
        style: str(drawing.find("path", **{"class": style})[0].attributes["d"]).count("M") for style in ("top", "other")
    }
    best = -(-len(tried) // 10)
    assert lines == {"top": best, "other": len(tried) - best}
    assert f"the best {best} at the rung" in page.section("Which hyperparameters matter").text


def test_seconds_add_up_to_those_of_the_slots(page: Page, trials: list[FrozenTrial]) -> None:
    spent = page.data["spending"]
    assert spent["training"] == pytest.approx(sum(trial.user_attrs["seconds"] for trial in trials))
    assert sum(spent["by_state"].values()) == pytest.approx(spent["training"])
    assert spent["by_state"]["COMPLETE"] == pytest.approx(20.0 * len(complete(trials)))
    assert spent["slots"] == 1
    _, *rows = page.table("Where the time went")
    assert [row[0] for row in rows[:3]] == [
        "training, with validation",
        "around it, inside trials",
        "slots without a trial",
    ]


def test_failures_that_differ_in_their_numbers_are_one_reason(page: Page) -> None:
    _, *rows = page.table("Why trials failed")
    assert rows == [["2", "20, 40", "the loss is not finite at step 20"], ["1", "50", "out of paper"]]


def test_the_setting_to_copy_is_the_winners(page: Page, trials: list[FrozenTrial]) -> None:
    text = page.section("The setting to copy").text
    winner = trials[page.data["winner"]["number"]]
    assert yaml.safe_load(text.removeprefix("The setting to copy")) == setting(winner)


def test_lower_is_better_where_the_metric_says_so(tmp_path: Path) -> None:
    searched_run(tmp_path / "my-run", mode="min")
    page = Page(report(Results(tmp_path / "my-run")))
    best = [event[5] for event in page.data["history"] if event[5] is not None]
    assert best == sorted(best, reverse=True)
    assert page.data["winner"]["best"] == best[-1]
    assert page.data["over_paper"] == pytest.approx(page.data["paper"]["best"] - best[-1])
    assert "lower is better" in page.section("The question").text


def test_five_thousand_trials_make_a_file_below_five_megabytes_at_a_cost_that_grows_with_their_number(
    tmp_path: Path,
) -> None:
    html = ""

    def calls_of(trials: int) -> int:
        large_run(tmp_path / str(trials), trials)
        results = Results(tmp_path / str(trials))

        def write() -> None:
            nonlocal html
            html = report(results)

        return calls(write)

    calls_of(100)  # imports
    few = calls_of(1000)
    assert calls_of(5000) < 6 * few
    assert len(html.encode()) < 5e6
    page = Page(html)
    assert len(page.data["history"]) == 5000
    assert len(page.data["landscape"]["tried"]) == 4999
    assert len(places(page.drawing("over learning_rate."), "tried")) == 4999
    assert "one of 17 of the others" in page.section("Which hyperparameters matter").text
