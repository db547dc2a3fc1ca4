"""The Ray that a search starts: reachable from this machine alone."""

from __future__ import annotations

import ipaddress
import json
import os
import re
import socket
import subprocess
import sys

import pytest

from kdsearch.errors import UserError
from kdsearch.search_settings import ResourceSettings
from kdsearch.tuning.pool import ENVIRONMENT, pool

SCRIPT = """
import json, os, re, socket, struct
from pathlib import Path
from kdsearch.search_settings import ResourceSettings
from kdsearch.tuning.pool import pool

def family(root):
    parents = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parents[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            pass
    found = {root}
    while more := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= more
    return found

def sockets(pids):
    for pid in pids:
        try:
            for file in Path(f"/proc/{pid}/fd").iterdir():
                try:
                    yield re.fullmatch(r"socket:\\[(\\d+)\\]", os.readlink(file))[1]
                except (OSError, TypeError):
                    pass
        except OSError:
            pass

def listening(inodes):
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and fields[9] in inodes:
                words = bytes.fromhex(fields[1].partition(":")[0])
                raw = b"".join(words[at:at + 4][::-1] for at in range(0, len(words), 4))
                yield socket.inet_ntop(socket.AF_INET if len(raw) == 4 else socket.AF_INET6, raw)

with pool(ResourceSettings()) as wait:
    wait()
    import ray
    ray.get(ray.remote(lambda: 1).remote())
    token = Path("~/.ray/auth_token").expanduser()
    print(json.dumps({
        "addresses": list(listening(set(sockets(family(os.getpid()))))),
        "mode": token.stat().st_mode & 0o777 if token.exists() else 0o600,
        "dashboard": ray.get_runtime_context().gcs_address and ray._private.worker.global_worker.node.webui_url,
    }))
"""


@pytest.mark.parametrize("before", ["", "import ray\n"], ids=["as it is", "ray imported before"])
def test_it_listens_on_the_loopback_interface_and_has_no_dashboard(before: str) -> None:
    without = {name: value for name, value in os.environ.items() if name not in ENVIRONMENT}
    answer = subprocess.run(
        [sys.executable, "-c", before + SCRIPT], capture_output=True, text=True, check=True, env=without
    )
    found = json.loads(answer.stdout.splitlines()[-1])
    assert len(found["addresses"]) >= 4  # control store, raylet, workers, agents
    for text in found["addresses"]:
        address = ipaddress.ip_address(text)
        assert (getattr(address, "ipv4_mapped", None) or address).is_loopback, text
    assert not found["dashboard"]
    assert found["mode"] == 0o600  # whoever else works on this machine must not read the token


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the pool sets is gone again after the test."""
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)


@pytest.mark.usefixtures("environment")
def test_a_cluster_that_is_gone_is_one_sentence_and_not_waited_for() -> None:
    """Ray by itself would go on calling, and then give another reason."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        place = f"127.0.0.1:{server.getsockname()[1]}"
    sentence = (
        f"no Ray cluster answers at '{place}': [Errno 111] Connection refused; name another with --address, or "
        "--address local for none"
    )
    with pytest.raises(UserError, match=f"^{re.escape(sentence)}$"), pool(ResourceSettings(address=place)) as wait:
        wait()


@pytest.mark.usefixtures("environment")
@pytest.mark.parametrize("place", ["nowhere", "127.0.0.1:x", "no.such.host.invalid:6379"])
def test_what_is_no_address_is_one_sentence(place: str) -> None:
    sentence = rf"^no Ray cluster answers at '{place}': .+; name another with --address, or --address local for none$"
    with pytest.raises(UserError, match=sentence), pool(ResourceSettings(address=place)) as wait:
        wait()
