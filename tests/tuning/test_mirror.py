"""A database that mirrors the study: whatever befalls it, the search goes on, and in the end both say the same."""

from __future__ import annotations

import json
import socket
import sqlite3
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import optuna
import pytest
from optuna.trial import TrialState
from sqlalchemy.dialects import registry
from sqlalchemy.dialects.sqlite.pysqlite import SQLiteDialect_pysqlite

from kdsearch import tasks
from kdsearch.errors import UserError
from kdsearch.objective import Report
from kdsearch.tuning import mirror
from kdsearch.tuning.distributions import distributions
from kdsearch.tuning.journal import reopen_failed
from kdsearch.tuning.ledger import Ledger
from kdsearch.tuning.record import END_NOTES, Record
from tests.tuning.test_ledger import begun, experiment, rising, run_all, stored

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

MADE = experiment(search={"trials": 6, "grace_period": 1})


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mirror, "PAUSE", 0.01)
    monkeypatch.setattr(mirror, "RETRY", 0.05)


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/studies.db?timeout=0.1"


def record(folder: Path, url: str | None, said: list[str] | None = None, *, resume: bool = False) -> Record:
    told = said if said is not None else []
    made = Record(folder, "run", "max", distributions(MADE), url, resume=resume, announce=told.append)
    made.describe(metric="accuracy", started=made.study.user_attrs.get("started", 1.5))
    return made


def ledger(kept: Record) -> Ledger:
    made = Ledger(MADE, tasks.find(MADE.task), kept)
    made.restore()
    return made


def told(trials: list[optuna.trial.FrozenTrial]) -> list[Any]:
    return [(t.number, t.state, t.values, t.params, t.intermediate_values, t.user_attrs) for t in trials]


def assert_same(folder: Path, url: str) -> None:
    there = optuna.load_study(study_name="run", storage=url)
    assert told(there.trials) == told(stored(folder).trials)
    assert there.user_attrs == stored(folder).user_attrs


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "it never came to that"
        time.sleep(0.02)


def flushed(kept: Record, said: list[str], count: int) -> bool:
    """Whether so many sentences were said by now, as the next told value would say them."""
    assert kept._mirror is not None
    kept._mirror.flush()
    return len(said) >= count


def test_a_database_mirrors_the_study_and_refuses_a_second_of_its_name(url: str, tmp_path: Path) -> None:
    kept = record(tmp_path, url)
    run_all(ledger(kept), rising)
    kept.close()
    assert_same(tmp_path, url)
    (tmp_path / "second").mkdir()
    with pytest.raises(UserError, match="already holds a study 'run'"):
        record(tmp_path / "second", url)
    assert list((tmp_path / "second").iterdir()) == []


def test_a_database_follows_while_the_search_goes_on(url: str, tmp_path: Path) -> None:
    kept = record(tmp_path, url)
    books = ledger(kept)
    begun(books)
    books.told(0, Report(1, 0.4))

    def seen() -> list[tuple[TrialState, dict[int, float]]]:
        try:
            trials = optuna.load_study(study_name="run", storage=url).trials
        except (KeyError, optuna.exceptions.StorageInternalError):
            return []
        return [(trial.state, trial.intermediate_values) for trial in trials if trial.intermediate_values]

    wait_for(lambda: bool(seen()))
    assert seen() == [(TrialState.RUNNING, {1: 0.4})]
    kept.close()


def test_a_database_that_a_crash_left_behind_is_brought_up_to_the_journal(url: str, tmp_path: Path) -> None:
    kept = record(tmp_path, url)
    books = ledger(kept)
    begun(books)
    books.told(0, Report(1, 0.4))
    begun(books)
    kept.close()
    # As if the driver had died each time between the journal and the database.
    run_all(ledger(record(tmp_path, None, resume=True)), rising)
    record(tmp_path, url, resume=True).close()
    assert_same(tmp_path, url)


