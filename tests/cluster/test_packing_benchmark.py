"""The benchmark of packings, on a GPU that is none and with small networks: what its figures are made of."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.packing import EPOCHS, IMAGES, Case, compare, table
from tests.training.fake_device import FakeDevice

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "packing.py"


@pytest.mark.slow
def test_auto_and_fixed_shares_are_measured_in_processes_of_their_own(tmp_path: Path) -> None:
    """Two of 120 bytes fit into nine tenths of 280, and are twice as fast as one."""
    device = FakeDevice(str(tmp_path), total=280)
    case = Case("resnet8", "resnet8", side=8, classes=4, samples=64, batch=16, device=device)
    found = compare(case, (1,), seconds=3.0)
    auto = found["auto"]
    assert (auto["copies"], auto["gpu"]["name"]) == (2, "Fake")
    assert auto["why"].startswith("3 would take")
    alone, chosen = found["fixed"]
    assert [level["copies"] for level in found["fixed"]] == [1, 2]
    assert (alone["memory"], chosen["memory"]) == (120, 240)
    # A step is 1.5 s on this device, and the last look at the clock another.
    assert alone["trials_per_hour"] == pytest.approx(3 / 6.0 * 3600 / (EPOCHS * (IMAGES // 16)))
    assert chosen["trials_per_hour"] == pytest.approx(2 * alone["trials_per_hour"])
    failed = {"student": "resnet8", "copies": 4, "failure": "out of GPU memory"}
    first, second, third = table([found | {"fixed": [alone, chosen, failed]}]).splitlines()[2:]
    assert first.startswith("| resnet8 | 1 | ")
    assert second.startswith("| resnet8 | 2 (auto) | ")
    assert third == "| resnet8 | 4 | out of GPU memory |  |  |"


def test_without_a_gpu_it_says_so() -> None:
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run([sys.executable, str(SCRIPT)], env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (2, "torch sees no GPU here\n")
