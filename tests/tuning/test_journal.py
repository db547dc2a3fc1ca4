"""The journal on disk: Optuna reads it while it grows, and a torn line costs nothing."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

from kdsearch.tuning.journal import StudyJournal

if TYPE_CHECKING:
    from pathlib import Path


def test_optunas_own_backend_reads_what_ours_wrote_at_every_moment(tmp_path: Path) -> None:
    path = tmp_path / "study.journal"
    ours = optuna.create_study(study_name="run", storage=JournalStorage(StudyJournal(path)), direction="maximize")
    for number in range(3):
        trial = ours.ask({"x": optuna.distributions.FloatDistribution(0, 1)})
        trial.report(0.5, 1)
        theirs = optuna.load_study(study_name="run", storage=JournalStorage(JournalFileBackend(str(path))))
        assert theirs.trials[number].intermediate_values == {1: 0.5}
        assert theirs.trials[number].state == TrialState.RUNNING
        ours.tell(trial, 0.7)
    theirs = optuna.load_study(study_name="run", storage=JournalStorage(JournalFileBackend(str(path))))
    assert [(t.number, t.state, t.value, t.params) for t in theirs.trials] == [
        (t.number, t.state, t.value, t.params) for t in ours.trials
    ]


def test_every_line_carries_its_time(tmp_path: Path) -> None:
    path = tmp_path / "study.journal"
    study = optuna.create_study(study_name="run", storage=JournalStorage(StudyJournal(path)))
    study.tell(study.ask(), 1.0)
    times = [json.loads(line)["time"] for line in path.read_text().splitlines()]
    assert len(times) >= 3
    assert times == sorted(times)
    assert times[0] > 1.7e9


def test_a_line_that_a_crash_tore_is_dropped_and_the_study_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "study.journal"
    study = optuna.create_study(study_name="run", storage=JournalStorage(StudyJournal(path)))
    study.tell(study.ask(), 1.0)
    whole = path.read_bytes()
    for cut in (1, 7, 20):
        path.write_bytes(whole[:-cut])
        again = optuna.load_study(study_name="run", storage=JournalStorage(StudyJournal(path)))
        assert [trial.state for trial in again.trials] == [TrialState.RUNNING]
        again.tell(0, 2.0)
        theirs = optuna.load_study(study_name="run", storage=JournalStorage(JournalFileBackend(str(path))))
        assert [trial.value for trial in theirs.trials] == [2.0]
