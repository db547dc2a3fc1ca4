"""A command that is ended from outside cleans up."""

from __future__ import annotations

import subprocess
import sys

import pytest

HELD = """
import os, signal, time
from kdsearch import cli

def hold():
    try:
        os.kill(os.getpid(), signal.{signal})
        time.sleep(60)
    finally:
        print("cleaned up")

cli.app.command()(hold)
cli.main()
"""


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_a_command_that_is_told_to_end_leaves_its_blocks_and_says_so_by_its_code(name: str) -> None:
    command = [sys.executable, "-c", HELD.format(signal=name), "hold"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=50, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (130, "cleaned up\n", "")
