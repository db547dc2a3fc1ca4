"""Nodes that would fail the trials of a search are found before its first trial, and told in a sentence."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import ray
from PIL import Image
from ray.cluster_utils import Cluster

import kdsearch
from kdsearch import data as data_sets
from kdsearch.errors import UserError
from kdsearch.experiment import Experiment
from kdsearch.settings import DataSettings
from kdsearch.tuning import nodes, search
from kdsearch.tuning.pool import ENVIRONMENT

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

PROGRAMS = Path(sys.executable).parent
MAY_MOUNT = subprocess.run(["unshare", "--mount", "true"], capture_output=True, check=False).returncode == 0
VERSIONS = nodes.own_versions()


@dataclass(frozen=True)
class Pool:
    """A head, where the driver is, and a second node on the same machine: it sees a `local` and a `code` folder of its
    own, and may not write into `locked`."""

    address: str
    folder: Path
    node: str
    """The second node's name."""


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pool]:
    if not MAY_MOUNT:
        pytest.skip("nobody may mount here; what runs on a node has tests of its own")
    folder = tmp_path_factory.mktemp("pool")
    for name in ("local", "locked", "shared", "code"):
        (folder / name).mkdir()
    (folder / "code" / "my_net.py").write_text("def build(classes): ...\n")
    locked = f"mount --bind '{folder}/locked' '{folder}/locked' && mount -o remount,ro,bind '{folder}/locked'"
    mounts = [*(f"mount -t tmpfs tmpfs '{folder}/{name}'" for name in ("local", "code")), locked]
    before, own = os.getcwd(), dict(os.environ)
    os.environ.update(ENVIRONMENT)
    os.chdir(folder)  # Ray's workers import from the folder that the driver works in as well
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    try:
        ray.init(address=cluster.address, log_to_driver=False, logging_level=logging.CRITICAL)
        with joined(cluster.address, ["unshare", "--mount", "sh", "-ec", f'{" && ".join(mounts)}; exec "$@"', "sh"]):
            (name,) = nodes.other_nodes().values()
            yield Pool(cluster.address, folder, name)
    finally:
        ray.shutdown()
        cluster.shutdown()
        os.chdir(before)
        os.environ.clear()
        os.environ.update(own)


