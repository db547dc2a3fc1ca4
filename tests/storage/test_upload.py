"""What a driver writes here lies at the URL a moment later, in an order that leaves the run there whole."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import pytest

from kdsearch.errors import LeaseLost, RunError, StorageBehind, StorageError
from kdsearch.results import RunLock, lease
from kdsearch.results.copies import Home
from kdsearch.results.lease import Lease
from kdsearch.results.remote import Remote
from kdsearch.tuning import place, upload
from kdsearch.tuning.place import Apart
from kdsearch.tuning.uploading import uploading

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from kdsearch.tuning.upload import Upload


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "SETTLE_SECONDS", 0.0)
    monkeypatch.setattr(lease, "RENEW_SECONDS", 0.0)
    monkeypatch.setattr(upload, "EVERY_SECONDS", 0.02)
    monkeypatch.setattr(upload, "BUNDLE_SECONDS", 0.0)
    monkeypatch.setattr(upload, "LONGEST_WAIT_SECONDS", 0.02)
    monkeypatch.setattr(upload, "PATIENCE_SECONDS", 0.1)


@pytest.fixture
def copy(url: str) -> Path:
    """The working copy of a new run."""
    folder = Home(url).driven("run")
    folder.mkdir(parents=True)
    (folder / "start.json").write_text("{}")
    (folder / "experiment.yaml").write_text("method: kd\n")
    return folder


class Away:
    """Makes the store refuse what is asked of it, and notes what is put there."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = False
        self.put: list[str] = []
        for verb in ("read", "write", "delete", "entries"):
            monkeypatch.setattr(Remote, verb, self._guarded(verb, getattr(Remote, verb)))

    def _guarded(self, verb: str, original: Callable[..., Any]) -> Callable[..., Any]:
        def guarded(remote: Remote, *arguments: Any, **keywords: Any) -> Any:
            if self.now:
                raise StorageError(f"{remote} cannot be reached: no way")
            if verb == "write" and not arguments[0].endswith(lease.FILE):
                self.put.append(arguments[0])
            if verb == "delete":
                self.put.append(f"-{arguments[0]}")
            return original(remote, *arguments, **keywords)

        return guarded


@pytest.fixture
def away(monkeypatch: pytest.MonkeyPatch) -> Away:
    return Away(monkeypatch)


def drive(
    copy: Path,
    remote: Remote,
    write: Callable[[Upload], object],
    *,
    new: bool = False,
    say: Callable[[str], None] = lambda sentence: None,
) -> None:
    """What a driver does around its search."""
    with RunLock(copy), uploading(copy, remote, say, new=new) as sender:
        assert sender is not None
        write(sender)


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.time() + 20
    while not condition():
        assert time.time() < deadline
        time.sleep(0.01)


def at(remote: Remote) -> dict[str, bytes | None]:
    """What lies at the URL, but for the lease."""
    run = remote / "run"
    return {name: run.read(name) for name in run.entries() if name != lease.FILE}


def here(copy: Path) -> dict[str, bytes]:
    return {
        path.relative_to(copy).as_posix(): path.read_bytes()
        for path in copy.rglob("*")
        if path.is_file() and path.name not in ("run.lock", lease.OWN)
    }


def test_what_changes_here_lies_at_the_url_and_what_is_half_written_does_not(copy: Path, remote: Remote) -> None:
    with RunLock(copy), uploading(copy, remote, print, new=True):
        assert at(remote) == here(copy), "the first files are there before anything begins"
        (copy / "trials" / "0000").mkdir(parents=True)
        (copy / "trials" / "0000" / "events.out.tfevents.1").write_bytes(b"curve")
        (copy / ".best.1.new").mkdir()
        (copy / ".best.1.new" / "student.safetensors").write_bytes(b"half")
        (copy / "study.journal").write_bytes(b'{"op_code":0}\n{"op_co')
        wait_until(lambda: "study.journal" in at(remote))
        assert at(remote)["study.journal"] == b'{"op_code":0}\n', "no torn line"
        assert at(remote)["trials/0000/events.out.tfevents.1"] == b"curve"
        assert not any(name.startswith(".") for name in at(remote))
        (copy / "start.json").unlink()
        with (copy / "study.journal").open("ab") as file:
            file.write(b'de":4}\n')
        (copy / ".best.1.new" / "student.safetensors").unlink()
    assert at(remote) == here(copy)
    holder = lease.parse((remote / "run").read(lease.FILE))
    assert holder is not None
    assert not holder.holds, "the lease is given back"
    assert lease.is_own(holder, copy)


