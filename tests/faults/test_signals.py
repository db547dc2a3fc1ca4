"""Ctrl-C, SIGTERM, a second signal; and the lock of a run that is alive."""

from __future__ import annotations

import signal
import subprocess
import time
from typing import TYPE_CHECKING, Any

import pytest

from kdsearch.errors import RunError
from kdsearch.results import Results
from kdsearch.tuning import resume
from tests.faults import harness
from tests.faults.objectives import FaultyObjectives

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.slow


def wait_for(condition: Callable[[], bool], driver: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert driver.poll() is None, driver.communicate()
        assert time.monotonic() < deadline, "it never came to that"
        time.sleep(0.02)


@pytest.mark.parametrize("first", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_ends_at_once_and_a_live_run_is_driven_by_one_alone(
    first: signal.Signals, cluster: str, expected: list[tuple[Any, ...]], tmp_path: Path
) -> None:
    """The trial that runs never ends its third epoch: the first signal, which waits for it, cannot be what ends it."""
    held = tmp_path / "held"
    driver = harness.start(tmp_path, address=cluster, objectives={"hold_at": str(held)})
    try:
        wait_for(held.exists, driver)
        with pytest.raises(RunError, match=rf"run 'run' is in use by process {driver.pid}: wait until it ends"):
            resume(tmp_path / "run", objectives=FaultyObjectives())
        assert Results(tmp_path / "run").state == "RUNNING"
        driver.send_signal(first)
        assert driver.stdout is not None
        assert driver.stdout.readline() == "ending after the running epochs; once more ends at once\n"
        assert driver.poll() is None
        driver.send_signal(signal.SIGINT)
        _, errors = driver.communicate(timeout=60)
        assert driver.returncode != 0
        assert errors.rstrip().endswith("KeyboardInterrupt")  # the command line makes it exit code 130
    finally:
        driver.kill()
        driver.communicate()
    assert Results(tmp_path / "run").state == "CRASHED"
    resume(tmp_path / "run", objectives=FaultyObjectives())
    assert harness.found(tmp_path / "run") == expected
    harness.assert_told_once(tmp_path / "run")
    harness.assert_tidy(tmp_path / "run")


def test_of_two_that_resume_a_run_at_once_one_is_refused(
    cluster: str, expected: list[tuple[Any, ...]], tmp_path: Path
) -> None:
    harness.die(tmp_path, address=cluster, faults=[("kdsearch.tuning.record:Record.value", "after", 3)])
    both = [harness.start(tmp_path, "resume", address=cluster) for _ in range(2)]
    ends = {driver.communicate(timeout=200)[1]: driver.returncode for driver in both}
    assert sorted(ends.values()) == [0, 2]
    refused = next(text for text, code in ends.items() if code == 2)
    assert "run 'run' is in use by process" in refused
    assert harness.found(tmp_path / "run") == expected
    harness.assert_told_once(tmp_path / "run")
