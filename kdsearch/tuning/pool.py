"""The pool of machines: joining or starting Ray, and how many trials fit."""

from __future__ import annotations

import contextlib
import logging
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from kdsearch.errors import InvalidSetting, UserError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from kdsearch.settings import ResourceSettings

# Read by Ray when it is imported or started: its own tables, loggers and signal handler are replaced by ours.
ENVIRONMENT = {
    "RAY_AIR_NEW_OUTPUT": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",
    "TUNE_WARN_THRESHOLD_S": "10",
    # Paths that a person gives are seen from where the search was started.
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DEDUP_LOGS": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "1",
    # A cluster of one machine stays on the loopback interface.
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
}


@contextlib.contextmanager
def pool(resources: ResourceSettings, verbose: bool = False) -> Iterator[Callable[[], None]]:
    """Ray, joined or started for the time of a search; one that runs in this process already is used as it is.

    It starts in the background, as that takes seconds in which the caller can load its data; the function that this
    yields waits until it is there, and raises UserError when there is no cluster at the address.
    """
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    import ray  # heavy, and the environment must be set before

    if ray.is_initialized():
        yield lambda: None
        return
    with ThreadPoolExecutor(1) as starter:
        starting = starter.submit(_start, resources.address, verbose)
        try:
            yield starting.result
        finally:
            if starting.exception() is None:
                ray.shutdown()


def _start(address: str | None, verbose: bool) -> None:
    import ray

    # What befalls a trial is told by the ledger; Ray would add a traceback and a list of its own names for it.
    level = logging.INFO if verbose else logging.CRITICAL
    logging.getLogger("ray").setLevel(level)
    dashboard = False if address is None else None
    try:
        ray.init(address=address or "local", include_dashboard=dashboard, log_to_driver=verbose, logging_level=level)
    except (ConnectionError, ValueError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"no Ray cluster answers at {address!r}: {reason}") from None
    _close_token()


def _close_token() -> None:
    """Ray makes the token that lets programs in with the right to read for everyone on this machine."""
    token = Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or "~/.ray/auth_token").expanduser()
    with contextlib.suppress(OSError):
        if token.stat().st_mode & 0o077:
            token.chmod(0o600)


def gpus_per_trial(resources: ResourceSettings) -> float:
    """The GPU share of a trial; where none was asked for, a whole one if the pool has any."""
    import ray

    if resources.gpus_per_trial is not None:
        return resources.gpus_per_trial
    return 1.0 if ray.cluster_resources().get("GPU", 0) >= 1 else 0.0


def slots(cpus: float, gpus: float, max_concurrent: int | None) -> int:
    """How many trials run at a time. Raises InvalidSetting when not even one fits on any node.

    Ray would wait for ever for what no node has.
    """
    import ray

    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    fitting = sum(_fit(node, cpus, gpus) for node in nodes)
    if fitting == 0:
        most_gpus = max((node.get("GPU", 0) for node in nodes), default=0)
        most_cpus = max((node.get("CPU", 0) for node in nodes), default=0)
        if gpus > most_gpus:
            why = f"no node of the pool has more than {most_gpus:g} GPUs; ask for less, or 0 to search on CPUs"
            raise InvalidSetting("resources.gpus_per_trial", gpus, why)
        why = f"no node of the pool has more than {most_cpus:g} CPUs"
        raise InvalidSetting("resources.cpus_per_trial", cpus, why)
    return min(fitting, max_concurrent or fitting)


def _fit(node: dict[str, float], cpus: float, gpus: float) -> int:
    """Trials that fit on one node; a share of a GPU does not spread over two."""
    by_cpu = int(node.get("CPU", 0) / cpus + 1e-9)
    if gpus == 0:
        return by_cpu
    available = int(node.get("GPU", 0))
    by_gpu = available * int(1 / gpus + 1e-9) if gpus < 1 else available // int(gpus)
    return min(by_cpu, by_gpu)
