"""slurm.sh, with stand-ins for srun and scontrol that start real Ray nodes, two of them, on this machine."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).parents[2] / "launch" / "slurm.sh"
PROGRAMS = Path(sys.executable).parent
SMALL = ("--trials", "2", "--max-epochs", "1", "--set", "data.label_fraction=0.2")

# Slurm would run it on the node that it names; here every node is this machine.
SRUN = """#!/bin/sh
line=$(echo "srun $* | token $(stat -c %a "$RAY_AUTH_TOKEN_PATH")" | tr '\\n' ' ')
echo "$line" >>"$CALLS"
[ -z "${NO_START:-}" ] || exit 1
while :; do
    case $1 in --*) shift ;; *) break ;; esac
done
exec "$@"
"""
SCONTROL = """#!/bin/sh
echo "scontrol $*" >>"$CALLS"
case $* in
    "show hostnames "*) printf 'first\\nsecond\\n' ;;
    *"show job "*) echo "JobId=7 JobName=kdsearch JobState=$JOB_STATE Restarts=0" ;;
esac
"""
# The daemon and the tool of NVIDIA's driver, on a machine without one.
MPS_CONTROL = """#!/bin/sh
if [ "${1:-}" = -d ]; then
    [ -z "${NO_MPS:-}" ] || exit 1
    echo "mps begins in $CUDA_MPS_PIPE_DIRECTORY with $CUDA_VISIBLE_DEVICES" >>"$CALLS"
    touch "$CUDA_MPS_PIPE_DIRECTORY/control"
else
    echo "mps is told $(cat) in $CUDA_MPS_PIPE_DIRECTORY" >>"$CALLS"
fi
"""
NVIDIA_SMI = """#!/bin/sh
for argument; do
    case $argument in --id=*) echo "${argument#--id=}" | tr , '\\n' | sed 's/^/GPU-name-of-/' ;; esac
done
"""


@dataclass
class Job:
    """slurm.sh as Slurm started it, and what it prints: in a file, so that a job that hangs can be asked as well."""

    process: subprocess.Popen[bytes]
    output: Path
    storage: Path

    def wait(self, seconds: float) -> str:
        """All it printed by its end; AssertionError, with that and its nodes' logs, where it has not come by then."""
        try:
            self.process.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"it has not ended after {seconds} s\n{self.all_there_is_to_read()}") from None
        return self.output.read_text()

    def wait_for(self, condition: Callable[[], bool], seconds: float = 150) -> None:
        end = time.monotonic() + seconds
        while not condition():
            assert self.process.poll() is None, self.all_there_is_to_read()
            assert time.monotonic() < end, f"it did not come to that\n{self.all_there_is_to_read()}"
            time.sleep(0.2)

    def all_there_is_to_read(self) -> str:
        logs = [self.output, *self.storage.glob(".slurm-*.logs/*.log"), *self.storage.glob("*/driver.log")]
        return "\n".join(f"---- {log}\n{log.read_text(errors='replace')[-4000:]}" for log in logs)


Start = Callable[..., Job]


@pytest.fixture
def job(tmp_path: Path) -> Iterator[Start]:
    """`job("search", "ips", SLURM_JOB_ID="7")` starts slurm.sh as Slurm would. What still runs at the end is ended."""
    stand_ins = tmp_path / "bin"
    stand_ins.mkdir()
    programs = {"srun": SRUN, "scontrol": SCONTROL, "nvidia-cuda-mps-control": MPS_CONTROL, "nvidia-smi": NVIDIA_SMI}
    for name, text in programs.items():
        (stand_ins / name).write_text(text)
        (stand_ins / name).chmod(0o755)
    started: list[Job] = []

    def start(*arguments: str, **variables: str) -> Job:
        environment = {
            **untouched(os.environ),
            "PATH": f"{stand_ins}:{os.environ['PATH']}",
            "CALLS": str(tmp_path / "calls"),
            "JOB_STATE": "RUNNING",
            "SLURM_JOB_ID": str(free_port() - 20000),
            "SLURM_JOB_NODELIST": "node[1-2]",
            "SLURM_SUBMIT_DIR": str(tmp_path),
            "SLURM_CPUS_PER_TASK": "1",
            "KDSEARCH_STORAGE": str(tmp_path / "runs"),
            "KDSEARCH_PROGRAMS": str(PROGRAMS),
            **variables,
        }
        output = tmp_path / f"output-{len(started)}"
        with output.open("wb") as file:
            process = subprocess.Popen(
                ["bash", str(SCRIPT), *arguments],
                cwd=tmp_path,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
            )
        started.append(Job(process, output, tmp_path / "runs"))
        return started[-1]

    yield start
    for each in started:
        if each.process.poll() is None:
            each.process.terminate()
            each.process.wait(timeout=60)


