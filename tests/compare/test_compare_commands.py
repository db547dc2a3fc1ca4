"""What the commands say of a comparison that has not ended: how to go on, and what ends its searches."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from optuna.trial import TrialState

from kdsearch.cli import main
from kdsearch.cli.compare import drive
from kdsearch.comparison import MANY_TRIALS
from kdsearch.experiment import Experiment
from kdsearch.results.compare import read_comparison
from tests.compare.built import comparison_in, document, row
from tests.results.build_run import EXPERIMENT, RunBuilder


@pytest.fixture
def comparison(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A comparison that was interrupted, in the default storage of the folder that the test stands in."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "160")
    monkeypatch.delenv("KDSEARCH_STORAGE", raising=False)
    return comparison_in(tmp_path / "runs", document([row("ce")]))


@pytest.mark.parametrize(
    ("student", "flag"), [("resnet8", ""), ("my.py:build", " --allow-code")], ids=["its own", "a user's"]
)
def test_the_command_that_goes_on_allows_the_code_that_its_entries_name(
    student: str, flag: str, comparison: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plain = Experiment.load("ce").model_dump(mode="json")
    entries = [{"name": name, "run": name, "experiment": plain} for name in ("ce", "kd")]
    entries[1]["experiment"] = plain | {"student": {"name": student}}
    (comparison / "compare.yaml").write_text(json.dumps({"entries": entries}))

    def interrupted() -> dict[str, object]:
        raise KeyboardInterrupt

    drive(lambda: read_comparison(comparison), comparison)
    with pytest.raises(KeyboardInterrupt):
        drive(interrupted, comparison)
    said = capsys.readouterr().out.splitlines()
    assert [line for line in said if "kdsearch resume" in line] == [f"Go on with:  kdsearch resume mine{flag}"] * 2


def test_of_its_runs_the_budget_is_shown_and_no_number_of_trials(
    comparison: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    limited = EXPERIMENT | {"search": {"trials": MANY_TRIALS, "images": 20_000}}
    run = RunBuilder(comparison / "ce", experiment=limited)
    run.trial([0.5, 0.6], TrialState.COMPLETE, 0.6, role="paper", images=5000, epochs=2)

    def said(*arguments: str) -> str:
        monkeypatch.setattr("sys.argv", ["kdsearch", *arguments])
        with pytest.raises(SystemExit):
            main()
        return capsys.readouterr().out

    assert "1 trials ended · 1 complete" in (status := said("status", "mine/ce"))
    assert "budget 20,000 images\n" in status
    assert re.search(r"^mine/ce .* 1 +0\.6000", said("ls"), re.M)
    assert '"planned": null' in said("ls", "--json")
