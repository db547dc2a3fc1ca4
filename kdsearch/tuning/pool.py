"""The pool of machines: joining or starting Ray, and how many trials fit."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import socket
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdsearch.errors import InvalidSetting, UserError
from kdsearch.tuning.admission import check_token, other_versions

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from kdsearch.search_settings import ResourceSettings

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
    # Processes that Ray starts ahead lack the environment that Tune gives its trials, which start others.
    "RAY_prestart_worker_first_driver": "0",
    # A cluster of one machine stays on the loopback interface; see `_loopback`.
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
}

ANSWERS_WITHIN = 10.0
"""Seconds that a cluster's head has to take a call."""

NO_CAP = 1_000_000
"""More trials than any pool has room for."""


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
    own = address in (None, "local")
    try:
        if not own:
            _call(str(address))
        with contextlib.ExitStack() as held:
            if own:
                held.enter_context(_loopback())
                held.enter_context(_lean(verbose))
            ray.init(
                address=address or "local",
                include_dashboard=False if own else None,
                log_to_driver=verbose,
                logging_level=level,
            )
    except UserError:
        raise
    except Exception as error:  # of a machine that is too busy to start it Ray says so by the base class itself
        if (differing := other_versions(str(address), error)) is not None:
            raise differing from None
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        if own:
            raise UserError(f"Ray cannot be started on this machine: {reason}") from None
        raise UserError(
            f"no Ray cluster answers at {address!r}: {reason}; name another with --address, or --address local for none"
        ) from None
    _close_token()


def _call(address: str) -> None:
    """Call the head of a cluster: Ray would wait for minutes for one that is gone. Raises OSError or ValueError."""
    from ray._private.services import canonicalize_bootstrap_address

    if "://" in address:
        return
    host, _, port = str(canonicalize_bootstrap_address(address)).rpartition(":")
    with socket.create_connection((host.strip("[]"), int(port)), timeout=ANSWERS_WITHIN):
        pass
    check_token(f"{host}:{port}")


@contextlib.contextmanager
def _loopback() -> Iterator[None]:
    """Inside, a Ray that is started listens on the loopback interface alone.

    Ray reads the variable of its environment when it is imported, which a caller may have done before us. An address
    that is given to `ray.init` does not help: Ray 2.60 puts the outer one in the place of 127.0.0.1.
    """
    from ray._private import ray_constants

    before = ray_constants.ENABLE_RAY_CLUSTER
    if os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] == "0":
        ray_constants.ENABLE_RAY_CLUSTER = False
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = before


@contextlib.contextmanager
def _lean(verbose: bool) -> Iterator[None]:
    """Inside, a Ray that is started lacks what a search on one machine has no use for.

    That is the monitor of an autoscaler, the server of a dashboard that is not there, for which `ray.init` waits, and
    what carries the workers' output to a driver that does not show it: a fifth of what the start costs. Ray 2.60 has no
    option for the three.
    """
    from ray._private import node

    before = node.Node

    class Lean(before):  # type: ignore[misc, valid-type]
        def start_monitor(self) -> None:
            """No autoscaler, as no node can join."""

        def start_api_server(self, **options: Any) -> None:
            self._webui_url = ""

        def start_log_monitor(self) -> None:
            if verbose:
                super().start_log_monitor()

    node.Node = Lean  # type: ignore[misc]
    try:
        yield
    finally:
        node.Node = before  # type: ignore[misc]


def _close_token() -> None:
    """Ray makes the token that lets programs in with the right to read for everyone on this machine."""
    token = Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or "~/.ray/auth_token").expanduser()
    with contextlib.suppress(OSError):
        if token.stat().st_mode & 0o077:
            token.chmod(0o600)


def gpus_per_trial(resources: ResourceSettings) -> float:
    """The GPU share of a trial; unless a number was asked for, a whole one if the pool has any."""
    import ray

    if isinstance(resources.gpus_per_trial, float):
        return resources.gpus_per_trial
    return 1.0 if ray.cluster_resources().get("GPU", 0) >= 1 else 0.0


def shares(resources: ResourceSettings) -> bool:
    """Whether it was asked that trials share GPUs, or to find out whether they should."""
    return resources.gpus_per_trial == "auto" or 0 < resources.gpus < 1


def slots(cpus: float, gpus: float, max_concurrent: int | None, max_gpus: int | None = None) -> int:
    """How many trials run at a time. Raises InvalidSetting when not even one fits on any node.

    Ray would wait for ever for what no node has; but in a cluster that grows, one that has it may come.
    """
    nodes = alive()
    fits = fitting(nodes, cpus, gpus)
    if fits == 0 and not grows():
        most_gpus = max((node.get("GPU", 0) for node in nodes), default=0)
        most_cpus = max((node.get("CPU", 0) for node in nodes), default=0)
        if gpus > most_gpus:
            why = f"no node of the pool has more than {most_gpus:g} GPUs; ask for less, or 0 to search on CPUs"
            raise InvalidSetting("resources.gpus_per_trial", gpus, why)
        why = f"no node of the pool has more than {most_cpus:g} CPUs"
        raise InvalidSetting("resources.cpus_per_trial", cpus, why)
    return max(1, min(fits, cap(gpus, max_concurrent, max_gpus)))


def alive() -> list[dict[str, float]]:
    """What each node has that is alive now."""
    import ray

    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def fitting(nodes: Sequence[dict[str, float]], cpus: float, gpus: float) -> int:
    """How many trials these nodes have room for, were they empty."""
    return sum(_fit(node, cpus, gpus) for node in nodes)


def cap(gpus: float, max_concurrent: int | None, max_gpus: int | None) -> int:
    """How many trials of so many GPUs a person allows at a time, whatever the pool has."""
    by_gpus = int(max_gpus / gpus + 1e-9) if max_gpus is not None and gpus else NO_CAP
    return min(max_concurrent or NO_CAP, by_gpus)


def grows() -> bool:
    """Whether the cluster starts nodes when they are asked for, as far as Ray tells.

    Ray has no interface for it. Its autoscaler of version 2 reports a state of its own; that of version 1 names the
    types of nodes that it manages, where a cluster without one reports each node as a type of its own.
    """
    from ray._private.worker import global_worker
    from ray.core.generated import autoscaler_pb2
    from ray.experimental.internal_kv import _internal_kv_get

    with contextlib.suppress(Exception):  # of a version that keeps it elsewhere we learn nothing
        status = json.loads(_internal_kv_get("__autoscaling_status") or b"{}")
        report = status.get("autoscaler_report") or {}
        if any(not kind.startswith("node_") for kind in report.get("active_nodes", {})):
            return True
        state: Any = autoscaler_pb2
        client: Any = global_worker.gcs_client  # type: ignore[attr-defined]
        reply = state.GetClusterStatusReply()
        reply.ParseFromString(client.get_cluster_status(timeout_s=5))
        return bool(reply.autoscaling_state.autoscaler_state_version > 0)
    return False


def _fit(node: dict[str, float], cpus: float, gpus: float) -> int:
    """Trials that fit on one node; a share of a GPU does not spread over two."""
    by_cpu = int(node.get("CPU", 0) / cpus + 1e-9)
    if gpus == 0:
        return by_cpu
    available = int(node.get("GPU", 0))
    by_gpu = available * int(1 / gpus + 1e-9) if gpus < 1 else available // int(gpus)
    return min(by_cpu, by_gpu)