def test_the_journal_goes_last_and_the_facts_of_a_student_after_its_weights(
    copy: Path, remote: Remote, away: Away
) -> None:
    (copy / "trials").mkdir()
    (copy / "study.journal").write_bytes(b"{}\n")
    (copy / "best").mkdir()
    for name in ("metrics.json", "student.safetensors", "README.md"):
        (copy / "best" / name).write_text("first")
    with RunLock(copy), uploading(copy, remote, print, new=True):
        expected = ["best/README.md", "best/student.safetensors", "start.json"]
        assert away.put[:6] == [*expected, "best/metrics.json", "experiment.yaml", "study.journal"]
        away.now = True
        for name in ("metrics.json", "student.safetensors"):
            (copy / "best" / name).write_text("second")
        del away.put[:]
        away.now = False
    assert away.put == ["-best/metrics.json", "best/student.safetensors", "best/metrics.json"]
    assert at(remote) == here(copy)


def test_a_store_that_goes_away_is_told_once_and_catches_up(copy: Path, remote: Remote, away: Away) -> None:
    said: list[str] = []
    (copy / "trials").mkdir()
    with RunLock(copy), uploading(copy, remote, said.append, new=True):
        away.now = True
        (copy / "study.journal").write_bytes(b"{}\n" * 10)
        wait_until(lambda: len(said) == 1)
        (copy / "study.journal").write_bytes(b"{}\n" * 20)
        away.now = False
        wait_until(lambda: len(said) == 2)
        assert at(remote) == here(copy)
    assert said == [
        f"{remote / 'run'} cannot be reached: no way: "
        "the search goes on here, and what it writes is sent when that works again",
        f"{remote / 'run'} is back and has the whole run again",
    ]


def test_a_store_that_stays_away_ends_with_the_place_of_the_copy(copy: Path, remote: Remote, away: Away) -> None:
    (copy / "trials").mkdir()

    def write(sender: Upload) -> None:
        (copy / "study.journal").write_bytes(b"{}\n")
        away.now = True

    with pytest.raises(StorageBehind) as told:
        drive(copy, remote, write, new=True)
    assert f"the run is whole in {copy}" in str(told.value)
    assert told.value.exit_code == 1
    away.now = False
    drive(copy, remote, lambda sender: None)
    assert at(remote) == here(copy), "the next resume on this machine sends the rest, and waits for no lease"


def test_who_lost_the_lease_writes_nothing_more(copy: Path, remote: Remote) -> None:
    stopped: list[str] = []
    stolen = json.dumps({"owner": "another", "expires": time.time() + 60}).encode()
    before: dict[str, bytes | None] = {}
    (copy / "trials").mkdir()

    def write(sender: Upload) -> None:
        sender.when_lost(stopped.append)
        (remote / "run").write(lease.FILE, stolen)
        before.update(at(remote))
        (copy / "study.journal").write_bytes(b"{}\n")
        wait_until(lambda: bool(stopped))

    with pytest.raises(LeaseLost, match="another process took over"):
        drive(copy, remote, write, new=True)
    assert at(remote) == before
    assert (remote / "run").read(lease.FILE) == stolen


def test_a_new_run_that_ends_before_its_first_trial_leaves_nothing_at_the_url(copy: Path, remote: Remote) -> None:
    there: list[str] = []

    def fail(sender: Upload) -> None:
        there.extend(at(remote))
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        drive(copy, remote, fail, new=True)
    assert there
    assert remote.folders() == [], "the name is free again"
    assert remote.entries() == {}


