"""The lock that tells whether a run is driven: across real processes, and when they are killed."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from kdsearch.errors import RunError
from kdsearch.results import RunLock, is_locked

HOLD = """
import subprocess, sys, time
from kdsearch.results import RunLock
lock = RunLock(sys.argv[1])
lock.acquire()
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], close_fds=False)
print(child.pid, flush=True)
time.sleep(60)
"""


def test_a_lock_is_held_released_and_taken_again(tmp_path: Path) -> None:
    assert not is_locked(tmp_path)
    with RunLock(tmp_path):
        assert is_locked(tmp_path)
    assert not is_locked(tmp_path)
    with RunLock(tmp_path):
        assert is_locked(tmp_path)


def test_a_second_holder_is_told_who_holds_it(tmp_path: Path) -> None:
    run = tmp_path / "my-run"
    run.mkdir()
    with RunLock(run), pytest.raises(RunError, match=rf"'my-run' is in use by process {os.getpid()}"):
        RunLock(run).acquire()


def test_the_same_lock_cannot_be_taken_twice_and_stays_held(tmp_path: Path) -> None:
    lock = RunLock(tmp_path)
    lock.acquire()
    with pytest.raises(RunError):
        lock.acquire()
    assert is_locked(tmp_path)
    lock.release()
    lock.release()
    assert not is_locked(tmp_path)


def test_a_driver_that_starts_while_someone_asks_still_gets_the_lock(tmp_path: Path) -> None:
    lock = RunLock(tmp_path)
    lock.path.touch()
    with lock.path.open() as asking:
        fcntl.flock(asking, fcntl.LOCK_SH)  # what `is_locked` holds for a moment
        threading.Timer(0.1, fcntl.flock, (asking, fcntl.LOCK_UN)).start()
        started = time.monotonic()
        lock.acquire()
        assert time.monotonic() - started > 0.05
    lock.release()


def test_the_lock_of_a_killed_process_is_free_even_while_its_child_lives(tmp_path: Path) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    assert holder.stdout is not None
    child = int(holder.stdout.readline())
    try:
        assert is_locked(tmp_path)
        with pytest.raises(RunError, match=f"process {holder.pid}"):
            RunLock(tmp_path).acquire()
        holder.send_signal(signal.SIGKILL)
        holder.wait()
        os.kill(child, 0)  # it lives
        deadline = time.monotonic() + 5
        while is_locked(tmp_path):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        with RunLock(tmp_path):
            assert is_locked(tmp_path)
    finally:
        holder.kill()
        holder.wait()
        os.kill(child, signal.SIGKILL)
        holder.stdout.close()


def test_a_reader_without_the_right_to_write_can_ask(tmp_path: Path) -> None:
    with RunLock(tmp_path) as lock:
        lock.path.chmod(0o444)
        assert is_locked(tmp_path)