def untouched(environment: Mapping[str, str]) -> dict[str, str]:
    """Without what `import ray` leaves in the environment of this process: it would forbid clusters of two nodes."""
    kept = ("RAY_TMPDIR", "RAY_USAGE_STATS_ENABLED", "RAY_worker_niceness")
    return {
        name: value for name, value in environment.items() if name in kept or not name.startswith(("RAY_", "SLURM_"))
    }


def free_port() -> int:
    """A port of the range that slurm.sh takes Ray's from: 20000 and the job's number modulo 6000."""
    for port in random.sample(range(20000, 26000), 50):
        with socket.socket() as probe:
            if probe.connect_ex(("localhost", port)) != 0:
                return port
    raise AssertionError("no free port")


def calls(folder: Path, program: str) -> list[str]:
    return [line for line in (folder / "calls").read_text().splitlines() if line.startswith(program)]


def status(folder: Path, run: str) -> dict[str, Any]:
    command = [str(PROGRAMS / "kdsearch"), "status", run, "--storage", str(folder / "runs"), "--json"]
    shown: dict[str, Any] = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    return shown


def addresses(folder: Path) -> list[str]:
    """Where the Ray heads of the jobs so far were, as their workers were told."""
    return re.findall(r"--address=(\S+)", (folder / "calls").read_text())


