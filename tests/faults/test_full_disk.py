"""A disk that is full: the search ends with a plain sentence, and goes on when there is room."""

from __future__ import annotations

import re
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from kdsearch.errors import DiskFull
from kdsearch.experiment import Experiment
from kdsearch.results import Results
from kdsearch.tuning import resume, search
from tests.faults import harness
from tests.faults.objectives import FaultyObjectives

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.slow

WRITE = "kdsearch.tuning.journal:os.write"
FILES: dict[str, tuple[str, str, int, str]] = {
    "the journal, at a value": (WRITE, "full", 14, "intermediate_value"),
    "the curves": ("kdsearch.results.tensorboard:TrialWriter.scalars", "full", 10, ""),
    "the winner": ("kdsearch.results.export:write_atomic", "full", 2, ""),
}


@pytest.mark.parametrize("file", FILES)
def test_what_the_driver_cannot_write_ends_the_search_in_a_sentence(
    file: str, cluster: str, expected: list[tuple[Any, ...]], tmp_path: Path
) -> None:
    driver = harness.start(tmp_path, address=cluster, faults=[FILES[file]])
    _, errors = driver.communicate(timeout=200)
    sentence = f"no room is left on the disk of {tmp_path}/run: make some, then  kdsearch resume run"
    assert (driver.returncode, errors.strip().splitlines()[-1]) == (1, f"error: {sentence}")
    assert "Traceback" not in errors
    resume(tmp_path / "run", objectives=FaultyObjectives())
    assert harness.found(tmp_path / "run") == expected
    harness.assert_told_once(tmp_path / "run")
    harness.assert_tidy(tmp_path / "run")


def test_a_disk_that_is_full_before_the_first_trial_leaves_nothing(cluster: str, tmp_path: Path) -> None:
    driver = harness.start(tmp_path, address=cluster, faults=[(WRITE, "full", 1, '"op_code":4')])
    _, errors = driver.communicate(timeout=200)
    sentence = f"no room is left on the disk of {tmp_path}/run: make some, and search again"
    assert (driver.returncode, errors.strip().splitlines()[-1]) == (1, f"error: {sentence}")
    assert list(tmp_path.iterdir()) == []


def test_a_checkpoint_that_does_not_fit_interrupts_the_search(
    cluster: str, expected: list[tuple[Any, ...]], tmp_path: Path
) -> None:
    with pytest.raises(DiskFull, match=r"no room is left on the disk of .*/run/trials/0000/last.ckpt: make some, then"):
        search(Experiment(**harness.EXPERIMENT), storage=tmp_path, objectives=FaultyObjectives(full_at=3))
    interrupted = Results(tmp_path / "run")
    assert interrupted.state == "INTERRUPTED"
    assert interrupted.why is not None
    assert re.match(r"no room is left on the disk of .*/trials/0000", interrupted.why)
    assert [trial.state for trial in interrupted.trials] == ["RUNNING"]
    resume(tmp_path / "run", objectives=FaultyObjectives())
    assert harness.found(tmp_path / "run") == expected
    harness.assert_told_once(tmp_path / "run")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path | None]:
    """A disk of half a megabyte, where this process may mount one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", str(folder)]
    try:
        mounted = subprocess.run(command, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        mounted = False
    yield folder if mounted else None
    if mounted:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_disk_that_fills_up_by_itself(
    small_disk: Path | None, cluster: str, expected: list[tuple[Any, ...]], tmp_path: Path
) -> None:
    """Whichever file is the first that does not fit. Where nothing may be mounted, a checkpoint is said not to."""
    storage = small_disk or tmp_path
    made = Experiment(**harness.EXPERIMENT)
    ballast = storage / "ballast"
    if small_disk:
        ballast.write_bytes(b"\0" * (512 - 96) * 1024)
    with pytest.raises(DiskFull, match=r"no room is left on the disk of .*/run"):
        search(made, storage=storage, objectives=FaultyObjectives(full_at=None if small_disk else 5))
    started = Results(storage / "run")
    assert len(started.trials) > 0
    assert started.state in ("INTERRUPTED", "CRASHED")
    ballast.unlink(missing_ok=True)
    resume(storage / "run", objectives=FaultyObjectives())
    assert harness.found(storage / "run") == expected
    harness.assert_told_once(storage / "run")
    harness.assert_tidy(storage / "run")
