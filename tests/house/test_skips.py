"""The rule of continuous integration: what can run, runs; a skipped test fails."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = """
import pytest

def test_runs():
    assert True

def test_skips():
    pytest.skip("no such tool")

@pytest.mark.skipif(True, reason="by a mark")
def test_skipped_by_mark():
    assert True

@pytest.mark.xfail(strict=True)
def test_known_failure():
    assert False

@pytest.mark.needs_gpu
def test_gpu():
    assert True
"""
ABSENT_LIBRARY = "import pytest\npytest.importorskip('a_library_that_is_not_there')\n"


def outcome(folder: Path, in_ci: bool) -> tuple[int, str]:
    """Exit status and output of pytest over the tests above, under this project's conftest."""
    shutil.copy(Path(__file__).parents[1] / "conftest.py", folder)
    (folder / "test_some.py").write_text(TESTS)
    (folder / "test_absent.py").write_text(ABSENT_LIBRARY)
    result = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--continue-on-collection-errors", str(folder)],
        env={**os.environ, "CUDA_VISIBLE_DEVICES": "", "KDSEARCH_CI": "1" if in_ci else "", "PYTEST_ADDOPTS": ""},
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    return result.returncode, result.stdout


def test_skips_are_fine_on_a_persons_machine(tmp_path: Path) -> None:
    status, output = outcome(tmp_path, in_ci=False)
    assert status == pytest.ExitCode.OK, output
    assert "1 passed, 4 skipped, 1 xfailed" in output


def test_skips_fail_in_continuous_integration_but_for_absent_gpus(tmp_path: Path) -> None:
    status, output = outcome(tmp_path, in_ci=True)
    assert status == pytest.ExitCode.TESTS_FAILED
    # Pytest calls what goes wrong in a test "failed", and before it (marks, imports) "error".
    assert "1 failed, 1 passed, 1 skipped, 1 xfailed, 2 errors" in output
    assert all(reason in output for reason in ("no such tool", "by a mark", "a_library_that_is_not_there"))