def processes_of(folder: Path) -> list[str]:
    """Command lines of processes that were told one of those addresses."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        found += [line for address in addresses(folder) if address in line]
    return found


@pytest.mark.slow
def test_trials_that_share_gpus_do_so_through_mps_which_ends_with_the_job(job: Start, tmp_path: Path) -> None:
    line = ("search", "ips", *SMALL, "--name", "shared", "--gpus-per-trial", "0.5")
    number = str(free_port() - 20000)
    gpus = {"SLURM_GPUS_ON_NODE": "2", "CUDA_VISIBLE_DEVICES": "3,5", "SLURM_JOB_ID": number}
    started = job(*line, "--cpus-per-trial", "0.5", **gpus)
    output = started.wait(150)
    assert started.process.returncode == 0, output
    assert status(tmp_path, "shared")["state"] == "COMPLETE"
    assert "2 trials share a GPU, through NVIDIA MPS" in output
    folders = [f"/tmp/kdsearch-{number}-{node}" for node in ("first", "second")]
    begun = sorted(line for line in calls(tmp_path, "mps begins"))
    assert begun == [f"mps begins in {folder} with GPU-name-of-3,GPU-name-of-5" for folder in folders]
    ended = sorted(line for line in calls(tmp_path, "mps is told"))
    assert ended == [f"mps is told quit in {folder}" for folder in folders]
    assert not any(Path(folder).exists() for folder in folders)
    assert processes_of(tmp_path) == []


@pytest.mark.parametrize(
    ("line", "shares"),
    [
        ("search kd", False),
        ("search kd --gpus-per-trial 0.25", True),
        ("search kd --gpus-per-trial=auto", True),
        ("search kd --gpus-per-trial .5", True),
        ("search kd --gpus-per-trial 1", False),
        ("search kd --gpus-per-trial 0", False),
        ("search kd --gpus-per-trial 0.0", False),
        ("search kd --set resources.gpus_per_trial=0.5", True),
        ("search kd --set", False),
        ("search commented.yaml", False),
        ("search shared.yaml --trials 8", True),
        ("search shared.yaml --gpus-per-trial 1", False),
        ("resume run", True),
        ("resume nothing", False),
    ],
)
def test_mps_is_for_jobs_whose_trials_share_gpus(tmp_path: Path, line: str, shares: bool) -> None:
    (tmp_path / "commented.yaml").write_text("resources:\n  cpus_per_trial: 1   # on a GPU: gpus_per_trial: 0.25\n")
    (tmp_path / "shared.yaml").write_text("resources: {cpus_per_trial: 1, gpus_per_trial: 0.25}\n")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "experiment.yaml").write_text("resources:\n  gpus_per_trial: 0.125\n")
    text = SCRIPT.read_text()
    function = text[text.index("shares_gpus() {") : text.index("\n}\n", text.index("shares_gpus() {")) + 3]
    script = f"set -u; storage={tmp_path}\n{function}\nshares_gpus {line}"
    done = subprocess.run(["bash", "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.stderr == ""
    assert done.returncode == (0 if shares else 1)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_preempted_job_goes_back_into_the_queue_and_then_on_with_its_run_and_leaves_nothing_running(
    job: Start, tmp_path: Path
) -> None:
    """On all its nodes, both times."""
    arguments = ("search", "ips", "--trials", "2", "--max-epochs", "6", "--scheduler", "none", "--name", "long")
    started = job(*arguments)
    trials = tmp_path / "runs" / "long" / "trials"
    started.wait_for(lambda: any(trials.glob("0000/*")))
    # What --signal=B:USR1@… does: the batch script alone gets it.
    started.process.send_signal(signal.SIGUSR1)
    output = started.wait(120)
    assert started.process.returncode == 0, output
    assert status(tmp_path, "long")["state"] == "INTERRUPTED"
    assert len(calls(tmp_path, "scontrol requeue")) == 1
    assert processes_of(tmp_path) == []

    # Ray's head is elsewhere this time, as it is when Slurm gives the job other nodes.
    started = job(*arguments, SLURM_RESTART_COUNT="1")
    output = started.wait(150)
    assert started.process.returncode == 0, output
    assert "kdsearch resume long" in output
    first, second = addresses(tmp_path)
    assert first != second
    shown = status(tmp_path, "long")
    assert shown["state"] == "COMPLETE"
    assert len(calls(tmp_path, "scontrol requeue")) == 1
    assert processes_of(tmp_path) == []
    assert list((tmp_path / "runs").glob("*.token")) == []
    assert calls(tmp_path, "mps") == [], "nobody asked for a share of a GPU"
    nodes = calls(tmp_path, "srun")
    heads = [node for node in nodes if "--head" in node]
    workers = [node for node in nodes if "--head" not in node]
    assert len(heads) == len(workers) == 2
    assert all("--nodelist=first" in node for node in heads)
    assert all("--nodelist=second" in node for node in workers)
    assert all(node.count("token 600") == 1 for node in nodes), "others could read the token"


@pytest.mark.slow
def test_a_job_that_was_cancelled_does_not_come_back(job: Start, tmp_path: Path) -> None:
    started = job("search", "ips", "--trials", "3", "--max-epochs", "12", "--name", "stopped", JOB_STATE="COMPLETING")
    started.wait_for(lambda: (tmp_path / "calls").exists() and len(calls(tmp_path, "srun")) == 2)
    started.process.send_signal(signal.SIGTERM)
    output = started.wait(120)
    assert "scontrol --oneliner show job" in (tmp_path / "calls").read_text(), output
    assert "scontrol requeue" not in (tmp_path / "calls").read_text()
    assert processes_of(tmp_path) == []


def test_a_job_whose_ray_does_not_start_says_so_at_once(job: Start, tmp_path: Path) -> None:
    started = job("search", "ips", NO_START="yes")
    output = started.wait(60)
    assert started.process.returncode == 1
    assert "Ray did not start" in output
    assert list((tmp_path / "runs").glob("*.token")) == []
    assert "scontrol requeue" not in (tmp_path / "calls").read_text()


@pytest.mark.parametrize(
    ("arguments", "variables", "sentence"),
    [
        ((), {"SLURM_JOB_ID": ""}, "this is a job for Slurm: sbatch launch/slurm.sh"),
        (("methods",), {}, "'methods' is not what a job is for"),
        (("search", "kd", "--storage=/tmp/x"), {}, "--storage is set by this script"),
        (("search", "kd", "--address", "auto"), {}, "--address is set by this script"),
        (("search", "kd"), {"KDSEARCH_PROGRAMS": "/nowhere"}, "there is no kdsearch in /nowhere"),
        (("search", "kd"), {"KDSEARCH_STORAGE": "/proc/runs"}, "the storage /proc/runs cannot be made"),
    ],
)
def test_what_cannot_be_is_said_before_anything_starts(
    job: Start, tmp_path: Path, arguments: tuple[str, ...], variables: dict[str, str], sentence: str
) -> None:
    started = job(*arguments, **variables)
    output = started.wait(30)
    assert started.process.returncode == 2
    assert sentence in output
    assert not (tmp_path / "calls").exists()


def test_only_the_marked_block_is_for_a_person_to_change() -> None:
    """Slurm reads directives up to the first command, so all of them stand before one."""
    lines = SCRIPT.read_text().splitlines()
    directives = [number for number, line in enumerate(lines) if line.startswith("#SBATCH")]
    first_command = next(number for number, line in enumerate(lines) if line and not line.startswith("#"))
    assert directives
    assert directives[-1] < first_command
    assert [line for line in lines if 'ray" stop' in line or line.lstrip().startswith("ray stop")] == []
