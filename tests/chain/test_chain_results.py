"""A chain's table, remarks and picture, from folders that a search would leave; and the commands that read them."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from optuna.trial import TrialState
from PIL import Image

from kdsearch.cli import main
from kdsearch.errors import RunError
from kdsearch.results import RunLock, find_run, list_runs
from kdsearch.results.chain import cells, markdown, progress_of, read_chain, remarks, with_measures, write_chain
from kdsearch.results.storage import find_chain, run_name
from tests.results.build_run import EXPERIMENT, RunBuilder, facts

STUDENTS = {"1-big": 80_000, "2-small": 20_000, "3-tiny": 10_000, "scratch": 10_000, "direct": 10_000}
TEACHERS = {"2-small": "1-big", "3-tiny": "2-small", "direct": "1-big"}
VALUES = {"1-big": 0.9, "2-small": 0.85, "3-tiny": 0.8, "scratch": 0.7, "direct": 0.82}


def plan(mode: str = "max") -> dict[str, Any]:
    rows = [
        {
            "name": name,
            "kind": "generation" if name[0].isdigit() else "control",
            "student": "tiny" if name in ("scratch", "direct") else name[2:],
            "arguments": {"width": 0.5} if parameters == 10_000 else {},
            "method": "kd" if name != "1-big" else "ce",
            "teacher": TEACHERS.get(name),
            "trials": 2,
            "state": "PENDING",
            "weights": None,
        }
        for name, parameters in STUDENTS.items()
    ]
    return {
        "chain": "mine", "task": "classification", "metric": "accuracy", "mode": mode, "seed": 3, "data": "digits",
        "rows": rows,
    }  # fmt: skip


def measures(name: str, threads: int = 1) -> dict[str, Any]:
    latency = {"seconds": STUDENTS[name] * 1e-8, "forwards": 50, "threads": threads, "device": "cpu", "batch": 1}
    return {
        "parameters": STUDENTS[name],
        "multiply_adds": 10 * STUDENTS[name],
        "input": [1, 8, 8],
        "latency": latency,
    }


def finish(folder: Path, name: str, role: str = "search", mode: str = "max") -> None:
    """A run of two trials, the second of which is the best and exported."""
    run = RunBuilder(folder / name, mode=mode, experiment={**EXPERIMENT, "search": {"trials": 2}})
    worse = VALUES[name] + (-0.1 if mode == "max" else 0.1)
    run.trial([0.1, 0.2], TrialState.COMPLETE, worse, role="paper")
    run.trial([0.1, 0.3], TrialState.COMPLETE, VALUES[name], role=role)
    run.describe(state="COMPLETE", why="all 2 trials are done")
    (folder / name / "best").mkdir()
    (folder / name / "best" / "metrics.json").write_text(json.dumps(facts(value=VALUES[name])))


def chain_in(storage: Path, *finished: str, mode: str = "max", **roles: str) -> Path:
    folder = storage / "mine"
    folder.mkdir(parents=True)
    (folder / "chain.yaml").write_text("generations: []\n")
    document = plan(mode)
    for name in finished:
        finish(folder, name, roles.get(name.split("-")[-1], "search"), mode)
        document = with_measures(document, name, measures(name))
    write_chain(folder, document)
    return folder


@pytest.fixture
def whole(tmp_path: Path) -> Path:
    return chain_in(tmp_path / "runs", *STUDENTS)


def test_a_row_has_the_metric_and_the_costs_of_its_student(whole: Path) -> None:
    document = read_chain(whole)
    assert document["state"] == "COMPLETE"
    assert [cells(row) for row in document["rows"]] == [
        ["1-big", "big", "–", "0.9000", "80,000", "1.00×", "800,000", "0.8 ms"],
        ["2-small", "small", "1-big", "0.8500", "20,000", "4.00×", "200,000", "0.2 ms"],
        ["3-tiny", "tiny width=0.5", "2-small", "0.8000", "10,000", "8.00×", "100,000", "0.1 ms"],
        ["scratch", "tiny width=0.5", "–", "0.7000", "10,000", "8.00×", "100,000", "0.1 ms"],
        ["direct", "tiny width=0.5", "1-big", "0.8200", "10,000", "8.00×", "100,000", "0.1 ms"],
    ]
    assert [row["seconds"] for row in document["rows"]] == [25.0] * 5


def test_the_gains_compare_the_last_generation_with_each_control(whole: Path) -> None:
    document = read_chain(whole)
    assert document["gain_over_scratch"] == pytest.approx(0.1)
    assert document["gain_over_direct"] == pytest.approx(-0.02)
    said = " ".join(remarks(document))
    assert "3-tiny over the same student from scratch: +0.1000 accuracy." in said
    assert "3-tiny over the same student taught by 1-big directly: -0.0200 accuracy." in said
    assert "one seed" in said
    assert "cpu, 1 thread, input 1 × 8 × 8" in said


def test_of_a_metric_that_is_to_be_small_a_gain_is_positive_too(tmp_path: Path) -> None:
    document = read_chain(chain_in(tmp_path, *STUDENTS, mode="min"))
    assert document["gain_over_scratch"] == pytest.approx(-0.1)
    assert document["gain_over_direct"] == pytest.approx(0.02)


def test_a_winner_that_was_not_taught_is_named(tmp_path: Path) -> None:
    document = read_chain(chain_in(tmp_path, *STUDENTS, tiny="control"))
    said = [remark for remark in remarks(document) if remark.startswith("3-tiny is a student without its teacher")]
    assert len(said) == 1
    assert "the best reached 0.7000" in said[0]


def test_an_unfinished_chain_shows_what_there_is(tmp_path: Path) -> None:
    folder = chain_in(tmp_path, "1-big")
    run = RunBuilder(folder / "2-small", experiment={**EXPERIMENT, "search": {"trials": 2}})
    run.trial([0.1, 0.3], TrialState.COMPLETE, 0.6, role="paper")
    run.begin()
    run.describe(state="INTERRUPTED")
    document = read_chain(folder)
    assert document["state"] == "INTERRUPTED"
    assert [progress_of(row, "accuracy") for row in document["rows"]] == [
        "", "interrupted: 1/2 trials ended, best accuracy so far 0.6000", *["still to come"] * 3,
    ]  # fmt: skip
    assert cells(document["rows"][1])[3:] == ["–"] * 5
    assert document["gain_over_scratch"] is None
    with RunLock(folder):
        assert read_chain(folder)["state"] == "RUNNING"
    assert "still to come" in markdown(document)


def test_the_table_is_written_as_json_markdown_and_a_picture(whole: Path) -> None:
    assert json.loads((whole / "chain.json").read_text()) == read_chain(whole)
    text = (whole / "README.md").read_text()
    assert "| 2-small | small | 1-big | 0.8500 | 20,000 | 4.00× | 200,000 | 0.2 ms |" in text
    assert "(chain.png)" in text


def test_the_picture_has_a_line_a_row_and_fills_generations_only(whole: Path, tmp_path: Path) -> None:
    image = Image.open(io.BytesIO((whole / "chain.png").read_bytes()))
    image.load()
    dark = image.convert("L").point(lambda value: 255 if value < 90 else 0)
    # The bars of the parameters, one a line, 34 pixels apart: how many dark pixels cross the middle of each.
    left = [x for x in range(image.width) if dark.getpixel((x, 78 + 17))]
    start = next(x for x in left if all(dark.getpixel((x + step, 78 + 17)) for step in range(60)))
    crossed = [sum(dark.getpixel((x, 78 + 17 + 34 * row)) > 0 for x in range(start, start + 14)) for row in range(5)]
    assert crossed[:3] == [14] * 3
    assert crossed[3] == crossed[4] < 14
    unfinished = chain_in(tmp_path / "other", "1-big")
    assert Image.open(unfinished / "chain.png").size == image.size


def test_a_chains_runs_are_found_and_listed_as_chain_and_generation(whole: Path) -> None:
    storage = whole.parent
    assert [run_name(run) for run in list_runs(storage)] == [f"mine/{name}" for name in sorted(STUDENTS)]
    assert find_run("mine/2-small", storage) == whole / "2-small"
    assert find_run(str(whole / "2-small"), "elsewhere") == whole / "2-small"
    assert find_chain("mine", storage) == find_chain(whole, "elsewhere") == whole
    assert find_chain("mine/2-small", storage) is None
    with pytest.raises(RunError, match=r"'mine' is a chain: name one of its runs \(mine/1-big, mine/2-small"):
        find_run("mine", storage)
    with pytest.raises(RunError, match="unknown run of chain 'mine': '2-smal'; did you mean '2-small'"):
        find_run("mine/2-smal", storage)


@pytest.mark.parametrize("name", ["../mine", "mine/..", "mine/../mine", "mine//2-small", "mine/2-small/best"])
def test_a_name_in_a_chain_never_leaves_it(whole: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(whole)
    with pytest.raises(RunError):
        find_run(name, whole.parent)


def test_a_damaged_document_is_refused_with_a_sentence(whole: Path) -> None:
    (whole / "chain.json").write_text('{"rows": [{"name": "1-big"}]}')
    with pytest.raises(RunError, match=r"chain.json is not complete: KeyError\('state'\)"):
        read_chain(whole)


@pytest.fixture
def kdsearch(
    whole: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """The console script in this process, in the folder that holds `runs`."""
    monkeypatch.chdir(whole.parent.parent)
    monkeypatch.delenv("KDSEARCH_STORAGE", raising=False)

    def call(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["kdsearch", *arguments])
        code = 0
        try:
            main()
        except SystemExit as end:
            code = int(end.code or 0)
        said = capsys.readouterr()
        return code, said.out, said.err

    return call


def test_status_of_a_chain_is_its_table(kdsearch: Callable[..., tuple[int, str, str]], whole: Path) -> None:
    code, out, _ = kdsearch("status", "mine")
    assert code == 0
    assert "chain mine  COMPLETE" in out
    (line,) = [line for line in out.splitlines() if line.startswith("3-tiny ") and "2-small" in line]
    assert "0.8000" in line
    assert "10,000" in line
    code, out, _ = kdsearch("status", "mine", "--json")
    assert json.loads(out) == read_chain(whole)


def test_a_generation_is_a_run_like_any_other(kdsearch: Callable[..., tuple[int, str, str]]) -> None:
    code, out, _ = kdsearch("ls", "--json")
    assert {run["run"] for run in json.loads(out)["runs"]} == {f"mine/{name}" for name in STUDENTS}
    code, out, _ = kdsearch("status", "mine/2-small")
    assert code == 0
    assert out.startswith("mine/2-small  COMPLETE")
    code, out, _ = kdsearch("best", "mine/2-small")
    assert "kdsearch best mine/2-small --yaml" in out or "kdsearch export mine/2-small" in out


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["resume", "mine", "--trials", "3"], "--trials = 3: is for a search; a chain goes on as it was begun"),
        (["resume", "mine/2-small", "--trials", "3"], "--trials = 3: would change a teacher"),
        (["export", "mine", "--to", "out"], "'mine' is a chain: name one of its runs"),
        (["chain", "none.yaml"], "'none.yaml' is no file"),
        (["chain", "runs/mine/chain.yaml"], "generations"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_mistake_gets_one_sentence_and_exit_code_2(
    arguments: list[str], sentence: str, kdsearch: Callable[..., tuple[int, str, str]]
) -> None:
    code, _, err = kdsearch(*arguments)
    assert code == 2
    assert sentence in err
    assert len(err.strip().splitlines()) == 1
