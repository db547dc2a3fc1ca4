"""The journal reader against journals that Optuna wrote, and against Optuna's own reading of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState, create_trial

from kdsearch.errors import RunError
from kdsearch.results.journal import Journal, Record
from tests.results.build_run import START, TimedBackend

NAMES = {
    TrialState.RUNNING: "RUNNING",
    TrialState.COMPLETE: "COMPLETE",
    TrialState.PRUNED: "PRUNED",
    TrialState.FAIL: "FAIL",
    TrialState.WAITING: "WAITING",
}
DISTRIBUTIONS = {
    "temperature": FloatDistribution(1, 8, log=True),
    "heads": CategoricalDistribution(["all", "none", 3, None, True]),
    "patches": IntDistribution(1, 4),
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "study.journal"


def everything(path: Path) -> optuna.Study:
    """A study in which every operation of the journal happens."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    storage = JournalStorage(TimedBackend(path))
    gone = optuna.create_study(storage=storage, study_name="gone")
    gone.add_trial(create_trial(value=1.0))
    optuna.delete_study(study_name="gone", storage=storage)
    optuna.create_study(storage=storage, study_name="other").set_user_attr("metric", "loss")
    study = optuna.create_study(storage=storage, study_name="mine", direction="maximize")
    study.set_user_attr("metric", "accuracy")
    study.set_user_attr("metric", "top5")
    storage.set_study_system_attr(study._study_id, "internal", 1)
    full = study.ask(DISTRIBUTIONS)
    for epoch, value in ((1, 0.5), (2, 0.75)):
        full.report(value, epoch)
    storage.set_trial_intermediate_value(full._trial_id, 2, 0.8)
    full.set_user_attr("role", "paper")
    storage.set_trial_system_attr(full._trial_id, "internal", 1)
    study.tell(full, 0.9)
    stopped = study.ask(DISTRIBUTIONS)
    stopped.report(float("nan"), 1)
    study.tell(stopped, state=TrialState.PRUNED)
    study.tell(study.ask(), state=TrialState.FAIL)
    study.enqueue_trial({"temperature": 2.0})
    popped = study.ask(DISTRIBUTIONS)
    popped.report(0.1, 1)
    study.add_trial(
        create_trial(
            state=TrialState.PRUNED,
            params={"temperature": 2.0, "heads": 3},
            distributions={name: DISTRIBUTIONS[name] for name in ("temperature", "heads")},
            intermediate_values={1: 0.4, 3: 0.6},
            user_attrs={"role": "try"},
        )
    )
    study.add_trial(create_trial(value=0.7))
    study.ask(DISTRIBUTIONS)
    study.enqueue_trial({"temperature": 3.0})
    return study


def same(record: Record, trial: optuna.trial.FrozenTrial) -> None:
    """Assert that the record says what Optuna's own reader says."""
    assert record.number == trial.number
    assert record.state == NAMES[trial.state]
    assert record.values == trial.values
    assert record.attributes == trial.user_attrs
    assert record.parameters == trial.params
    assert {step: repr(value) for step, (value, _) in record.intermediate.items()} == {
        step: repr(value) for step, value in trial.intermediate_values.items()
    }
    for time, moment in ((record.started, trial.datetime_start), (record.ended, trial.datetime_complete)):
        assert time == pytest.approx(None if moment is None else moment.timestamp(), abs=1e-5)


def test_every_trial_reads_as_optuna_reads_it(path: Path) -> None:
    everything(path)
    journal = Journal(path)
    changed = journal.refresh()
    theirs = optuna.load_study(study_name="mine", storage=JournalStorage(JournalFileBackend(str(path))))
    ours = journal.study("mine")
    assert ours is not None
    assert ours.attributes == theirs.user_attrs == {"metric": "top5"}
    assert ours.directions == [2]
    assert [record.state for record in ours.trials] == [
        "COMPLETE", "PRUNED", "FAIL", "RUNNING", "PRUNED", "COMPLETE", "RUNNING", "WAITING",
    ]  # fmt: skip
    for record, trial in zip(ours.trials, theirs.trials, strict=True):
        same(record, trial)
    assert set(ours.trials) <= changed


def test_intermediate_values_carry_the_time_of_their_line(path: Path) -> None:
    everything(path)
    journal = Journal(path)
    journal.refresh()
    study = journal.study("mine")
    assert study is not None
    lines = [json.loads(line) for line in path.read_bytes().splitlines()]
    written = [line["time"] for line in lines if line["op_code"] == 7 and line["trial_id"] == 1]
    assert [time for _, time in study.trials[0].intermediate.values()] == [written[0], written[-1]]
    assert journal.time == lines[-1]["time"] == START + len(lines) - 1


def test_a_study_that_has_not_the_name_of_the_run_is_found_and_a_deleted_one_is_not(path: Path) -> None:
    everything(path)
    journal = Journal(path)
    journal.refresh()
    found = journal.study("renamed-folder")
    assert found is not None
    assert found.name == "other"


def test_a_journal_that_is_not_there_is_empty(path: Path) -> None:
    journal = Journal(path)
    assert journal.refresh() == set()
    assert journal.study("any") is None


