"""The commands that read runs, as a person and as a script meet them."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from optuna.trial import TrialState

from kdsearch.cli import main
from kdsearch.results import Results, RunLock
from tests.results.build_run import EXPERIMENT, RunBuilder, facts, keep_best, sample_run


@dataclass(frozen=True)
class Answer:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Kdsearch = Callable[..., Answer]


@pytest.fixture
def storage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The default storage of the folder that the test stands in."""
    monkeypatch.chdir(tmp_path)
    for name in ("KDSEARCH_STORAGE", "FORCE_COLOR", "NO_COLOR", "COLUMNS"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / "runs"


@pytest.fixture
def run(storage: Path) -> RunBuilder:
    return sample_run(storage / "my-run")


@pytest.fixture
def kdsearch(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Kdsearch:
    """The console script's function, called in this process; nothing is a terminal unless COLUMNS is set."""

    def call(*arguments: str, columns: int | None = None) -> Answer:
        monkeypatch.setattr(sys, "argv", ["kdsearch", *arguments])
        if columns is not None:
            monkeypatch.setenv("FORCE_COLOR", "1")
            monkeypatch.setenv("COLUMNS", str(columns))
        code = 0
        try:
            main()
        except SystemExit as end:
            code = int(end.code or 0)
        out, err = capsys.readouterr()
        return Answer(code, out, err)

    return call


def uncoloured(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


def test_status_json_is_the_results_document_and_nothing_else(run: RunBuilder, kdsearch: Kdsearch) -> None:
    answer = kdsearch("status", "my-run", "--json")
    assert (answer.code, answer.err) == (0, "")
    assert answer.json == Results(run.folder).status()


def test_a_score_that_is_not_finite_is_null_in_json(storage: Path, kdsearch: Kdsearch) -> None:
    run = RunBuilder(storage / "r")
    run.trial([float("nan")], TrialState.PRUNED, alpha=float("inf"))
    answer = kdsearch("status", "r", "--json")
    trial = json.loads(answer.out, parse_constant=pytest.fail)["trials"][0]
    assert (trial["best"], trial["last"], trial["hyperparameters"]["alpha"]) == (None, None, None)


def test_status_tells_progress_the_best_against_both_controls_and_failures(run: RunBuilder, kdsearch: Kdsearch) -> None:
    with RunLock(run.folder):
        out = kdsearch("status", "my-run").out
    assert out.startswith("my-run  RUNNING\nips · resnet8 · digits · accuracy\n")
    assert "5/6 trials ended · 1 running · 3 complete · 1 pruned · 1 failed" in out
    assert "budget 6 trials" in out
    assert re.search(r"^best +0\.9000 +2 ", out, re.MULTILINE)
    assert re.search(r"^paper +0\.7100 +\+0\.1900 +0 ", out, re.MULTILINE)
    assert re.search(r"^control +0\.6100 +\+0\.2900 +1 ", out, re.MULTILINE)
    assert re.search(r"^5 +running +0\.9500", out, re.MULTILINE)
    assert "trial 4 failed: the loss is not finite at step 40" in out


def test_a_crashed_run_is_told_apart_and_its_running_trial_called_unfinished(
    run: RunBuilder, kdsearch: Kdsearch
) -> None:
    out = kdsearch("status", "my-run").out
    assert out.startswith("my-run  CRASHED\n")
    assert re.search(r"^5 +unfinished ", out, re.MULTILINE)
    assert kdsearch("status", "my-run", "--json").json["trials"][5]["state"] == "RUNNING"


def test_a_long_run_shows_what_matters_and_all_on_demand(storage: Path, kdsearch: Kdsearch) -> None:
    run = RunBuilder(storage / "r")
    for number in range(50):
        run.trial([number / 100], TrialState.PRUNED)
    for _ in range(30):
        run.begin()
    first = kdsearch("status", "r").out
    shown = [line.split()[:2] for line in first.splitlines() if re.match(r"\d+ +(unfinished|pruned)", line)]
    assert shown == [[str(50 + n), "unfinished"] for n in range(10)] + [[str(49 - n), "pruned"] for n in range(10)]
    assert "… and 60 more (--all shows them)" in first
    everything = kdsearch("status", "r", "--all").out
    assert len(re.findall(r"^\d+ +(?:unfinished|pruned)", everything, re.MULTILINE)) == 80
    assert "more" not in everything


@pytest.mark.parametrize("columns", [40, 60, 80, 100, 140])
@pytest.mark.parametrize("command", [("status", "my-run"), ("best", "my-run"), ("ls",)])
def test_nothing_is_wider_than_the_terminal(
    run: RunBuilder, kdsearch: Kdsearch, columns: int, command: tuple[str, ...]
) -> None:
    answer = kdsearch(*command, columns=columns)
    assert "\x1b[" in answer.out
    lines = [line for line in uncoloured(answer.out).splitlines() if not line.startswith("  ")]
    assert lines
    assert max(map(len, lines)) <= columns


def test_a_wide_terminal_gives_each_hyperparameter_a_column_a_narrow_one_a_line_below(
    run: RunBuilder, kdsearch: Kdsearch
) -> None:
    wide = uncoloured(kdsearch("best", "my-run", columns=140).out)
    narrow = uncoloured(kdsearch("best", "my-run", columns=50).out)
    assert re.search(
        r"^ +trial +accuracy +vs paper +vs control +epochs +alpha +per_side +temperature$", wide, re.MULTILINE
    )
    assert "temperature 4" not in wide
    assert re.search(r"^    alpha [\d.]+ · patches_per_side \d ·\n    temperature 4$", narrow, re.MULTILINE)


def test_a_pipe_gets_one_line_a_trial_however_long(storage: Path, kdsearch: Kdsearch) -> None:
    names = {f"hyperparameter_{number}": {"low": 0, "high": 1} for number in range(40)}
    run = RunBuilder(storage / "r", experiment=EXPERIMENT | {"space": names})
    run.trial([0.5], TrialState.COMPLETE, 0.5, **dict.fromkeys(names, 0.125))
    answer = kdsearch("status", "r", "--all")
    assert "\x1b" not in answer.out
    line = next(line for line in answer.out.splitlines() if re.match(r"0 +complete", line))
    assert line.count("0.125") == 40


def test_best_shows_the_gains_the_paper_and_the_next_commands(run: RunBuilder, kdsearch: Kdsearch) -> None:
    out = kdsearch("best", "my-run", "--top", "2").out
    assert re.search(r"^1 +2 +0\.9000 +\+0\.1900 +\+0\.2900", out, re.MULTILINE)
    assert re.search(r"^2 +0 paper +0\.7100 +\+0\.1000", out, re.MULTILINE)
    assert not re.search(r"^3 ", out, re.MULTILINE)
    assert out.count("0 paper") == 1
    assert re.search(r"^ +1 control +0\.6100 +-0\.1000", out, re.MULTILINE)
    assert "kdsearch best my-run --yaml > best.yaml" in out


@pytest.mark.parametrize(
    ("paper", "control", "sentence"),
    [
        (0.7, 0.8, "No setting of the method beat the same student without it"),
        (0.8, 0.7, "No searched setting beat the paper's own"),
        (0.5, 0.5, None),
    ],
)
def test_best_says_when_the_search_has_found_nothing_better(
    paper: float, control: float, sentence: str | None, storage: Path, kdsearch: Kdsearch
) -> None:
    run = RunBuilder(storage / "r")
    run.trial([paper] * 3, TrialState.COMPLETE, paper, role="paper")
    run.trial([control] * 3, TrialState.COMPLETE, control, role="control")
    run.trial([0.6] * 3, TrialState.COMPLETE, 0.6)
    out = kdsearch("best", "r").out
    assert (sentence in out) if sentence else ("beat" not in out)


def test_best_yaml_is_the_whole_setting_with_a_header(run: RunBuilder, kdsearch: Kdsearch) -> None:
    answer = kdsearch("best", "my-run", "--yaml")
    best = Results(run.folder).best
    assert best is not None
    assert yaml.safe_load(answer.out) == best.hyperparameters
    assert answer.out.startswith("# Hyperparameters of trial 2 of run my-run: accuracy 0.9000 on validation.\n")


def test_best_json_names_the_best_its_gains_and_the_top(run: RunBuilder, kdsearch: Kdsearch) -> None:
    document = kdsearch("best", "my-run", "--top", "3", "--json").json
    assert document["best"]["number"] == 2
    assert document["gain_over_paper"] == pytest.approx(0.19)
    assert document["gain_over_control"] == pytest.approx(0.29)
    assert [trial["number"] for trial in document["top"]] == [2, 0, 1]
    assert (document["paper"]["number"], document["control"]["number"]) == (0, 1)
    assert (document["mode"], document["provisional"]) == ("max", False)


def test_two_formats_at_once_are_refused(run: RunBuilder, kdsearch: Kdsearch) -> None:
    answer = kdsearch("best", "my-run", "--yaml", "--json")
    assert (answer.code, answer.out) == (2, "")


def test_a_run_without_results_says_why(storage: Path, kdsearch: Kdsearch) -> None:
    run = RunBuilder(storage / "r")
    assert kdsearch("best", "r").err == "error: run 'r' has no result yet: no trial has finished an epoch\n"
    run.trial([], TrialState.FAIL, error="ValueError: too hot")
    answer = kdsearch("best", "r")
    assert (answer.code, answer.out) == (2, "")
    assert "all its 1 trials failed, the first with: ValueError: too hot" in answer.err
    assert kdsearch("best", "r", "--json").json["best"] is None
    assert kdsearch("status", "r").code == 0


def test_ls_lists_the_runs_the_newest_last(storage: Path, kdsearch: Kdsearch) -> None:
    first = sample_run(storage / "z-first")
    first.describe(state="COMPLETE")
    RunBuilder(storage / "a-later").describe(started=1_800_000_000.0)
    document = kdsearch("ls", "--json").json
    assert [run["run"] for run in document["runs"]] == ["z-first", "a-later"]
    finished = document["runs"][0]
    assert {key: finished[key] for key in ("state", "method", "student", "data", "metric", "best", "planned")} == {
        "state": "COMPLETE", "method": "ips", "student": "resnet8", "data": "digits", "metric": "accuracy", "best": 0.9,
        "planned": 6,
    }  # fmt: skip
    counted = ("trials", "running", "complete", "pruned", "failed")
    assert [finished[key] for key in counted] == [6, 1, 3, 1, 1]
    lines = kdsearch("ls").out.splitlines()
    assert re.match(r"z-first +complete +ips +resnet8 +digits +5/6 +0\.9000 +accuracy", lines[1])
    assert lines[2].startswith("a-later  crashed")


def test_ls_without_runs_says_how_to_start_one(storage: Path, kdsearch: Kdsearch) -> None:
    assert "kdsearch search ips" in kdsearch("ls").out
    assert kdsearch("ls", "--json").json == {"storage": "runs", "runs": []}
    assert not storage.exists()


def test_a_damaged_run_does_not_hide_the_others(run: RunBuilder, storage: Path, kdsearch: Kdsearch) -> None:
    (storage / "broken").mkdir()
    (storage / "broken" / "experiment.yaml").write_text("a: [")
    answer = kdsearch("ls")
    assert answer.code == 0
    assert re.search(r"^broken +damaged", answer.out, re.MULTILINE)
    assert re.search(r"^my-run +crashed", answer.out, re.MULTILINE)
    assert "broken: " in answer.out
    states = {found["run"]: found["state"] for found in kdsearch("ls", "--json").json["runs"]}
    assert states == {"broken": "DAMAGED", "my-run": "CRASHED"}


def test_the_storage_comes_from_flag_or_environment(
    tmp_path: Path, kdsearch: Kdsearch, monkeypatch: pytest.MonkeyPatch
) -> None:
    sample_run(tmp_path / "elsewhere" / "my-run")
    monkeypatch.chdir(tmp_path)
    assert kdsearch("status", "my-run", "--json").code == 2
    assert kdsearch("status", "my-run", "--json", "--storage", "elsewhere").json["run"] == "my-run"
    assert kdsearch("status", "elsewhere/my-run", "--json").json["run"] == "my-run"
    assert "kdsearch best elsewhere/my-run --yaml" in kdsearch("best", "my-run", "--storage", "elsewhere").out
    monkeypatch.setenv("KDSEARCH_STORAGE", str(tmp_path / "elsewhere"))
    assert kdsearch("status", "my-run", "--json").json["run"] == "my-run"
    assert "kdsearch best my-run --yaml" in kdsearch("best", "my-run").out


@pytest.mark.parametrize("command", ["status", "best", "export"])
def test_an_unknown_run_is_one_sentence_and_exit_code_2(run: RunBuilder, kdsearch: Kdsearch, command: str) -> None:
    more = ("--to", "out") if command == "export" else ()
    answer = kdsearch(command, "my-rum", "--json", *more)
    assert (answer.code, answer.out) == (2, "")
    assert answer.err == "error: unknown run 'my-rum'; did you mean 'my-run'? (valid: my-run) in runs\n"


def test_export_copies_the_student_and_refuses_a_second_time(run: RunBuilder, kdsearch: Kdsearch) -> None:
    keep_best(run.folder, 2)
    answer = kdsearch("export", "my-run", "--to", "out")
    assert answer.code == 0
    assert "accuracy 0.9000 on validation, exported to out" in answer.out
    assert "student.safetensors" in answer.out
    assert sorted(os.listdir("out")) == ["README.md", "hyperparameters.yaml", "metrics.json", "student.safetensors"]
    again = kdsearch("export", "my-run", "--to", "out", "--json")
    assert (again.code, again.out) == (2, "")
    assert "'out' exists and is not empty" in again.err
    document = kdsearch("export", "my-run", "--to", "out2", "--json").json
    assert (document["to"], document["metric"], document["value"]) == ("out2", "accuracy", 0.9)
    assert document["files"] == sorted(os.listdir("out2"))


def test_the_hardest_classes_of_the_winner_are_shown(run: RunBuilder, kdsearch: Kdsearch) -> None:
    scores: dict[str, Any] = {f"class {number}": 1 - number / 100 for number in range(12)} | {"odd": None}
    keep_best(run.folder, 2, per_class_accuracy=scores)
    kdsearch("export", "my-run", "--to", str(run.folder / "best"))
    out = kdsearch("best", "my-run").out
    assert "class 11 0.8900 · class 10 0.9000" in out
    assert "accuracy per class" in out
    assert "· … 2 more" in out
    run_folder = "runs/my-run"
    train = f"kdsearch train {run_folder}/experiment.yaml --hyperparameters {run_folder}/best/hyperparameters.yaml"
    assert train in out


def test_what_a_run_contains_cannot_command_the_terminal(storage: Path, kdsearch: Kdsearch) -> None:
    hostile = "\x1b]0;owned\x07[red]x[/red]\r\n:smile:"
    run = RunBuilder(storage / "r", experiment=EXPERIMENT | {"data": {"name": hostile}, "method": hostile})
    run.describe(why=hostile, state="FAILED", metric=hostile)
    run.trial([0.5], TrialState.PRUNED, error=hostile, role=hostile, alpha=hostile)
    run.trial([0.5], TrialState.COMPLETE, 0.5, alpha=hostile)
    keep_best(run.folder, 1, per_class_accuracy={hostile: 0.5}, metric=hostile)
    for columns in (None, 80):
        for command in (("status", "r"), ("best", "r"), ("ls",), ("export", "r", "--to", f"out-{columns}")):
            answer = kdsearch(*command, columns=columns)
            shown = uncoloured(answer.out + answer.err)
            assert answer.out, answer.err
            assert not set(shown) & set("\x1b\x07\r"), command
            if columns is None and command[0] in ("status", "ls"):
                assert "[red]x[/red]" in shown
                assert ":smile:" in shown
    assert kdsearch("status", "r", "--json").json["metric"] == hostile


def test_a_terminal_that_knows_no_unicode_is_no_reason_to_fail(run: RunBuilder) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "kdsearch", "status", "my-run"],
        env={**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "ips ? resnet8 ? digits" in done.stdout


def test_on_a_real_terminal_the_output_is_coloured_and_fits(run: RunBuilder) -> None:
    """Through a pseudo-terminal of 72 columns."""
    leader, follower = pty.openpty()
    environment = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "COLUMNS")}
    with RunLock(run.folder):
        process = subprocess.Popen(
            [sys.executable, "-m", "kdsearch", "status", "my-run"],
            stdin=follower, stdout=follower, stderr=follower, env={**environment, "TERM": "xterm", "COLUMNS": "72"},
        )  # fmt: skip
        os.close(follower)
        received = b""
        while select.select([leader], [], [], 60)[0]:
            try:
                part = os.read(leader, 4096)
            except OSError:  # Linux's way of saying that the other end is closed
                break
            received += part
        process.wait()
    os.close(leader)
    text = received.decode()
    assert "\x1b[1;36mmy-run  RUNNING\x1b[0m" in text
    lines = uncoloured(text).replace("\r", "").splitlines()
    assert max(map(len, lines)) <= 72
    assert any(line.startswith("━━━━━━━━━━━━━━━━━╌╌╌ 5/6 trials ended · 1 running") for line in lines)


@pytest.mark.parametrize("command", [("ls",), ("status", "my-run"), ("best", "my-run", "--json")])
def test_reading_a_run_starts_without_what_trains(run: RunBuilder, command: tuple[str, ...]) -> None:
    code = (
        f"import sys; sys.argv = {['kdsearch', *command]!r}\n"
        "from kdsearch.cli import main\n"
        "try:\n    main()\nexcept SystemExit as end:\n    assert not end.code\n"
        "heavy = {'torch', 'ray', 'optuna', 'timm', 'pandas', 'numpy', 'sklearn', 'tensorboard', 'safetensors'}\n"
        "print(sorted(heavy & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"


def test_facts_of_a_kept_student_are_not_needed_to_show_the_best(run: RunBuilder, kdsearch: Kdsearch) -> None:
    (run.folder / "best").mkdir()
    (run.folder / "best" / "metrics.json").write_text(json.dumps(facts(per_class_accuracy=[1, 2])))
    assert kdsearch("best", "my-run").code == 0
