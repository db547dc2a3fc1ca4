"""A report makes sense of a run in any state, and lets nobody's text act."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from optuna.trial import TrialState

from kdsearch.results import Results
from kdsearch.results.confirm_log import TEST, TRAINING, Done, Log
from kdsearch.results.confirmation import DOCUMENT, FOLDER, conclude, plan, winner
from kdsearch.results.documents import to_json
from kdsearch.results.lock import RunLock
from kdsearch.results.report import report
from tests.report.page_reader import Node, Page
from tests.report.searched_run import SEARCHED, searched_run
from tests.results.build_run import RunBuilder, keep_best, sample_run

ATTACK = (
    "</script><script>window.hit=1</script><img src=x onerror=window.hit=1>\"'`|*_[x](javascript:window.hit=1)"
    "\x1b[31m\n# hit"
)
SHORT = {**SEARCHED, "space": {"<b onclick=window.hit=1>": {"low": 0.0, "high": 1.0}}}


def page_of(folder: Path) -> Page:
    return Page(report(Results(folder)))


def test_a_run_without_a_trial_says_so(tmp_path: Path) -> None:
    RunBuilder(tmp_path / "my-run")
    page = page_of(tmp_path / "my-run")
    assert "No trial has started yet." in page.section("The answer").text
    assert page.data["winner"] is None
    assert not page.root.find("svg", role="img")
    assert "Crashed" in page.section("How the search went").text


def test_a_run_that_goes_on_is_provisional(tmp_path: Path) -> None:
    run = RunBuilder(tmp_path / "my-run", experiment=SEARCHED)
    trial = run.begin("paper", learning_rate=0.1)
    trial.report(0.4, 1)
    trial.report(0.5, 2)
    with RunLock(tmp_path / "my-run"):
        page = page_of(tmp_path / "my-run")
    text = page.section("The answer").text
    assert "No trial has reached the full budget yet" in text
    assert [node.text for node in page.section("The answer").find("b")] == ["0.5000", "–", "–"]
    assert "Running" in page.section("How the search went").text
    assert "1 running" in page.section("How the search went").text
    assert "Too few trials have come to a rung to tell: 0." in page.section("Which hyperparameters matter").text
    assert "kdsearch confirm" not in page.section("Reproduce it").text


def test_the_question_tells_what_is_held_fixed_and_what_was_done_to_the_labels(tmp_path: Path) -> None:
    space = {**SEARCHED["space"], "cutmix": 0.5, "heads": "all"}
    data = {"name": "digits", "label_fraction": 0.25, "label_noise": 0.4}
    for name, changes in (("as-they-are", {}), ("changed", {"space": space, "data": data})):
        RunBuilder(tmp_path / name, experiment={**SEARCHED, **changes})
    rows = dict(page_of(tmp_path / "changed").table("What was searched"))
    assert rows["held fixed"] == "cutmix 0.5, gamma 1, heads all"
    assert rows["labels"] == "25% of the labels, 40% of them false"
    rows = dict(page_of(tmp_path / "as-they-are").table("What was searched"))
    assert rows["held fixed"] == "gamma 1"
    assert "labels" not in rows


def test_two_trials_are_compared_and_nothing_more_is_claimed(tmp_path: Path) -> None:
    run = RunBuilder(tmp_path / "my-run", experiment=SEARCHED)
    run.trial([0.5] * 27, TrialState.COMPLETE, 0.71, role="paper")
    run.trial([0.4] * 27, TrialState.COMPLETE, 0.61, role="control")
    page = page_of(tmp_path / "my-run")
    assert [node.text for node in page.section("The answer").find("b")] == ["0.7100", "+0.0000", "+0.1000"]
    assert "No searched setting beat the paper's own." in page.section("The answer").text
    _, *rungs = page.table("Rungs")
    assert [row[2:] for row in rungs[:-1]] == [["–", "2"], ["–", "2"]]
    assert page.data["landscape"]["importance"] == {}


def test_a_few_trials_have_slices_but_no_importance(tmp_path: Path) -> None:
    searched_run(tmp_path / "my-run", trials=12)
    page = page_of(tmp_path / "my-run")
    section = page.section("Which hyperparameters matter")
    assert "Importance is left out: it needs 20 trials" in section.text
    assert len(section.find("svg", role="img")) == 4 + 1  # slices and parallel coordinates; no contour


def test_a_run_whose_trials_all_failed_gives_the_reasons(tmp_path: Path) -> None:
    run = RunBuilder(tmp_path / "my-run")
    for _ in range(3):
        run.trial([], TrialState.FAIL, error="no such file: teacher.safetensors", epochs=0)
    run.describe(state="FAILED", why="all failed", ended=1_700_000_100.0)
    page = page_of(tmp_path / "my-run")
    assert "all 3 trials failed" in page.section("The answer").text
    assert page.table("Why trials failed")[1:] == [["3", "0, 1, 2", "no such file: teacher.safetensors"]]
    assert "kdsearch resume my-run" in page.section("Reproduce it").text


def test_versions_are_those_of_the_run_and_places_are_left_out(tmp_path: Path) -> None:
    experiment = {
        **SEARCHED,
        "student": {"name": "/secret/place/net.py:build"},
        "data": {"name": "folder", "root": "/secret/data"},
    }
    run = RunBuilder(tmp_path / "my-run", experiment=experiment)
    run.trial([0.5] * 27, TrialState.COMPLETE, 0.7, role="paper")
    keep_best(run.folder, 0)
    (run.folder / "trials" / "0000" / "best").rename(run.folder / "best")
    (run.folder / "best" / "facts.json").rename(run.folder / "best" / "metrics.json")
    for form in ("html", "md"):
        text = report(Results(run.folder), form)  # type: ignore[arg-type]
        assert "/secret" not in text
        assert "net.py:build" in text
    assert page_of(run.folder).table("Versions")[1:] == [["python", "3.11.7"], ["kdsearch", "0.1.0"]]


@pytest.mark.parametrize("content", ["{}", "[]", "{", '{"settings": {"winner": {"trial": 99}}}'])
def test_a_confirmation_that_cannot_be_read_is_told(tmp_path: Path, content: str) -> None:
    run = sample_run(tmp_path / "my-run")
    (run.folder / DOCUMENT).write_text(content)
    assert "it cannot be read" in page_of(run.folder).section("The answer").text


def confirmed_run(folder: Path) -> dict[str, Any]:
    """A search whose second-best setting turns out the better one on fresh seeds; its confirm.json."""
    run = searched_run(folder)
    results = Results(run.folder)
    planned = plan(results, top=2, seeds=3)
    log = Log(folder / FOLDER)
    first, second = (trial.number for trial in planned.candidates)
    for place, seed in enumerate(planned.deciding):
        for number, value in ((first, 0.80), (second, 0.85)):
            log.add(Done(TRAINING, number, seed, 1.0, value + 0.01 * place, epoch=27, seconds=1.0))
    parts = planned.settings(planned.candidates[1])
    for place, seed in enumerate(planned.reporting):
        for part, trial in parts.items():
            value = {"winner": 0.84, "paper": 0.80, "control": 0.75}[part] + 0.01 * place + 0.001 * trial.number * place
            log.add(Done(TRAINING, trial.number, seed, 1.0, value, epoch=27, seconds=1.0))
            log.add(Done(TEST, trial.number, seed, 2.0, value - 0.01))
    chosen = winner(planned, log)
    assert chosen is not None
    assert chosen.number == second
    text = to_json(conclude(results, planned, log))
    (folder / DOCUMENT).write_text(text)
    document: dict[str, Any] = json.loads(text)
    return document


def test_a_confirmation_gives_the_winner_and_its_interval(tmp_path: Path) -> None:
    document = confirmed_run(tmp_path / "my-run")
    page = page_of(tmp_path / "my-run")
    text, best = page.section("The answer").text, document["settings"]["winner"]
    assert page.data["winner"]["number"] == best["trial"]
    assert f"on fresh seeds trial {best['trial']} was the better one" in text
    assert "Not confirmed" not in text
    gains = [document["gains"][part]["test"] for part in ("paper", "control")]
    cards = [node.text for node in page.section("The answer").find("b")]
    assert cards == [f"{best['test']['mean']:.4f}", *(f"{gain['mean']:+.4f}" for gain in gains)]
    intervals = [node.text for node in page.section("The answer").find("dd")]
    assert f"95 % interval {gains[0]['low']:+.4f} to {gains[0]['high']:+.4f}" in intervals[1]
    assert f"had {page.data['winner']['best']:.4f} on validation" in text
    head, *rows = page.table("The confirmation on fresh seeds")
    assert head[2] == "test accuracy"
    for row, (_, setting) in zip(rows, document["settings"].items(), strict=True):
        low, high = setting["test"]["low"], setting["test"]["high"]
        assert row[1:] == [
            str(setting["trial"]),
            f"{setting['test']['mean']:.4f}",
            f"{low:.4f} to {high:.4f}",
            f"{setting['validation']['mean']:.4f}",
        ]
    gained = document["gains"]["paper"]["test"]
    assert f"{gained['mean']:+.4f}" in text
    assert "kdsearch confirm" not in page.section("Reproduce it").text


def hostile_run(folder: Path) -> RunBuilder:
    run = RunBuilder(
        folder, experiment={**SHORT, "student": {"name": ATTACK}, "method": ATTACK, "data": ATTACK, "name": ATTACK}
    )
    run.describe(metric=ATTACK, why=ATTACK, state="COMPLETE", ended=1_700_000_100.0)
    for number in range(4):
        name = "<b onclick=window.hit=1>"
        values = [0.5 + number / 10] * 27
        run.trial(values, TrialState.COMPLETE, values[-1], role=ATTACK, **{name: 0.2 * number, ATTACK: ATTACK})
    run.trial([], TrialState.FAIL, error=ATTACK, epochs=0)
    return run


def test_hostile_text_stays_text(tmp_path: Path) -> None:
    page = page_of(hostile_run(tmp_path / "my-run").folder)
    nodes = page.root.find()
    assert {node.tag for node in nodes} <= KNOWN
    assert [name for node in nodes for name in node.attributes if name.startswith("on")] == []
    assert {node.attributes["href"] for node in nodes if "href" in node.attributes} <= {
        "data:,",
        *(f"#part{part}" for part in range(12)),
    }
    assert [node for node in nodes if "src" in node.attributes] == []
    assert page.data["metric"] == ATTACK
    assert ATTACK.replace("\x1b", "\N{REPLACEMENT CHARACTER}") in page.section("Failures").text


KNOWN = {
    "html", "head", "meta", "title", "link", "style", "body", "header", "h1", "nav", "a", "main", "section", "h2", "p",
    "div", "dl", "dt", "dd", "b", "table", "thead", "tbody", "tr", "th", "td", "wbr", "figure", "figcaption", "ul",
    "li", "svg", "path", "rect", "circle", "text", "pre", "code", "details", "summary", "script",
}  # fmt: skip


def test_nothing_is_loaded_and_no_script_runs(tmp_path: Path) -> None:
    searched_run(tmp_path / "my-run")
    html = report(Results(tmp_path / "my-run"))
    assert re.findall(r"https?://|//[a-z]", html) == []
    assert "url(" not in html
    assert "@import" not in html
    (policy,) = [node for node in Page(html).root.find("meta") if node.attributes.get("http_equiv")]
    assert str(policy.attributes["content"]).startswith("default-src 'none'")


def test_markdown_tells_the_same_words_and_tables(tmp_path: Path) -> None:
    searched_run(tmp_path / "my-run")
    results = Results(tmp_path / "my-run")
    text, page = report(results, "md"), Page(report(results))
    assert [line[3:] for line in text.splitlines() if line.startswith("## ")] == [
        node.text for node in page.root.find("h2")
    ]
    plain = text.replace("\\", "")
    for paragraph in page.root.find("p"):
        assert paragraph.text in plain
    rows = [[cell.text for cell in row.parts if isinstance(cell, Node)] for row in page.root.find("tr")]
    for row in rows:
        assert f"| {' | '.join(row)} |" in plain
    for code in page.root.find("code"):
        assert code.text in text
    assert "<svg" not in text


def test_hostile_text_is_no_markup_of_markdown(tmp_path: Path) -> None:
    text = report(Results(hostile_run(tmp_path / "my-run").folder), "md")
    outside = re.sub(r"^(`{3,}).*?^\1$", "", text, flags=re.DOTALL | re.MULTILINE)
    assert re.findall(r"(?<!\\)<", outside) == []
    assert re.findall(r"(?<!\\)\[x", outside) == []
    assert "\x1b" not in outside
    assert [line for line in outside.splitlines() if line.startswith("# ")] == ["# my-run: what the search found"]
