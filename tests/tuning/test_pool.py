"""The Ray that a search starts: reachable from this machine alone."""

from __future__ import annotations

import ipaddress
import json
import subprocess
import sys

SCRIPT = """
import json, os, re, socket, struct
from pathlib import Path
from kdsearch.settings import ResourceSettings
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


def test_it_listens_on_the_loopback_interface_and_has_no_dashboard() -> None:
    answer = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True)
    found = json.loads(answer.stdout.splitlines()[-1])
    assert len(found["addresses"]) >= 4  # control store, raylet, workers, agents
    for text in found["addresses"]:
        address = ipaddress.ip_address(text)
        assert (getattr(address, "ipv4_mapped", None) or address).is_loopback, text
    assert not found["dashboard"]
    assert found["mode"] == 0o600  # whoever else works on this machine must not read the token
