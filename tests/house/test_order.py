"""The order of the tests: long files come first, and each stays whole."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

FAST = "def test_one(): ...\ndef test_two(): ...\n"
SLOW = "import pytest\ndef test_first(): ...\n" + "@pytest.mark.slow\ndef test_{}(): ...\n"
SLOWEST = SLOW.format("second") + "@pytest.mark.slow\ndef test_third(): ...\n"
CONFIGURATION = "[pytest]\nmarkers = slow: takes long\n"


def test_files_with_many_slow_tests_come_first_and_each_stays_whole(tmp_path: Path) -> None:
    shutil.copy(Path(__file__).parents[1] / "conftest.py", tmp_path)
    texts = {"a": FAST, "b": SLOW.format("second"), "c": FAST, "d": SLOWEST}
    for name, text in texts.items():
        (tmp_path / f"test_{name}.py").write_text(text)
    (tmp_path / "pytest.ini").write_text(CONFIGURATION)
    result = subprocess.run(
        [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider", "-p", "no:xdist"],
        env={**os.environ, "PYTEST_ADDOPTS": ""},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    collected = [line.removeprefix("test_") for line in result.stdout.splitlines() if "::" in line]
    assert collected == [
        *("d.py::test_first", "d.py::test_second", "d.py::test_third"),
        *("b.py::test_first", "b.py::test_second"),
        *("a.py::test_one", "a.py::test_two", "c.py::test_one", "c.py::test_two"),
    ]
