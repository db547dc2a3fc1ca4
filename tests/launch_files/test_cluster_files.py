"""aws.yaml and gcp.yaml, read as `ray up` reads them: against the schema and the defaults that ship with Ray."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

LAUNCH = Path(__file__).parents[2] / "launch"
FILES = ("aws.yaml", "gcp.yaml")
BEGIN, END = "# ---- Yours to fill in: from here … ----", "# ---- … to here ----"


def load(name: str) -> dict[str, Any]:
    config: dict[str, Any] = yaml.safe_load((LAUNCH / name).read_text())
    return config


def schema() -> dict[str, Any]:
    from ray import autoscaler

    read: dict[str, Any] = json.loads(Path(autoscaler.__file__).with_name("ray-schema.json").read_text())
    return read


def commands(config: dict[str, Any]) -> list[str]:
    """Every shell command of the file, in the order in which a node sees them."""
    keys = ("setup_commands", "head_setup_commands", "worker_setup_commands")
    return [line for key in (*keys, "head_start_ray_commands", "worker_start_ray_commands") for line in config[key]]


@pytest.mark.parametrize("name", FILES)
def test_a_cluster_file_keeps_to_the_schema_of_ray(name: str) -> None:
    config = load(name)
    jsonschema.validate(config, schema())
    with pytest.raises(jsonschema.ValidationError, match="storage"):
        jsonschema.validate({**config, "storage": "/mnt"}, schema())


@pytest.mark.parametrize("name", FILES)
def test_a_cluster_file_passes_what_ray_up_checks_before_it_talks_to_the_cloud(name: str) -> None:
    from ray.autoscaler._private.util import prepare_config, validate_config

    prepared = prepare_config(load(name))
    validate_config(prepared)
    assert prepared["available_node_types"]["worker"]["max_workers"] == 8


def test_the_gpu_workers_are_spot_machines_and_the_head_is_not() -> None:
    aws = load("aws.yaml")["available_node_types"]
    gcp = load("gcp.yaml")["available_node_types"]
    assert aws["worker"]["node_config"]["InstanceMarketOptions"]["MarketType"] == "spot"
    assert gcp["worker"]["node_config"]["scheduling"][0]["preemptible"] is True
    assert gcp["worker"]["resources"]["GPU"] == gcp["worker"]["node_config"]["guestAccelerators"][0]["acceleratorCount"]
    for types in (aws, gcp):
        assert types["worker"]["max_workers"] > types["worker"]["min_workers"] >= 1
        assert not {"InstanceMarketOptions", "scheduling"} & set(types["head"]["node_config"])
        assert types["head"]["resources"] == {"CPU": 0}


@pytest.mark.parametrize("name", FILES)
def test_every_node_has_the_token_the_storage_and_the_same_kdsearch(name: str) -> None:
    config = load(name)
    (token,) = config["cluster_synced_files"]
    head = " ; ".join(config["head_setup_commands"])
    assert "ray get-auth-token --generate" in head
    assert f"chmod 600 {token}" in head
    for key in ("head_start_ray_commands", "worker_start_ray_commands"):
        assert "RAY_AUTH_MODE=token ray start" in config[key][-1]
        assert "--dashboard-host" not in config[key][-1], "the dashboard is for the head's loopback interface"
    everywhere = " ; ".join(config["setup_commands"])
    assert re.search(r"sudo mount -t nfs4? .*/mnt/kdsearch ;", everywhere)
    assert "KDSEARCH_STORAGE=/mnt/kdsearch/runs RAY" in everywhere
    assert "~/kdsearch/launch/local.sh" in everywhere
    assert config["file_mounts"] == {"~/kdsearch": "."}


def run_mps_command(name: str, folder: Path, answer: str, *, running: bool) -> tuple[str, list[str]]:
    """What the file's own command says on a worker, and what the daemon was told; the choice is in ~/mps."""
    (command,) = (line for line in load(name)["worker_start_ray_commands"] if "nvidia-cuda-mps-control" in line)
    control = folder / "nvidia-cuda-mps-control"
    control.write_text(f'#!/bin/sh\necho "${{1:-$(cat)}}" >>{folder}/told\n{"true" if running else "false"}\n')
    control.chmod(0o755)
    (folder / "mps").write_text(answer)
    environment = {"HOME": str(folder), "PATH": f"{folder}:/usr/bin:/bin"}
    done = subprocess.run(["bash", "-c", command], env=environment, capture_output=True, text=True, check=True)
    told = folder / "told"
    return done.stdout, told.read_text().splitlines() if told.exists() else []


@pytest.mark.parametrize("name", FILES)
def test_workers_begin_with_a_new_mps_daemon_where_it_is_wanted_and_go_without_where_there_is_none(
    name: str, tmp_path: Path
) -> None:
    config = load(name)
    assert config["metadata"]["mps"] in config["setup_commands"]
    order = [line.split(" ")[0:2] for line in config["worker_start_ray_commands"]]
    assert order[0] == ["ray", "stop"]
    for case, answer, running, said, told in (
        ("wanted", "yes", True, "", ["quit", "-d"]),
        ("missing", "yes", False, "no NVIDIA MPS on this machine\n", ["quit", "-d"]),
        ("unwanted", "no", True, "", []),
    ):
        (tmp_path / case).mkdir()
        assert run_mps_command(name, tmp_path / case, answer, running=running) == (said, told)
    assert not any("mps" in line for line in config["head_start_ray_commands"])


@pytest.mark.parametrize("name", FILES)
def test_the_commands_of_a_cluster_file_pass_shellcheck(name: str) -> None:
    if shutil.which("shellcheck") is None:
        pytest.skip("shellcheck is not installed")
    script = "\n".join(["#!/bin/bash", *commands(load(name))])
    # SC2016: $HOME and $PATH go into /etc/profile.d as they stand. RAY_HEAD_IP is Ray's to set (SC2154).
    checked = subprocess.run(
        ["shellcheck", "--exclude=SC2016,SC2154", "-"], input=script, capture_output=True, text=True, check=False
    )
    assert checked.returncode == 0, checked.stdout


@pytest.mark.parametrize("name", FILES)
def test_what_is_a_persons_own_stands_in_the_marked_block_and_nowhere_else(name: str) -> None:
    """Account, region, image, machine and file system: the rest of the file only refers to them."""
    before, rest = (LAUNCH / name).read_text().split(BEGIN)
    block, after = rest.split(END)
    assert not yaml.safe_load(before)
    assert set(yaml.safe_load(block)) == {"cluster_name", "max_workers", "provider", "metadata"}
    own = r"\b(ami-|fs-|us-(west|central)\d|projects/|my-project|[a-z]\d\w*\.\w*large|n[12]-standard|10\.\d)"
    assert re.search(own, block)
    assert re.findall(own, after) == []
