"""A search in a process of its own that kills itself at a named point: `python -m tests.faults.driver JSON`."""

from __future__ import annotations

import errno
import importlib
import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ray

from kdsearch.chain import Chain
from kdsearch.errors import KDSearchError
from kdsearch.experiment import Experiment
from kdsearch.results import find_run
from kdsearch.results.remote import is_url
from kdsearch.tuning import resume, search
from kdsearch.tuning.chain import resume_chain, run_chain
from kdsearch.tuning.confirm import confirm
from kdsearch.tuning.pool import ENVIRONMENT
from tests.faults import objectives
from tests.results import build_run
from tests.tuning import stub


def ship() -> None:
    """Let Ray send the objectives to its workers by value, who cannot import the tests."""
    for module in (stub, build_run, objectives):
        ray.cloudpickle.register_pickle_by_value(module)


def fault(target: str, when: str, call: int, holds: str = "") -> None:
    """Wrap `module:name`, or `module:Class.name`: its n-th call is the last thing that this process does.

    Args:
        target: what is wrapped, where its callers look it up.
        when: killed `before` the call, or `after` it; `half` (os.write alone): when half of the content is written;
            `full`: not killed, but the disk is full from that call on.
        call: which call, from 1.
        holds: count only calls in whose arguments this shows.
    """
    place, _, path = target.partition(":")
    owner: Any = importlib.import_module(place)
    *outer, name = path.split(".")
    for part in outer:
        owner = getattr(owner, part)
    original: Callable[..., Any] = getattr(owner, name)
    calls = 0

    def wrapped(*arguments: Any, **keywords: Any) -> Any:
        nonlocal calls
        calls += holds in repr(arguments)
        hit = calls == call and holds in repr(arguments)
        if when == "full" and calls >= call and holds in repr(arguments):
            if original is os.write:
                original(arguments[0], arguments[1][: len(arguments[1]) // 2])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        if hit and when == "half":
            original(arguments[0], arguments[1][: len(arguments[1]) // 2])
        if hit and when in ("before", "half"):
            os.kill(os.getpid(), signal.SIGKILL)
        result = original(*arguments, **keywords)
        if hit and when == "after":
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    setattr(owner, name, wrapped)


def main() -> None:
    ship()
    plan = json.loads(sys.argv[1])
    for place in plan.get("faults", []):
        fault(*place)
    made = dict(plan.get("objectives", {}))
    if "kill_in_checkpoint" in made:
        made["kill_in_checkpoint"] = (os.getpid(), *made["kill_in_checkpoint"])
    given = None if plan.get("real") else objectives.FaultyObjectives(**made)
    if plan.get("address"):
        for name, value in ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        ray.init(address=plan["address"], log_to_driver=False, logging_level="CRITICAL")
    say: Callable[[str], None] = lambda sentence: print(sentence, flush=True)  # noqa: E731
    try:
        storage, folder = plan["storage"], Path(plan["storage"]) / "run"
        match plan["verb"]:
            case "search":
                search(Experiment(**plan["experiment"]), storage=storage, objectives=given, announce=say)
            case "resume":
                resume(find_run("run", storage) if is_url(storage) else folder, objectives=given, announce=say)
            case "chain":
                run_chain(Chain(**plan["experiment"]), storage=storage, announce=say)
            case "resume chain":
                resume_chain(folder, announce=say)
            case "confirm":
                confirm(folder, **plan["confirm"])
    except KDSearchError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