def test_what_another_took_over_in_the_first_moment_is_left_to_it(
    copy: Path, remote: Remote, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = Lease.keep

    def keep(held: Lease) -> None:
        original(held)
        (remote / "run").write(lease.FILE, json.dumps({"owner": "another", "expires": time.time() + 60}).encode())
        (remote / "run").write("experiment.yaml", b"another's")

    monkeypatch.setattr(Lease, "keep", keep)
    with pytest.raises(LeaseLost):
        drive(copy, remote, lambda sender: None, new=True)
    assert (remote / "run").read("experiment.yaml") == b"another's"


def test_a_trial_whose_node_alone_cannot_store_is_told_of_once_and_given_up_in_the_end(
    copy: Path, remote: Remote, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    (copy / "trials").mkdir()

    def ask(sender: Upload) -> None:
        assert not sender.behind(3, "10.0.0.7", "access is denied")
        assert not sender.behind(3, "10.0.0.7", "access is denied")
        assert said == ["trial 3 on 10.0.0.7 goes on, and tries again: access is denied"]
        assert not sender.behind(3, "10.0.0.7", None)
        assert not sender.behind(3, "10.0.0.7", "access is denied")
        monkeypatch.setattr(upload, "NODE_PATIENCE_SECONDS", -1.0)
        assert sender.behind(3, "10.0.0.7", "access is denied")

    drive(copy, remote, ask, new=True, say=said.append)
    assert len(said) == 2


def test_an_older_copy_gives_way_to_what_another_machine_wrote(copy: Path, remote: Remote, tmp_path: Path) -> None:
    (copy / "trials").mkdir()
    with RunLock(copy), uploading(copy, remote, print, new=True):
        (copy / "study.journal").write_bytes(b"{}\n")
    other = tmp_path / "elsewhere" / "run"
    other.mkdir(parents=True)
    with RunLock(other), uploading(other, remote, print):
        assert (other / "study.journal").read_bytes() == b"{}\n"
        (other / "study.journal").write_bytes(b"{}\n{}\n")
    (copy / "left over").write_text("of this machine")
    with RunLock(copy), uploading(copy, remote, print):
        assert (copy / "study.journal").read_bytes() == b"{}\n{}\n"
        assert not (copy / "left over").exists()
        with pytest.raises(RunError, match="in use by another process"):
            drive(other, remote, lambda sender: None)


def test_a_trial_goes_on_in_another_process_from_what_it_delivered(
    copy: Path, remote: Remote, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(place.tempfile, "gettempdir", lambda: str(tmp_path))
    (copy / "trials").mkdir()
    with RunLock(copy), uploading(copy, remote, print, new=True) as sender:
        assert sender is not None
        here, there = sender.place(), sender.place()
        here.folder(7).mkdir(parents=True)
        (here.folder(7) / "last.ckpt").write_bytes(b"epoch 3")
        (here.folder(7) / "last.ckpt.previous").write_bytes(b"epoch 2")
        here.deliver(7)
        there.fetch(7)
        assert [(path.name, path.read_bytes()) for path in there.folder(7).iterdir()] == [("last.ckpt", b"epoch 3")]
        assert here.folder(7) != there.folder(7)
        scratch = here.folder(7)
        here.leave(7)
        assert not scratch.exists()
        stranger = Apart(remote / "run", "another")
        stranger.folder(7).mkdir(parents=True)
        (stranger.folder(7) / "last.ckpt").write_bytes(b"epoch 1")
        with pytest.raises(LeaseLost):
            stranger.deliver(7)
        assert (remote / "run").read("trials/0007/last.ckpt") == b"epoch 3"


def test_scratch_folders_of_killed_processes_are_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(place.tempfile, "gettempdir", lambda: str(tmp_path))
    living = Apart(Remote("s3://bucket"), "owner").folder(1)
    dead = living.parents[1] / "dead"
    dead.mkdir()
    (dead / place.LOCK).touch()
    living.mkdir()
    Apart(Remote("s3://bucket"), "owner").folder(1)
    assert living.is_dir()
    assert not dead.exists()