def test_a_database_that_knows_more_than_the_journal_is_brought_into_line(url: str, tmp_path: Path) -> None:
    """A machine that lost its power may have lost the journal's last second, which the database had been told."""
    kept = record(tmp_path, url)
    run_all(ledger(kept), rising)
    kept.close()
    lines = (tmp_path / "study.journal").read_bytes().splitlines(keepends=True)
    (tmp_path / "study.journal").write_bytes(b"".join(lines[: len(lines) // 3]))
    assert len(stored(tmp_path).trials) < 6
    said: list[str] = []
    again = record(tmp_path, url, said, resume=True)
    run_all(ledger(again), lambda trial, epoch: rising(trial, epoch) / 2)
    again.close()
    assert said == []
    assert_same(tmp_path, url)


def test_a_trial_that_runs_again_does_so_in_the_database_too(url: str, tmp_path: Path) -> None:
    made = experiment(search={"trials": 6, "grace_period": 1}, resources={"max_failures": 0})
    kept = record(tmp_path, url)
    books = Ledger(made, tasks.find(made.task), kept)
    begun(books)
    books.failed(0, "ValueError: hot")
    kept.close()
    reopen_failed(tmp_path / "study.journal", END_NOTES)
    again = record(tmp_path, url, resume=True)
    run_all(ledger(again), rising)
    again.close()
    assert stored(tmp_path).trials[0].state == TrialState.COMPLETE
    assert_same(tmp_path, url)


@pytest.mark.parametrize("trials", [0, 3])
def test_a_study_that_is_no_runs_is_left_alone(trials: int, url: str, tmp_path: Path) -> None:
    """Somebody may have made it since the run began."""
    kept = record(tmp_path, None)
    begun(ledger(kept))
    kept.close()
    theirs = optuna.create_study(study_name="run", storage=url, direction="maximize")
    theirs.set_user_attr("mine", True)
    theirs.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=trials)
    said: list[str] = []
    again = record(tmp_path, url, said, resume=True)
    run_all(ledger(again), rising)
    again.close()
    assert len(said) == 1
    assert "of another run" in said[0]
    assert len(optuna.load_study(study_name="run", storage=url).trials) == trials


def test_the_study_of_another_run_is_left_alone(url: str, tmp_path: Path) -> None:
    for number in (1, 2):
        (tmp_path / str(number)).mkdir()
        kept = record(tmp_path / str(number), url if number == 1 else None)
        kept.describe(started=float(number))
        begun(ledger(kept))
        kept.close()
    said: list[str] = []
    again = record(tmp_path / "2", url, said, resume=True)
    run_all(ledger(again), rising)
    again.close()
    assert said == [f"the database '{url}' holds the study 'run' of another run: this one is not mirrored there"]
    assert_same(tmp_path / "1", url)


LOCK = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("BEGIN EXCLUSIVE")
print("locked", flush=True)
sys.stdin.read()
"""


def test_a_database_that_another_process_locks_neither_ends_nor_delays_a_search(url: str, tmp_path: Path) -> None:
    said: list[str] = []
    kept = record(tmp_path, url, said)
    books = ledger(kept)
    begun(books)
    books.told(0, Report(1, 0.4))
    command = [sys.executable, "-c", LOCK, str(tmp_path / "studies.db")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as locker:
        assert locker.stdout is not None
        assert locker.stdout.readline() == "locked\n"
        for epoch in range(2, 10):
            books.told(0, Report(epoch, epoch / 10))
        books.completed(0, 0.9)
        run_all(books, rising)  # to the end, though the lock is held until all of it is over
        wait_for(lambda: flushed(kept, said, 1))
        locker.communicate("")
    wait_for(lambda: flushed(kept, said, 2))
    kept.close()
    assert said == [
        f"the database '{url}' cannot be written (database is locked): the search goes on, study.journal holds all "
        "of it, and the database gets it when it is back",
        f"the database '{url}' is back and holds the whole study",
    ]
    assert_same(tmp_path, url)


def test_a_database_whose_file_is_removed_is_made_anew(url: str, tmp_path: Path) -> None:
    said: list[str] = []
    kept = record(tmp_path, url, said)
    books = ledger(kept)
    begun(books)
    books.told(0, Report(1, 0.4))
    wait_for(lambda: bool(known_values(tmp_path / "studies.db")))
    (tmp_path / "studies.db").unlink()
    run_all(books, rising)
    wait_for(lambda: (tmp_path / "studies.db").exists())
    kept.close()
    assert_same(tmp_path, url)
    assert len(said) in (0, 2)  # SQLite may notice it, or be asked to open the file anew before it does


class Distant(SQLiteDialect_pysqlite):
    """SQLite behind an address: each connection, and each statement's beginning, asks whether somebody answers there.

    No driver of a database at an address is among what kdsearch or its tests need; the refusal is a real one.
    """

    supports_statement_cache = True

    def create_connect_args(self, url: Any) -> Any:
        self._place = (url.host, url.port)
        return [url.database], {"check_same_thread": False}

    def do_execute(self, cursor: Any, statement: str, parameters: Any, context: Any = None) -> None:
        socket.create_connection(self._place, timeout=5).close()
        super().do_execute(cursor, statement, parameters, context)  # type: ignore[no-untyped-call]


def listening(port: int = 0) -> socket.socket:
    """Somebody who takes calls: the kernel answers them, nobody needs to accept."""
    return socket.create_server(("127.0.0.1", port), backlog=4096)


def test_a_database_whose_address_refuses_calls_is_told_when_it_answers_again(tmp_path: Path) -> None:
    registry.register("distant", __name__, "Distant")
    said: list[str] = []
    server = listening()
    port = server.getsockname()[1]
    url = f"distant://me:secret@127.0.0.1:{port}/{tmp_path}/studies.db"
    kept = record(tmp_path, url, said)
    books = ledger(kept)
    begun(books)
    books.told(0, Report(1, 0.4))
    wait_for(lambda: bool(known_values(tmp_path / "studies.db")))
    server.close()
    run_all(books, rising)
    wait_for(lambda: flushed(kept, said, 1))
    with listening(port):
        wait_for(lambda: flushed(kept, said, 2))
        kept.close()
    place = f"'distant://me@127.0.0.1:{port}/{tmp_path}/studies.db'"
    assert said == [
        f"the database {place} cannot be written ([Errno 111] Connection refused): the search goes on, study.journal "
        "holds all of it, and the database gets it when it is back",
        f"the database {place} is back and holds the whole study",
    ]
    assert_same(tmp_path, f"sqlite:///{tmp_path}/studies.db")
    (tmp_path / "second").mkdir()
    with pytest.raises(UserError, match=rf"study {place} cannot be opened: \[Errno 111\] Connection refused"):
        record(tmp_path / "second", url)


def known_values(path: Path) -> list[Any]:
    """The intermediate values that SQLite holds."""
    try:
        with sqlite3.connect(path) as connection:
            return connection.execute("SELECT * FROM trial_intermediate_values").fetchall()
    except sqlite3.OperationalError:
        return []


def test_a_database_that_cannot_be_opened_is_refused_in_a_sentence_and_nothing_is_written(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    for url in ("nosql://nowhere", f"sqlite:///{tmp_path}/not/there.db"):
        with pytest.raises(UserError, match=rf"study '{url}' cannot be opened: .+"):
            record(tmp_path / "run", url)
    assert list((tmp_path / "run").iterdir()) == []


def test_a_database_that_is_gone_when_a_run_goes_on_is_no_reason_to_stop(tmp_path: Path) -> None:
    kept = record(tmp_path, None)
    begun(ledger(kept))
    kept.close()
    said: list[str] = []
    url = f"sqlite:///{tmp_path}/not/there.db"
    again = record(tmp_path, url, said, resume=True)
    run_all(ledger(again), rising)
    again.close()
    assert [trial.state for trial in stored(tmp_path).trials].count(TrialState.RUNNING) == 0
    assert said == [
        f"the database '{url}' cannot be written (unable to open database file): the search goes on, study.journal "
        "holds all of it, and the database gets it when it is back",
        f"the database '{url}' is behind study.journal; the next resume brings it up",
    ]


def test_passwords_are_not_said() -> None:
    assert mirror.shown("mysql+pymysql://me:secret@host:3306/studies") == "'mysql+pymysql://me@host:3306/studies'"
    assert mirror.shown("sqlite:///studies.db") == "'sqlite:///studies.db'"


def test_the_follower_reads_what_was_added_only(url: str, tmp_path: Path) -> None:
    """Each pass over a study that did not change writes nothing."""
    kept = record(tmp_path, url)
    run_all(ledger(kept), rising)
    kept.close()
    again = mirror.Copy(url, "run", optuna.study.StudyDirection.MAXIMIZE)
    written: list[Any] = []
    for name in ("set_trial_user_attr", "set_trial_intermediate_value", "create_new_trial", "set_trial_state_values"):
        setattr(again._storage, name, lambda *given, name=name: written.append((name, *given)))
    storage = stored(tmp_path)._storage
    again.follow(storage, storage.get_study_id_from_name("run"))
    assert written == []
    again.close()
    assert json.loads((tmp_path / "study.journal").read_text().splitlines()[0])["op_code"] == 0