@contextlib.contextmanager
def joined(address: str, prefix: Sequence[str] = (), python_path: str = "") -> Iterator[None]:
    """Inside, a further raylet is part of the cluster."""
    known = len(nodes.other_nodes())
    start = [str(PROGRAMS / "ray"), "start", f"--address={address}", "--block", "--num-cpus=1", "--disable-usage-stats"]
    node = subprocess.Popen(
        [*prefix, *start, "--dashboard-agent-listen-port=0", "--node-ip-address=127.0.0.1"],
        # With 0, as a driver has it, this command would start no second node.
        env={**os.environ, "PYTHONPATH": python_path, "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        wait_for_others(known + 1, node)
        yield
    finally:
        node.terminate()
        node.wait(60)
    wait_for_others(known)


def wait_for_others(count: int, node: subprocess.Popen[bytes] | None = None) -> None:
    deadline = time.monotonic() + 100
    while len(nodes.other_nodes()) != count:
        assert node is None or node.poll() is None, node.communicate()[0].decode()
        assert time.monotonic() < deadline, f"there are {nodes.other_nodes()}"
        time.sleep(0.1)


def experiment(**sections: Any) -> Experiment:
    return Experiment(**{"method": "ce", "student": "resnet8", "resources": {"gpus_per_trial": 0}} | sections)


def refusal(storage: Path, made: Experiment) -> str:
    with pytest.raises(UserError) as refused:
        nodes.check_nodes(made, storage, None)
    return str(refused.value)


def contents(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def test_a_storage_that_all_nodes_share_passes_and_nothing_is_left_in_it(pool: Pool) -> None:
    nodes.check_nodes(experiment(), pool.folder / "shared" / "runs", None)
    assert contents(pool.folder / "shared") == []


def test_a_search_into_another_disk_of_the_same_path_is_refused_and_writes_nothing(
    pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nodes, "SETTLING", 0.2)
    with pytest.raises(UserError) as refused:
        search(experiment(), storage=pool.folder / "local" / "runs", objectives=lambda setting: pytest.fail("it ran"))
    assert str(refused.value) == (
        f"storage '{pool.folder}/local/runs' is not the same folder on all nodes: what the driver writes there is not "
        f"seen from {pool.node}; mount a shared file system on all nodes and give its path"
    )
    assert contents(pool.folder / "local") == []


def test_a_storage_that_a_node_cannot_write_is_refused(pool: Pool) -> None:
    assert refusal(pool.folder / "locked", experiment()) == (
        f"storage '{pool.folder}/locked' cannot be written from {pool.node} (Read-only file system); mend its rights"
    )
    assert contents(pool.folder / "locked") == []


def test_paths_that_the_driver_alone_has_are_listed(pool: Pool) -> None:
    mine = pool.folder / "code" / "my_net.py"
    made = experiment(student=f"{mine}:build").anchored()
    assert refusal(pool.folder / "shared", made) == (
        f"paths of the experiment are not on all nodes; missing are\n  {pool.node}: {mine}"
    )
    nodes.check_nodes(experiment(), None, None)  # a storage that is no folder is nobody's affair here


def test_a_node_with_other_files_of_the_same_kdsearch_is_refused(pool: Pool) -> None:
    copy = pool.folder / "site" / "kdsearch"
    shutil.copytree(Path(kdsearch.__file__).parent, copy, ignore=shutil.ignore_patterns("__pycache__"))
    with (copy / "wording.py").open("a") as changed:
        changed.write("# a comment\n")
    own = set(nodes.other_nodes())
    with joined(pool.address, python_path=str(copy.parent)):
        (foreign,) = set(nodes.other_nodes()) - own
        told = refusal(pool.folder / "shared", experiment())
        digest = f"has {nodes.FILES} [0-9a-f]{{12}}"
        name = re.escape(nodes.other_nodes()[foreign])
        assert re.search(f"differ: the driver {digest}, .*{name} {digest}[,;].* install the same on all", told), told
    # A node that left meanwhile is no reason to refuse a search.
    assert nodes.ask({foreign: "gone"}, nodes.Question(None, "", [])) == {}
    nodes.check_nodes(experiment(), pool.folder / "shared", None)


def answer(**changes: Any) -> nodes.Answer:
    return {"versions": VERSIONS, "sees": True, "refusal": None, "missing": [], **changes}  # type: ignore[typeddict-item]


def test_other_versions_are_named_with_what_the_driver_has() -> None:
    other = VERSIONS | {"Ray": "2.50.0", "kdsearch": "0.0.9", nodes.FILES: "ffff"}
    with pytest.raises(UserError) as refused:
        nodes.judge({"10.0.0.2": answer(), "10.0.0.3": answer(versions=other)}, VERSIONS, None)
    assert str(refused.value) == (
        f"the nodes of the pool differ: the driver has Ray {ray.__version__}, kdsearch {kdsearch.__version__}, "
        "10.0.0.3 has Ray 2.50.0, kdsearch 0.0.9; install the same on all of them"
    )
    nodes.judge({"10.0.0.2": answer()}, VERSIONS, None)


def test_what_runs_on_a_node_tells_what_it_sees_writes_and_misses(tmp_path: Path) -> None:
    examine = nodes.examination()
    probe, blocked = tmp_path / "probe", tmp_path / "file" / "probe"
    probe.write_text("nonce")
    found = examine("node", str(probe), "nonce", [str(tmp_path), str(tmp_path / "gone")], 0.2)
    assert (found["sees"], found["refusal"], found["missing"]) == (True, None, [str(tmp_path / "gone")])
    assert contents(tmp_path) == ["probe"]
    assert not examine("node", str(probe), "another nonce", [], 0.2)["sees"], "a file of that name is not enough"
    assert not examine("node", str(blocked), "nonce", [], 0.2)["sees"]


def test_a_folder_of_data_is_needed_on_all_nodes_only_where_it_is_read_while_training(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    for label in ("cat", "dog"):
        (tmp_path / label).mkdir()
        for number in range(8):
            pixels = random.integers(0, 256, (8, 8, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / label / f"{number}.png")
    weights = tmp_path / "teacher.safetensors"
    weights.write_text("")
    for held in (True, False):
        settings = DataSettings(name="folder", root=str(tmp_path), in_memory=held)
        made = experiment(method="kd", teacher={"name": "resnet8", "weights": str(weights)}, data=settings)
        needed = nodes.needed_paths(made, data_sets.load(settings))
        assert needed == ([str(weights)] if held else [str(tmp_path), str(weights)])
