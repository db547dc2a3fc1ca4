"""What a search imports before Ray starts in the background: nothing that takes seconds."""

from __future__ import annotations

import subprocess
import sys


def test_a_search_asks_ray_to_start_before_it_imports_what_takes_seconds() -> None:
    heavy = ("ray", "ray.tune", "torch", "pandas", "sklearn", "timm")
    script = f"import sys, kdsearch.tuning.run; print([name for name in {heavy!r} if name in sys.modules])"
    answer = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "[]"
