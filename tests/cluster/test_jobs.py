"""Searches as jobs of a real Ray head on this machine, behind its token: submitted, listed, followed, stopped."""

from __future__ import annotations

import json
import os
import secrets
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest

from kdsearch.results import Results
from kdsearch.tuning.admission import other_versions

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.conftest import Cli

pytestmark = pytest.mark.slow

PROGRAMS = Path(sys.executable).parent

MY_DATA = """
import numpy as np
import sizes

def made():
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (sizes.SAMPLES, 8, 8), dtype=np.uint8)
    return images, np.arange(sizes.SAMPLES) % 2
"""
# An epoch has five steps of training alone: while the file is there it takes longer than Ray's own grace, 3 s.
MY_NET = """
import pathlib
import time
import torch

class Slow(torch.nn.Linear):
    def forward(self, images):
        if pathlib.Path({slow!r}).exists():
            time.sleep(1)
        return super().forward(images.flatten(1))

def build(classes):
    return Slow(64, classes)
"""
SPACE = """
method: ce
data: my_data.py:made
student: %s
space: {learning_rate: {low: 0.01, high: 0.3, log: true}}
training: {epochs: %d, batch_size: 8}
search: {trials: %d, grace_period: 1}
resources: {gpus_per_trial: 0}
"""


@dataclass(frozen=True)
class Head:
    """A Ray head with a dashboard, as a person reaches it."""

    address: str
    place: str
    """Where a search joins it."""
    token: Path
    storage: Path

    @property
    def environment(self) -> dict[str, str]:
        return {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(self.token)}


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@pytest.fixture(scope="module")
def head(ray_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Head]:
    """Ray under a token, with one CPU, its own ports and folder, and a storage that its jobs know of."""
    folder = tmp_path_factory.mktemp("head")
    token, dashboard = folder / "token", free_port()
    token.write_text(secrets.token_hex(32))
    token.chmod(0o600)
    port = free_port()
    found = Head(f"http://127.0.0.1:{dashboard}", f"127.0.0.1:{port}", token, folder / "runs")
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "KDSEARCH_"))}
    own = {"PATH": f"{PROGRAMS}:{os.environ['PATH']}", "KDSEARCH_STORAGE": str(found.storage), "HOME": str(folder)}
    own["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"  # stays on the loopback interface
    own["PYTHONUNBUFFERED"] = "1"  # its log is read while it runs
    with (folder / "ray.log").open("wb") as log:
        ray = subprocess.Popen(
            [
                *(PROGRAMS / "ray", "start", "--head", "--block", "--num-cpus=1", "--node-ip-address=127.0.0.1"),
                *(f"--port={port}", f"--dashboard-port={dashboard}", "--dashboard-agent-listen-port=0"),
                *(f"--ray-client-server-port={free_port()}", "--disable-usage-stats"),
                *(f"--temp-dir={ray_folder / 'head'}",),
            ],
            env=inherited | own | found.environment,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        wait_for(lambda: "Ray runtime started" in (folder / "ray.log").read_text() or ray.poll() is not None)
        assert ray.poll() is None, (folder / "ray.log").read_text()
        wait_for(lambda: listens(dashboard))
        yield found
    finally:
        ray.terminate()
        try:
            ray.wait(60)
        except subprocess.TimeoutExpired:
            ray.kill()
            ray.wait()


def wait_for(condition: Callable[[], bool], seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never came to that"
        time.sleep(0.1)


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture
def laptop(tmp_path: Path) -> Path:
    """A folder with a person's files."""
    (tmp_path / "my_data.py").write_text(MY_DATA)
    (tmp_path / "sizes.py").write_text("SAMPLES = 60\n")
    (tmp_path / "my_net.py").write_text(MY_NET.format(slow=str(tmp_path / "slow")))
    (tmp_path / "short.yaml").write_text(SPACE % ("resnet8", 1, 2))
    (tmp_path / "long.yaml").write_text(SPACE % ("my_net.py:build", 100_000, 2))
    (tmp_path / "private.txt").write_text("not for the cluster")
    return tmp_path


def asked(cli: Cli, head: Head, folder: Path, *arguments: str) -> dict[str, Any]:
    """What a command answers in JSON."""
    answer = cli(*arguments, "--json", "--address", head.address, cwd=folder, env=head.environment)
    assert answer.returncode == 0, answer.stdout + answer.stderr
    document: dict[str, Any] = json.loads(answer.stdout)
    return document


def test_a_search_is_submitted_with_the_files_that_are_named_followed_to_its_end_and_listed(
    head: Head, laptop: Path, cli: Cli
) -> None:
    flags = ("short.yaml", "--with", "sizes.py", "--name", "short", "--allow-code")
    submitted = asked(cli, head, laptop, "submit", *flags)
    assert submitted["files"] == ["my_data.py", "short.yaml", "sizes.py"]
    followed = cli("logs", "short", "-f", cwd=laptop, env={**head.environment, "RAY_API_SERVER_ADDRESS": head.address})
    assert followed.returncode == 0, followed.stdout + followed.stderr
    assert "2/2 ended" in followed.stdout
    run = Results(head.storage / "short")
    assert (run.state, len(run.trials)) == ("COMPLETE", 2)
    (kept,) = (head.storage / ".submitted").iterdir()
    assert run.experiment["data"]["name"] == f"{kept / 'my_data.py'}:made", "the run is resumed from where nodes see it"
    assert sorted(path.name for path in kept.iterdir() if path.suffix != ".pyc") == submitted["files"]
    (listed,) = [job for job in asked(cli, head, laptop, "jobs")["jobs"] if job["job"] == "short"]
    assert (listed["state"], listed["run"]) == ("SUCCEEDED", "short")
    assert asked(cli, head, laptop, "logs", "short")["logs"].expandtabs() == followed.stdout


def test_a_stopped_job_leaves_a_run_that_another_job_goes_on_with(head: Head, laptop: Path, cli: Cli) -> None:
    (laptop / "slow").touch()
    flags = ("long.yaml", "--with", "sizes.py", "--name", "long", "--allow-code")
    assert asked(cli, head, laptop, "submit", *flags)["state"] in ("PENDING", "RUNNING")
    wait_for(lambda: epochs(head, "long") > 0)
    stopped = asked(cli, head, laptop, "stop", "long")
    assert (stopped["state"], stopped["was_over"]) == ("STOPPED", False)
    run = Results(head.storage / "long")
    assert (run.state, run.why) == ("INTERRUPTED", "interrupted by SIGTERM")
    assert (run.folder / "trials" / "0000" / "last.ckpt").is_file()
    before = epochs(head, "long")
    (laptop / "slow").unlink()
    assert asked(cli, head, laptop, "submit", "--resume", "long", "--allow-code")["job"] == "long.2"
    wait_for(lambda: epochs(head, "long") > before)
    again = cli("stop", "long.2", "--address", head.address, cwd=laptop, env=head.environment)
    assert again.returncode == 0, again.stderr
    assert again.stdout.splitlines()[-2:] == ["long.2 has ended: stopped", "Go on with:  kdsearch submit --resume long"]
    assert Results(head.storage / "long").state == "INTERRUPTED"
    assert_counted_on(head.storage / "long")
    over = asked(cli, head, laptop, "stop", "long.2")
    assert (over["state"], over["was_over"]) == ("STOPPED", True)


def epochs(head: Head, run: str) -> int:
    """Epochs of the first trial that the run has recorded."""
    folder = head.storage / run
    if not (folder / "study.journal").exists():
        return 0
    trials = Results(folder).trials
    return trials[0].epochs if trials else 0


def assert_counted_on(run: Path) -> None:
    """Each epoch of the first trial was told once: the second job went on from where the first was stopped."""
    logs = [json.loads(line) for line in (run / "study.journal").read_text().splitlines()]
    told = [log["step"] for log in logs if log["op_code"] == 7 and log["trial_id"] == 0]
    assert told == list(range(1, len(told) + 1))


def test_a_job_that_fails_says_so_to_who_follows_it(head: Head, laptop: Path, cli: Cli) -> None:
    """The file that my_data.py imports was not named, so it did not travel."""
    submitted = asked(cli, head, laptop, "submit", "short.yaml", "--name", "alone", "--allow-code")
    assert submitted["files"] == ["my_data.py", "short.yaml"]
    followed = cli("logs", "alone", "-f", "--address", head.address, cwd=laptop, env=head.environment)
    assert followed.returncode == 1
    assert "No module named 'sizes'" in followed.stdout
    assert followed.stderr == "error: job alone failed: Job entrypoint command failed with exit code 2\n"
    assert not (head.storage / "alone").exists()


def refused(cli: Cli, head: Head, folder: Path, *arguments: str, **environment: str) -> str:
    """The one sentence with which a command is refused."""
    answer = cli(*arguments, cwd=folder, env=head.environment | environment)
    assert (answer.returncode, answer.stdout) == (2, ""), answer.stdout + answer.stderr
    assert answer.stderr.startswith("error: ")
    (sentence,) = answer.stderr.splitlines()
    return sentence.removeprefix("error: ")


def test_a_wrong_token_no_such_cluster_and_no_such_job_are_told_in_a_sentence(
    head: Head, laptop: Path, cli: Cli, tmp_path: Path
) -> None:
    wrong = tmp_path / "wrong"
    wrong.write_text("0" * 64)
    at, bad = ("--address", head.address), {"RAY_AUTH_TOKEN_PATH": str(wrong)}
    refusal = f"refuses the token of {wrong}: it is not the one that the cluster was started with"
    assert refused(cli, head, laptop, "jobs", *at, **bad) == f"{head.address} {refusal}"
    assert refused(cli, head, laptop, "jobs", *at, RAY_AUTH_MODE="disabled").startswith(
        f"{head.address} refuses who shows no token: set RAY_AUTH_MODE=token"
    )
    nobody = f"http://127.0.0.1:{free_port()}"
    assert refused(cli, head, laptop, "submit", "ce", "--address", nobody) == (
        f"no Ray cluster takes jobs at {nobody}: Connection refused"
    )
    for command in ("logs", "stop"):
        assert refused(cli, head, laptop, command, "lnog", *at).startswith("unknown job 'lnog'")


def test_a_search_that_joins_a_cluster_is_told_the_same_and_does_not_wait(head: Head, tmp_path: Path) -> None:
    wrong = tmp_path / "wrong"
    wrong.write_text("0" * 64)
    command = f"""
from kdsearch.tuning.admission import check_token
from kdsearch.errors import UserError
for place in ("{head.place}", "{urlsplit(head.address).netloc}"):
    try:
        print(check_token(place))
    except (UserError, ConnectionError) as error:
        print(type(error).__name__, error)
"""

    def told(token: Path) -> list[str]:
        environment = {**os.environ, **head.environment, "RAY_AUTH_TOKEN_PATH": str(token)}
        answer = subprocess.run(
            [sys.executable, "-c", command], env=environment, capture_output=True, text=True, check=True
        )
        return answer.stdout.splitlines()

    no_head = "ConnectionError what listens there is no Ray head"
    assert told(head.token) == ["None", no_head]
    refusal = "it is not the one that the cluster was started with"
    assert told(wrong) == [f"UserError {head.place} refuses the token of {wrong}: {refusal}", no_head]
    gone = tmp_path / "gone"
    assert told(gone)[0] == f"UserError {head.place} refuses the token of {gone}: {refusal}"


def test_a_cluster_of_other_versions_is_told_with_both() -> None:
    from ray._private.utils import check_version_info, compute_version_info

    here = " ".join(
        f"{what} {version}," for what, version in zip(("Ray", "Python"), compute_version_info(), strict=True)
    )
    with pytest.raises(RuntimeError) as mismatch:
        check_version_info({"ray_version": "2.9.0", "python_version": "3.12.1"}, "127.0.0.1")
    assert str(other_versions("'head:6379'", mismatch.value)) == (
        f"the cluster at 'head:6379' has Ray 2.9.0, Python 3.12.1, and this is {here[:-1]}: install the same on both"
    )
    assert other_versions("'head:6379'", RuntimeError("something else")) is None
