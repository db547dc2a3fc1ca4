"""What a training on a CPU saves by keeping the memory that it frees: `python benchmarks/memory.py --repetitions 3`.

The steps of benchmarks/steps.py, each in fresh processes, in turns with `kdsearch.training.memory.keep_freed_memory`
and without, on one thread. Measured are the process's own CPU time of a step, of it the system's, pages that a step
gets from the system, and the process's highest resident memory. Prints a table of medians and writes
benchmarks/results/memory.json.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
from pathlib import Path
from statistics import median
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from steps import ALLOWED, CASES, TEACHER, build, method_step

from kdsearch.training.memory import keep_freed_memory

RESULT = Path(__file__).resolve().parent / "results" / "memory.json"
CPU = torch.device("cpu")


def measure(name: str, place: int, seconds: float, *, keep: bool) -> dict[str, float]:
    """In this process: what a step takes, after two that warm up."""
    if keep:
        keep_freed_memory()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    case = CASES[place]
    method = build(name, case, case.network(TEACHER, CPU).eval(), CPU)
    step = method_step(method, case.data(CPU))
    step(), step()
    before, steps = resource.getrusage(resource.RUSAGE_SELF), 0
    while True:
        step()
        steps += 1
        now = resource.getrusage(resource.RUSAGE_SELF)
        user, system = now.ru_utime - before.ru_utime, now.ru_stime - before.ru_stime
        if user + system > seconds:
            break
    return {
        "ms": (user + system) * 1000 / steps,
        "system_ms": system * 1000 / steps,
        "pages": (now.ru_minflt - before.ru_minflt) / steps,
        "megabytes": now.ru_maxrss / 1024,
    }


def in_turns(name: str, place: int, options: argparse.Namespace) -> dict[str, Any]:
    """Medians of both, and the ratio of the turns."""
    found: dict[bool, list[dict[str, float]]] = {True: [], False: []}
    for turn in range(options.repetitions):
        for keep in (True, False) if turn % 2 else (False, True):
            command = [sys.executable, __file__, "--one", name, str(place), "keep" if keep else "return"]
            ended = subprocess.run(
                [*command, "--seconds", str(options.seconds)], stdout=subprocess.PIPE, text=True, check=True
            )
            found[keep].append(json.loads(ended.stdout))
    ratios = [kept["ms"] / returned["ms"] for kept, returned in zip(found[True], found[False], strict=True)]
    medians = {
        word: {what: median(one[what] for one in found[keep]) for what in found[keep][0]}
        for word, keep in (("kept", True), ("returned", False))
    }
    return {"method": name, **vars(CASES[place]), "ratio": median(ratios), "ratios": ratios, **medians}


def row(found: dict[str, Any]) -> str:
    kept, returned = found["kept"], found["returned"]
    cells = [
        found["method"],
        f"{found['student']}, {found['side']}×{found['side']}",
        f"{returned['ms']:.1f} ({returned['system_ms']:.1f})",
        f"{kept['ms']:.1f} ({kept['system_ms']:.1f})",
        f"{found['ratio']:.2f} ({min(found['ratios']):.2f}–{max(found['ratios']):.2f})",
        f"{returned['pages']:,.0f} → {kept['pages']:,.0f}",
        f"{returned['megabytes']:.0f} → {kept['megabytes']:.0f}",
    ]
    return f"| {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description="What keeping freed memory saves a training on a CPU.")
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=8.0, help="CPU time of each measurement")
    parser.add_argument("--one", nargs=3, metavar=("METHOD", "CASE", "HOW"), help="one measurement, here")
    options = parser.parse_args()
    if options.one:
        name, place, how = options.one
        print(json.dumps(measure(name, int(place), options.seconds, keep=how == "keep")))
        return
    print("| method | student | ms a step (of the system's) | kept | ratio (range) | pages a step | peak MB |")
    print("|---" * 7 + "|")
    found = []
    for place in range(len(CASES)):
        for name in ALLOWED:
            found.append(in_turns(name, place, options))
            print(row(found[-1]), flush=True)
    RESULT.write_text(json.dumps({"torch": torch.__version__, "steps": found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
