"""SIGKILL of a worker, of the raylet of a node, and of the head; a search goes on, or is resumed, and ends the same."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from ray.cluster_utils import Cluster

from kdsearch.results import Results
from kdsearch.tuning import resume
from tests.faults import harness
from tests.faults.objectives import FaultyObjectives

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.slow


def wait_until_held(held: Path, process: subprocess.Popen[str]) -> dict[str, Any]:
    """Wait until a trial is held; the process and the node that hold it."""
    deadline = time.monotonic() + 200
    while not held.exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, "no trial came to its third epoch"
        time.sleep(0.02)
    place: dict[str, Any] = json.loads(held.read_text())
    return place


def search_through(folder: Path, address: str, kill: Callable[[dict[str, Any]], None]) -> Path:
    """A search whose first trial is held in its third epoch until something is killed under it; the run."""
    held = folder / "held"
    process = harness.start(folder, address=address, objectives={"hold_at": str(held)})
    kill(wait_until_held(held, process))
    output = process.communicate(timeout=250)
    assert process.returncode == 0, output
    return folder / "run"


def losses(run: Path) -> list[int]:
    """Each trial's lost processes, as its record tells them."""
    logs = [json.loads(line) for line in (run / "study.journal").read_text().splitlines()]
    return [log["user_attr"]["losses"] for log in logs if "losses" in log.get("user_attr", {})]


def test_a_search_survives_a_killed_worker(cluster: str, expected: list[tuple[Any, ...]], tmp_path: Path) -> None:
    run = search_through(tmp_path, cluster, lambda place: os.kill(place["process"], signal.SIGKILL))
    assert harness.found(run) == expected
    assert losses(run) == [1]
    harness.assert_told_once(run)


@pytest.mark.parametrize("killed", ["gcs_server", "raylet"])
def test_a_search_whose_head_is_killed_ends_and_is_resumed(
    killed: str, cluster: str, expected: list[tuple[Any, ...]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The head of a Ray that the driver started by itself: with it the driver ends too."""
    monkeypatch.setenv("RAY_gcs_rpc_server_reconnect_timeout_s", "2")
    held = tmp_path / "held"
    process = harness.start(tmp_path, objectives={"hold_at": str(held)})
    wait_until_held(held, process)
    os.kill(child_of(process.pid, killed), signal.SIGKILL)
    process.communicate(timeout=250)
    assert process.returncode != 0
    assert Results(tmp_path / "run").state in ("CRASHED", "INTERRUPTED")
    resume(tmp_path / "run", objectives=FaultyObjectives())
    assert harness.found(tmp_path / "run") == expected
    harness.assert_told_once(tmp_path / "run")


def child_of(parent: int, name: str) -> int:
    """The process of that name that `parent` started."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            stat = (folder / "stat").read_text()
        except (FileNotFoundError, ProcessLookupError):
            continue
        command, _, rest = stat.partition("(")[2].rpartition(")")
        if command == name and int(rest.split()[1]) == parent:
            return int(folder.name)
    raise AssertionError(f"process {parent} has no child {name}")


@pytest.fixture
def two_nodes() -> Iterator[Cluster]:
    """A head without CPUs and two nodes with one each, all of them raylets of their own."""
    nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    for _ in range(2):
        nodes.add_node(num_cpus=1)
    yield nodes
    nodes.shutdown()


def test_a_search_survives_the_raylet_of_a_node(
    two_nodes: Cluster, expected: list[tuple[Any, ...]], tmp_path: Path
) -> None:
    by_id = {node.node_id: node for node in two_nodes.worker_nodes}

    def kill(place: dict[str, Any]) -> None:
        two_nodes.remove_node(by_id[place["node"]], allow_graceful=False)

    run = search_through(tmp_path, two_nodes.address, kill)
    assert harness.found(run) == expected
    assert losses(run) == [1]
    harness.assert_told_once(run)