def test_reading_byte_by_byte_gives_the_same_and_reads_each_line_once(path: Path, tmp_path: Path) -> None:
    everything(path)
    content = path.read_bytes()
    growing = tmp_path / "growing.journal"
    journal = Journal(growing)
    ends = [index + 1 for index, byte in enumerate(content) if byte == 10]
    with growing.open("wb", buffering=0) as file:
        for number, end in enumerate(ends):
            start = ends[number - 1] if number else 0
            middle = (start + end) // 2
            file.write(content[start:middle])
            before = journal.lines
            assert journal.refresh() == set()
            assert journal.lines == before == number
            file.write(content[middle:end])
            journal.refresh()
            assert journal.lines == number + 1
    whole = Journal(path)
    whole.refresh()
    ours, theirs = journal.study("mine"), whole.study("mine")
    assert ours is not None
    assert theirs is not None
    assert [repr(record) for record in ours.trials] == [repr(record) for record in theirs.trials]


@pytest.mark.parametrize(
    "torn", [b'{"op_code":7,"trial', b'{"op_code":7,"trial_id":0}garbage\n', b"\x00" * 40, b"\x00" * 40 + b"\n"]
)
def test_a_torn_last_line_is_passed_over_and_read_when_it_is_mended(path: Path, torn: bytes) -> None:
    everything(path)
    good = path.read_bytes()
    path.write_bytes(good + torn)
    journal = Journal(path)
    journal.refresh()
    assert journal.lines == good.count(b"\n")
    with path.open("r+b") as file:
        file.truncate(len(good))
    last = good.splitlines(keepends=True)[-1]
    with path.open("ab") as file:
        file.write(last)
    assert [record.state for record in journal.refresh()] == ["WAITING"]
    assert journal.lines == good.count(b"\n") + 1


def test_a_file_that_stands_in_the_place_of_a_longer_one_is_read_anew(path: Path) -> None:
    everything(path)
    journal = Journal(path)
    journal.refresh()
    path.write_text('{"op_code":0,"study_name":"new","directions":[1],"time":5.0}\n')
    journal.refresh()
    assert journal.lines == 1
    assert journal.study("mine") is journal.study("new")


HEADER = '{"op_code":0,"study_name":"s","directions":[2]}\n{"op_code":4,"study_id":0,"datetime_start":null}\n'


@pytest.mark.parametrize(
    "line",
    [
        "not json",
        "[1, 2]",
        "{}",
        '{"op_code":"7"}',
        '{"op_code":4,"study_id":[]}',
        '{"op_code":7,"trial_id":"0","step":1,"intermediate_value":0.5}',
        '{"op_code":7,"trial_id":0,"step":1,"intermediate_value":"high"}',
        '{"op_code":7,"trial_id":0,"step":null,"intermediate_value":1}',
        '{"op_code":6,"trial_id":0,"state":99,"values":null}',
        '{"op_code":6,"trial_id":0,"state":1,"values":[[]],"datetime_complete":"2026-01-01"}',
        '{"op_code":6,"trial_id":0,"state":1,"values":null,"datetime_complete":"yesterday"}',
        '{"op_code":8,"trial_id":0,"user_attr":5}',
        '{"op_code":2,"study_id":0,"user_attr":"metric"}',
        "[" * 100_000,
        '{"op_code":' + "9" * 5000 + "}",
    ],
)
def test_a_damaged_line_before_the_end_is_a_sentence_with_its_number(path: Path, line: str) -> None:
    path.write_text(HEADER + line + "\n" + '{"op_code":2,"study_id":0,"user_attr":{"a":1}}\n')
    with pytest.raises(RunError, match=r"study\.journal: line 3 is no entry of an Optuna journal"):
        Journal(path).refresh()


@pytest.mark.parametrize(
    "line",
    [
        '{"op_code":10,"trial_ids":[0]}',
        '{"op_code":77}',
        '{"op_code":7,"trial_id":9,"step":1,"intermediate_value":0.5}',
        '{"op_code":7,"trial_id":-1,"step":1,"intermediate_value":0.5}',
        '{"op_code":4,"study_id":9,"datetime_start":null}',
        '{"op_code":2,"study_id":9,"user_attr":{"a":1}}',
    ],
)
def test_an_operation_on_what_is_not_there_is_void(path: Path, line: str) -> None:
    path.write_text(HEADER + line + "\n")
    journal = Journal(path)
    journal.refresh()
    study = journal.study("s")
    assert study is not None
    assert journal.lines == 3
    assert study.attributes == {}
    assert [record.intermediate for record in study.trials] == [{}]


def test_what_is_told_of_a_finished_trial_is_void_as_in_optuna(path: Path) -> None:
    study = everything(path)
    line: dict[str, Any] = {"op_code": 7, "worker_id": "late", "trial_id": 1, "step": 9, "intermediate_value": 1.0}
    with path.open("a") as file:
        file.write(json.dumps(line) + "\n")
        file.write(json.dumps(line | {"op_code": 8, "user_attr": {"role": "late"}}) + "\n")
    journal = Journal(path)
    journal.refresh()
    ours = journal.study("mine")
    assert ours is not None
    same(ours.trials[0], study.get_trials(deepcopy=False)[0])
    assert 9 not in ours.trials[0].intermediate
