"""What a comparison says: its tests against hand values and scipy, its claims, its table, picture and commands."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scipy import stats  # type: ignore[import-untyped]

from kdsearch.cli import main
from kdsearch.errors import RunError
from kdsearch.results import Results, RunLock, find_run, list_runs
from kdsearch.results.compare import best_so_far, claim, read_comparison, with_gains, write_comparison
from kdsearch.results.compare_words import findings, lines, markdown, overview, remarks, titles
from kdsearch.results.confirmation import PAPER, WINNER
from kdsearch.results.storage import find_chain, find_comparison, run_name
from tests.compare.built import comparison_in, confirmed, document, row, searched, setting

CE, KD, IPS = [0.80, 0.82, 0.84], [0.90, 0.91, 0.95], [0.81, 0.82, 0.86]


def settled(name: str, winner: Any, paper: Any = None, labels: tuple[float, float] = (1.0, 0.0)) -> dict[str, Any]:
    """A row that is confirmed."""
    settings = {WINNER: setting(winner), PAPER: setting(paper or winner, "paper")}
    return {**row(name, labels), "state": "CONFIRMED", "error": None, "settings": settings}


@pytest.fixture
def whole(tmp_path: Path) -> Path:
    """Three searches that are confirmed."""
    rows = [row("ce"), row("kd"), row("ips+cutmix")]
    folder = comparison_in(tmp_path / "runs", document(rows))
    for entry, values in zip(rows, (CE, KD, IPS), strict=True):
        confirmed(folder / entry["run"], values, CE)
    return folder


def test_gains_are_paired_by_seed_and_their_p_values_are_scipys_times_holms_factors() -> None:
    ce, kd, ips = with_gains([settled("ce", CE), settled("kd", KD), settled("ips", IPS)], "ce", 1)
    assert ce["gains"] == {}
    p_of_kd, p_of_ips = stats.ttest_rel(KD, CE).pvalue, stats.ttest_rel(IPS, CE).pvalue
    assert kd["gains"][WINNER]["mean"] == pytest.approx((0.10 + 0.09 + 0.11) / 3)
    assert kd["gains"][WINNER]["p_value"] == pytest.approx(p_of_kd)
    assert p_of_kd < p_of_ips
    assert kd["gains"][WINNER]["p_value_holm"] == pytest.approx(2 * p_of_kd)
    assert ips["gains"][WINNER]["p_value_holm"] == pytest.approx(max(2 * p_of_kd, p_of_ips))
    low, high = stats.ttest_rel(KD, CE).confidence_interval()
    assert (kd["gains"][WINNER]["low"], kd["gains"][WINNER]["high"]) == (pytest.approx(low), pytest.approx(high))


def test_searched_settings_are_tested_against_the_searched_reference_and_published_against_the_published() -> None:
    _, kd = with_gains([settled("ce", CE, [0.70, 0.71, 0.72]), settled("kd", KD, [0.71, 0.71, 0.71])], "ce", 1)
    assert kd["gains"][WINNER]["differences"] == pytest.approx([0.10, 0.09, 0.11])
    assert kd["gains"][PAPER]["differences"] == pytest.approx([0.01, 0.0, -0.01])


def test_rows_are_compared_with_the_reference_on_the_same_labels_and_holm_counts_all_of_them() -> None:
    few, many = (0.25, 0.4), (1.0, 0.0)
    rows = [settled("ce", CE, labels=few), settled("kd", KD, labels=few)]
    rows += [settled("ce", KD, labels=many), settled("kd", [0.91, 0.92, 0.96], labels=many)]
    _, kd_few, _, kd_many = with_gains(rows, "ce", 1)
    assert kd_few["gains"][WINNER]["mean"] == pytest.approx(0.10)
    assert kd_many["gains"][WINNER]["mean"] == pytest.approx(0.01)
    assert kd_few["gains"][WINNER]["p_value_holm"] == pytest.approx(2 * kd_few["gains"][WINNER]["p_value"])


def test_a_row_that_is_still_to_come_counts_as_a_test_so_an_early_claim_stays_one() -> None:
    pending = {**row("lsskd"), "state": "PENDING", "error": None}
    early = with_gains([settled("ce", CE), settled("kd", KD), pending], "ce", 1)[1]["gains"][WINNER]
    late = with_gains([settled("ce", CE), settled("kd", KD), settled("lsskd", IPS)], "ce", 1)[1]["gains"][WINNER]
    assert early["p_value_holm"] == late["p_value_holm"] == pytest.approx(2 * early["p_value"])


def test_less_is_better_where_the_metric_says_so_and_a_diverged_training_pairs_with_nothing() -> None:
    _, kd = with_gains([settled("ce", [0.5, 0.6, 0.7]), settled("kd", [0.4, None, 0.5])], "ce", -1)
    assert kd["gains"][WINNER]["differences"] == pytest.approx([0.1, 0.2])


def test_a_claim_needs_the_adjusted_p_value_and_the_interval() -> None:
    better = {"low": 0.01, "high": 0.03, "p_value_holm": 0.04}
    assert claim(better) == 1
    assert claim({**better, "low": -0.03, "high": -0.01}) == -1
    assert claim({**better, "p_value_holm": 0.06}) == 0
    assert claim({**better, "low": -0.01}) == 0
    assert claim({**better, "low": None, "high": None}) == 0
    assert claim(None) == 0


def false_claims(random: np.random.Generator, repetitions: int, adjusted: bool) -> float:
    """The share of comparisons of six equal methods on two states of the labels in which some row claims something.

    A seed's luck is shared by all methods in part, as the same initialisation and data order are.
    """
    wrong = 0
    for _ in range(repetitions):
        rows = []
        for labels in ((1.0, 0.0), (0.25, 0.0)):
            shared = random.normal(0.9, 0.02, 5)
            for name in ("ce", "ips", "lsskd", "kd", "ce+cutmix", "ce+mixup"):
                values = shared + random.normal(0, 0.01, 5)
                rows.append({**row(name, labels), "settings": {WINNER: setting(values.tolist())}})
        gains = [entry["gains"][WINNER] for entry in with_gains(rows, "ce", 1) if entry["gains"]]
        assert len(gains) == 10
        found = (gained if adjusted else {**gained, "p_value_holm": gained["p_value"]} for gained in gains)
        wrong += any(claim(gained) for gained in found)
    return wrong / repetitions


def test_among_equal_methods_some_claim_is_made_in_at_most_5_percent_of_comparisons() -> None:
    # The standard error of the share is half a point: of 500 repetitions, a whole one, the verdict would be the seed's.
    assert false_claims(np.random.default_rng(0), 2000, adjusted=True) <= 0.05
    assert false_claims(np.random.default_rng(0), 200, adjusted=False) > 0.15  # what Holm's correction is for


def test_a_difference_much_larger_than_the_noise_is_claimed() -> None:
    random = np.random.default_rng(1)
    others = [settled(name, list(random.normal(0.8, 0.005, 5))) for name in ("ce", "ips", "lsskd", "kd")]
    rows = with_gains([*others, settled("good", list(random.normal(0.9, 0.005, 5)))], "ce", 1)
    assert [claim(entry["gains"].get(WINNER)) for entry in rows] == [0, 0, 0, 0, 1]


def test_the_best_so_far_rises_with_what_all_trials_spend_and_leaves_out_the_control(tmp_path: Path) -> None:
    searched(tmp_path / "run")
    results = Results(tmp_path / "run")
    # 2 × 100 of the paper's, 2 × 100 of the control, then 3 × 300.
    assert best_so_far(results, "images") == [[100, 0.5], [200, 0.6], [1000, 0.8]]
    assert best_so_far(results, "seconds") == [[2.0, 0.5], [4.0, 0.6], [14.0, 0.8]]
    searched(tmp_path / "less", mode="min")
    assert best_so_far(Results(tmp_path / "less"), "images") == [[100, 0.5], [700, 0.4]]


def test_a_comparison_is_read_from_its_runs(whole: Path) -> None:
    found = read_comparison(whole)
    assert found["state"] == "COMPLETE"
    assert found["test_readings"] == 3 * 3 * 3
    kd = found["rows"][1]
    assert (kd["state"], kd["trials"], kd["images"], kd["seconds"]) == ("CONFIRMED", 3, 1300, 17.0)
    assert kd["gains"][WINNER]["mean"] == pytest.approx(0.1)
    assert kd["gains"][PAPER]["mean"] == 0


def test_states_are_told_of_runs_locks_and_failures(tmp_path: Path) -> None:
    rows = [row("ce"), row("kd"), row("ips"), row("lsskd")]
    folder = comparison_in(tmp_path, document(rows, failures={rows[3]["run"]: "every trial failed"}))
    confirmed(folder / rows[0]["run"], CE, CE)
    searched(folder / rows[1]["run"])
    found = read_comparison(folder)
    assert [entry["state"] for entry in found["rows"]] == ["CONFIRMED", "SEARCHED", "PENDING", "FAILED"]
    assert found["state"] == "FAILED"
    assert "every trial failed" in markdown(found)
    with RunLock(folder):
        assert read_comparison(folder)["state"] == "RUNNING"
    more_seeds = comparison_in(tmp_path / "more", document(rows[:1], seeds=5))
    confirmed(more_seeds / rows[0]["run"], CE, CE)
    assert read_comparison(more_seeds)["rows"][0]["state"] == "SEARCHED"
    assert read_comparison(more_seeds)["state"] == "INTERRUPTED"


def test_a_document_that_is_not_complete_is_one_sentence(tmp_path: Path) -> None:
    folder = comparison_in(tmp_path, {"rows": []})
    with pytest.raises(RunError, match=r"compare.json is not complete: KeyError\('mode'\)"):
        read_comparison(folder)


def test_the_table_names_settings_and_claims_no_more_than_the_intervals(whole: Path) -> None:
    found = read_comparison(whole)
    assert titles(found)[:3] == ["method", "setting", "test accuracy"]
    assert [(cells[0], cells[1], cells[2], cells[4]) for _, _, cells in lines(found)] == [
        ("ce", "searched", "0.8200", ""),
        ("ce", "label smoothing 0.1", "0.8200", ""),
        ("ce", "plain labels", "0.8200", ""),
        ("kd", "searched", "0.9200", "+0.1000"),
        ("kd", "published", "0.8200", "+0.0000"),
        ("kd", "undistilled", "0.9200", ""),
        ("ips+cutmix", "searched", "0.8300", "+0.0100"),
        ("ips+cutmix", "published", "0.8200", "+0.0000"),
        ("ips+cutmix", "undistilled", "0.8300", ""),
    ]
    kd, ips = findings(found)
    assert kd.startswith("kd, searched, is better than ce: +0.1000 (95 % interval +0.0752 to +0.1248; p = 0.007")
    assert ips.startswith("ips+cutmix, searched, against ce stays open: +0.0100 (95 % interval -0.0148 to +0.0348")
    text = " ".join(remarks(found))
    assert "budget, 2,000 images seen," in text
    assert "(27 readings)" in text
    assert "for the 2 searched settings" in text


def test_differences_without_spread_and_a_paper_setting_that_won_are_said(tmp_path: Path) -> None:
    rows = [row("ce"), row("kd")]
    folder = comparison_in(tmp_path, document(rows))
    confirmed(folder / rows[0]["run"], CE, CE)
    confirmed(folder / rows[1]["run"], [value + 0.125 for value in CE])
    found = read_comparison(folder)
    assert "on each of 3 seeds shows no spread to judge by" in findings(found)[0]
    assert "published (won the search)" in [cells[1] for _, _, cells in lines(found)]
    assert claim(found["rows"][1]["gains"][WINNER]) == 0


def test_several_states_of_the_labels_are_one_table_and_a_panel_each(tmp_path: Path) -> None:
    states = ((0.25, 0.0), (0.25, 0.4), (1.0, 0.0))
    rows = [row(name, labels) for labels in states for name in ("ce", "kd")]
    folder = comparison_in(tmp_path, document(rows))
    for entry in rows[:4]:
        confirmed(folder / entry["run"], CE if entry["name"] == "ce" else KD, CE)
    found = write_comparison(folder, json.loads((folder / "compare.json").read_text()))
    head, first = titles(found), lines(found)[0][2]
    assert dict(zip(head[:4], first[:4], strict=True)) == {
        "labels": "25%", "of them false": "0%", "method": "ce", "setting": "searched",
    }  # fmt: skip
    assert "at 25% of the labels, 40% of them false" in findings(found)[1]
    text = (folder / "README.md").read_text()
    assert text.count("| kd | searched |") == 2
    assert text.count("still to come") == 2
    small = Image.open(io.BytesIO((folder / "compare.png").read_bytes())).size
    one = comparison_in(tmp_path / "one", document([row("ce")]))
    write_comparison(one, json.loads((one / "compare.json").read_text()))
    single = Image.open(one / "compare.png").size
    assert small[0] > 1.8 * single[0]
    assert small[1] > 1.7 * single[1]


def test_the_picture_shows_a_line_that_ends_at_its_method(whole: Path) -> None:
    write_comparison(whole, json.loads((whole / "compare.json").read_text()))
    pixels = np.asarray(Image.open(whole / "compare.png").convert("RGB")).reshape(-1, 3)
    for color in ((0, 0, 0), (0, 114, 178), (213, 94, 0)):
        assert (pixels == color).all(1).sum() > 300


def test_a_line_of_the_picture_ends_at_what_its_search_has_spent_not_at_the_budget(tmp_path: Path) -> None:
    lengths = []
    for budget in (1300, 2600):  # a search here has spent 1,300 images
        content = document([row("ce")], budget={"unit": "images", "amount": budget})
        folder = comparison_in(tmp_path / f"{budget}", content)
        confirmed(folder / row("ce")["run"], CE, CE)
        write_comparison(folder, content)
        pixels = np.asarray(Image.open(folder / "compare.png").convert("RGB"))
        across = np.flatnonzero((pixels == (0, 0, 0)).all(2).sum(0) == 3)  # columns that the line crosses level
        lengths.append(across.max() - across.min())
    assert lengths[1] == pytest.approx(lengths[0] / 2, abs=3)


def test_a_written_comparison_reads_back_the_same(whole: Path) -> None:
    first = write_comparison(whole, json.loads((whole / "compare.json").read_text()))
    assert read_comparison(whole) == json.loads(json.dumps(first))


def test_runs_of_a_comparison_have_names_and_the_comparison_is_found(whole: Path) -> None:
    storage, run = whole.parent, row("kd")["run"]
    assert run_name(whole / run) == f"mine/{run}"
    assert find_run(f"mine/{run}", storage) == whole / run
    assert [folder.name for folder in list_runs(storage)] == sorted(row(n)["run"] for n in ("ce", "kd", "ips+cutmix"))
    assert find_comparison("mine", storage) == whole
    assert find_chain("mine", storage) is None
    with pytest.raises(RunError, match=r"'mine' is a comparison: name one of its runs \(mine/labels1-noise0-ce"):
        find_run("mine", storage)
    with pytest.raises(RunError, match=r"unknown run of comparison 'mine': 'kd'"):
        find_run("mine/kd", storage)


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    def run(*arguments: str, storage: Path) -> Any:
        monkeypatch.setenv("KDSEARCH_STORAGE", str(storage))
        monkeypatch.setattr("sys.argv", ["kdsearch", *arguments])
        try:
            main()
        except SystemExit as end:
            return end.code
        return 0

    return run


def test_status_shows_the_table_or_the_document(
    whole: Path, command: Callable[..., Any], capsys: pytest.CaptureFixture[str]
) -> None:
    assert command("status", "mine", storage=whole.parent) == 0
    said = capsys.readouterr().out
    assert "comparison mine  COMPLETE" in said
    assert "kd, searched, is better than ce" in said
    assert command("status", "mine", "--json", storage=whole.parent) == 0
    assert json.loads(capsys.readouterr().out) == read_comparison(whole)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["resume", "mine", "--trials", "3"], "the budget of a comparison is the same for all"),
        (["resume", "mine", "--retry-failed"], "--retry-failed = 'mine': is a comparison"),
        (["resume", f"mine/{row('kd')['run']}", "--trials", "3"], "would give this search more than those"),
    ],
)
def test_what_would_make_a_comparison_unequal_is_refused(
    arguments: list[str], sentence: str, whole: Path, command: Callable[..., Any], capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(*arguments, storage=whole.parent) == 2
    assert sentence in capsys.readouterr().err


def test_several_states_of_the_labels_stand_side_by_side_and_what_holds_is_bold(tmp_path: Path) -> None:
    half, noisy = (0.5, 0.0), (1.0, 0.4)
    rows = [row(name, labels) for labels in (half, noisy) for name in ("ce", "kd", "ips")]
    folder = comparison_in(tmp_path, document(rows))
    better = [value + difference for value, difference in zip(CE, (0.09, 0.1, 0.11), strict=True)]
    for place, values in ((0, CE), (1, better), (2, CE[::-1]), (3, CE)):
        confirmed(folder / rows[place]["run"], values, values)
    found = read_comparison(folder)
    head, *lines_of_methods = overview(found)
    assert head == ["method, searched", "50%", "100%, 40% false"]
    assert lines_of_methods == [
        ["ce", "0.8200", "0.8200"],
        ["kd", "**0.9200 (+0.1000)**", "–"],
        ["ips", "0.8200 (+0.0000)", "–"],
    ]
    assert "| kd | **0.9200 (+0.1000)** | – |" in markdown(found)
    assert "method, searched" not in markdown(read_comparison(comparison_in(tmp_path / "one", document(rows[:3]))))
