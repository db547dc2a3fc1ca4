"""kuberay.yaml, against what KubeRay's and Kubernetes' own schemas say of the fields that it uses."""

from __future__ import annotations

import copy
import os
import re
import subprocess
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

FILE = Path(__file__).parents[2] / "launch" / "kuberay.yaml"
SCHEMA = yaml.safe_load(Path(__file__).with_name("kuberay_schema.yaml").read_text())
BEGIN, END = "# ---- Yours to fill in: from here … ----", "# ---- … to here ----"


def items() -> dict[str, dict[str, Any]]:
    """The resources by their kind, each a copy of its own."""
    listed = yaml.safe_load(FILE.read_text())
    assert (listed["apiVersion"], listed["kind"]) == ("v1", "List")
    found = {item["kind"]: copy.deepcopy(item) for item in listed["items"]}
    assert len(found) == len(listed["items"])
    return found


def validate(item: dict[str, Any]) -> None:
    schema = {"$defs": SCHEMA["$defs"], **SCHEMA[item["kind"]]}
    jsonschema.validate(item, schema, cls=jsonschema.Draft202012Validator)


def clusters() -> list[dict[str, Any]]:
    return [items()["RayJob"]["spec"]["rayClusterSpec"], items()["RayCluster"]["spec"]]


def test_every_resource_keeps_to_its_schema() -> None:
    assert set(items()) == {"ConfigMap", "PersistentVolumeClaim", "RayJob", "RayCluster"}
    for item in items().values():
        validate(item)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda spec: spec["authOptions"].update(mode="tokens"),
        lambda spec: spec.update(headGroup=spec.pop("headGroupSpec")),
        lambda spec: spec["headGroupSpec"]["rayStartParams"].update({"num-cpus": 0}),
        lambda spec: spec["workerGroupSpecs"][0].pop("maxReplicas"),
        lambda spec: spec["workerGroupSpecs"][0]["template"]["spec"]["containers"][0].update(volumes=[]),
    ],
)
def test_the_schema_refuses_what_kubernetes_would(spoil: Callable[[dict[str, Any]], Any]) -> None:
    item = items()["RayCluster"]
    spoil(item["spec"])
    with pytest.raises(jsonschema.ValidationError):
        validate(item)


def test_both_clusters_scale_their_gpu_workers_under_the_token_of_a_secret() -> None:
    for spec in clusters():
        assert spec["authOptions"] == {"mode": "token", "secretName": "kdsearch-token"}
        assert spec["enableInTreeAutoscaling"] is True
        assert spec["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
        (workers,) = spec["workerGroupSpecs"]
        assert workers["maxReplicas"] > workers["minReplicas"] >= 1
        (container,) = workers["template"]["spec"]["containers"]
        assert container["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert not re.search(r"auth_token: |stringData|kind: Secret", FILE.read_text()), "the token is not for a file"


def test_every_pod_sees_the_storage_under_one_path() -> None:
    claim = items()["PersistentVolumeClaim"]
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]
    for spec in clusters():
        for group in (spec["headGroupSpec"], *spec["workerGroupSpecs"]):
            pod = group["template"]["spec"]
            (container,) = pod["containers"]
            folders = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
            claims = {v["name"]: v.get("persistentVolumeClaim", {}).get("claimName") for v in pod["volumes"]}
            assert folders["storage"] == "/storage"
            assert claims["storage"] == claim["metadata"]["name"]
            assert {"name": "KDSEARCH_STORAGE", "value": "/storage/runs"} in container["env"]


def test_the_version_of_ray_is_the_one_of_the_constraints() -> None:
    pinned = re.search(r"^ray==(\S+)$", FILE.with_name("constraints.txt").read_text(), re.MULTILINE)
    assert pinned
    assert {spec["rayVersion"] for spec in clusters()} == {pinned[1]}
    assert version("ray").split(".")[0] == pinned[1].split(".")[0]


@pytest.mark.parametrize(
    ("existing", "command"),
    [(False, "search kd --trials 64 --name kd-1 --address auto"), (True, "resume kd-1")],
)
def test_the_job_begins_its_run_or_goes_on_with_it(tmp_path: Path, existing: bool, command: str) -> None:
    """The entrypoint, run by a shell with a kdsearch that says how it was called."""
    program = tmp_path / "kdsearch"
    program.write_text('#!/bin/sh\necho "$*"\n')
    program.chmod(0o755)
    (tmp_path / "kd-1").mkdir() if existing else None
    (container,) = clusters()[0]["headGroupSpec"]["template"]["spec"]["containers"]
    variables = {variable["name"]: variable["value"] for variable in container["env"]}
    environment = {**variables, "KDSEARCH_STORAGE": str(tmp_path), "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    entrypoint = items()["RayJob"]["spec"]["entrypoint"]
    done = subprocess.run(["sh", "-c", entrypoint], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == command


def test_what_is_a_persons_own_stands_in_the_marked_block_and_nowhere_else() -> None:
    before, rest = FILE.read_text().split(BEGIN)
    block, after = rest.split(END)
    anchors = set(re.findall(r"&(\w+)", block))
    assert anchors >= {"image", "storage_class", "storage_size", "gpu_label", "gpu_value", "gpus", "run", "search"}
    assert {name for name in anchors if f"*{name}" not in after} == set(), "in the block, but used by nothing"
    own = yaml.safe_load(re.sub(r"&\w+ ", "", block)).values()
    assert [value for value in own if len(value) > 4 and value in before + after] == []
