"""Objects at a URL, the lease that locks a run there, and the copies that are read."""

from __future__ import annotations

import json
import subprocess
import sys
import time
import urllib.request
from typing import TYPE_CHECKING

import boto3
import pytest

from kdsearch.errors import LeaseLost, RunError, StorageError
from kdsearch.results import Results, find_run, lease, list_runs
from kdsearch.results.copies import Home, home_of
from kdsearch.results.lease import Lease
from kdsearch.results.remote import Remote, is_url
from tests.results.build_run import sample_run

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.storage.conftest import Server


@pytest.fixture(autouse=True)
def short_settling(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "SETTLE_SECONDS", 0.0)


def put(remote: Remote, folder: Path) -> None:
    """Lay a run's files at the URL."""
    for path in folder.rglob("*"):
        if path.is_file():
            remote.write(path.relative_to(folder).as_posix(), path.read_bytes())


@pytest.fixture
def run(remote: Remote, tmp_path: Path) -> Remote:
    """A run at the URL, which no machine has a copy of."""
    folder = sample_run(tmp_path / "elsewhere" / "kd-digits").folder
    put(remote / "kd-digits", folder)
    return remote / "kd-digits"


def test_objects_are_put_listed_read_and_removed_by_name(remote: Remote) -> None:
    remote.check(writable=True)
    assert remote.entries() == {}
    (remote / "run").write("trials/0001/last.ckpt", b"four")
    (remote / "run").write("experiment.yaml", b"")
    assert {name: entry.size for name, entry in (remote / "run").entries().items()} == {
        "trials/0001/last.ckpt": 4,
        "experiment.yaml": 0,
    }
    assert set((remote / "run").entries(deep=False)) == {"experiment.yaml"}
    assert remote.folders() == ["run"]
    assert remote.read("run/trials/0001/last.ckpt") == b"four"
    remote.delete("run/trials/0001/last.ckpt")
    remote.delete("run/trials/0001/last.ckpt")
    assert remote.read("run/trials/0001/last.ckpt") is None


@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        ("ftp://host/runs", "'ftp://host/runs': kdsearch writes to s3://"),
        ("s3:///runs", "names no bucket"),
        ("s3://KEY:SECRET@bucket/runs", "'s3://bucket/runs': keep keys out of the URL"),
        ("s3://bucket/runs?colour=blue&region=us-east-1", "s3://bucket/runs cannot be reached: .*colour"),
    ],
)
def test_a_url_that_is_no_storage_is_refused_in_a_sentence(url: str, sentence: str) -> None:
    assert is_url(url)
    with pytest.raises(StorageError, match=sentence) as told:
        Remote.at(url).check()
    assert "SECRET" not in str(told.value)
    assert "\n" not in str(told.value)


def test_a_bucket_that_does_not_exist_is_named(server: Server) -> None:
    remote = Remote.at(server.url("runs").replace("bucket", "bouquet"))
    with pytest.raises(StorageError, match="there is no bucket 'bouquet'"):
        remote.check()


@pytest.fixture
def suspicious(server: Server) -> Iterator[None]:
    """The server asks for credentials, of which it knows none."""

    def allow(count: str) -> None:
        address = f"http://127.0.0.1:{server.port}/moto-api/reset-auth"
        headers = {"Content-Type": "text/plain"}
        urllib.request.urlopen(urllib.request.Request(address, count.encode(), headers, method="POST")).close()

    allow("0")
    yield
    allow("inf")


def test_wrong_credentials_are_said_to_be_wrong(suspicious: None, url: str) -> None:
    with pytest.raises(StorageError, match=r"cannot be reached: access is denied .* check the credentials") as told:
        Remote.at(url).check()
    assert "testing-secret" not in str(told.value)


def test_the_endpoint_may_stand_in_the_environment(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.port}")
    Remote.at("s3://bucket/by-environment?region=us-east-1").write("file", b"here")
    assert Remote.at(server.url("by-environment")).read("file") == b"here"


def test_only_what_changed_is_fetched_again(run: Remote, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    deadline = time.time() + 20
    while time.time_ns() - max(entry.changed for entry in run.entries().values()) < 3_000_000_000:
        assert time.time() < deadline
        time.sleep(0.1)  # younger objects are read twice: the store's clock ticks in seconds
    run.pull(tmp_path / "copy", lambda name: True)
    read: list[str] = []
    original = Remote.read
    monkeypatch.setattr(Remote, "read", lambda self, name: read.append(name) or original(self, name))
    run.pull(tmp_path / "copy", lambda name: True)
    assert read == []
    run.write("study.journal", b"longer than it was\n" * 1000)
    run.pull(tmp_path / "copy", lambda name: True)
    assert read == ["study.journal"]
    assert (tmp_path / "copy" / "study.journal").read_bytes() == b"longer than it was\n" * 1000


def test_no_name_at_the_url_leads_out_of_a_copy(server: Server, run: Remote, tmp_path: Path) -> None:
    client = boto3.client("s3", endpoint_url=f"http://127.0.0.1:{server.port}", region_name="us-east-1")
    prefix = run.url.partition("bucket/")[2].partition("?")[0]
    for name in ("../outside", "a/../../outside", ".hidden"):
        client.put_object(Bucket="bucket", Key=f"{prefix}/kd-digits/{name}", Body=b"no")
    run.pull(tmp_path / "inner" / "copy", lambda name: True)
    names = {path.relative_to(tmp_path / "inner").as_posix() for path in (tmp_path / "inner").rglob("*")}
    assert all(name == "copy" or name.startswith("copy/") for name in names)
    assert not any("hidden" in name or "outside" in name for name in names)


def test_a_second_driver_is_refused_with_the_time_until_which_the_lease_runs(remote: Remote, tmp_path: Path) -> None:
    first = Lease(remote / "run", tmp_path)
    first.acquire()
    expires = json.loads((remote / "run").read(lease.FILE) or b"")["expires"]
    until = time.strftime("%H:%M:%S", time.localtime(expires))
    assert time.time() < expires <= time.time() + lease.LEASE_SECONDS
    with pytest.raises(RunError, match=f"in use by another process, whose lease runs until {until}"):
        Lease(remote / "run", tmp_path).acquire()
    first.release()
    Lease(remote / "run", tmp_path).acquire()


def test_a_lease_that_ran_out_is_taken_over_and_its_holder_stops(remote: Remote, tmp_path: Path) -> None:
    first, second = Lease(remote / "run", tmp_path), Lease(remote / "run", tmp_path)
    first.acquire()
    expire(remote / "run")
    assert not second.acquire()
    with pytest.raises(LeaseLost, match="another process took over"):
        first.renew(now=True)
    first.release()
    second.renew(now=True)


def test_a_holder_that_slept_keeps_the_lease_that_nobody_took(
    remote: Remote, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = Lease(remote / "run", tmp_path)
    first.acquire()
    now = time.time() + 3600
    monkeypatch.setattr(time, "time", lambda: now)
    assert not lease.parse((remote / "run").read(lease.FILE)).holds  # type: ignore[union-attr]
    first.renew()
    assert lease.parse((remote / "run").read(lease.FILE)).holds  # type: ignore[union-attr]


def test_of_two_that_write_a_lease_at_once_the_first_writer_gives_way(
    remote: Remote, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = Lease(remote / "run", tmp_path), Lease(remote / "run", tmp_path)
    monkeypatch.setattr(time, "sleep", lambda seconds: second._write(lease.LEASE_SECONDS))
    with pytest.raises(RunError, match="in use by another process"):
        first.acquire()


def test_this_machines_dead_driver_need_not_be_waited_for(remote: Remote, tmp_path: Path) -> None:
    crashed = Lease(remote / "run", tmp_path)
    crashed.acquire()
    crashed.keep()
    again = Lease(remote / "run", tmp_path)
    assert again.acquire(), "its copy is the newest"
    (tmp_path / "elsewhere").mkdir()
    with pytest.raises(RunError, match="in use"):
        Lease(remote / "run", tmp_path / "elsewhere").acquire()


def expire(run: Remote) -> None:
    """As if the holder of the lease had been silent for long."""
    content = json.loads(run.read(lease.FILE) or b"")
    run.write(lease.FILE, json.dumps(content | {"expires": time.time() - 1}).encode())


def test_runs_at_a_url_are_found_by_name_and_read_from_a_copy(run: Remote, url: str, tmp_path: Path) -> None:
    folder = find_run("kd-digits", url)
    ours, theirs = Results(folder), Results(tmp_path / "elsewhere" / "kd-digits")
    assert ours.status() == theirs.status()
    assert len(ours.trials) > 3
    assert [path.name for path in list_runs(url)] == ["kd-digits"]
    home = home_of(folder)
    assert home is not None
    assert home.remote == Remote.at(url)
    with pytest.raises(RunError, match=r"unknown run 'kd-digit'; did you mean 'kd-digits'"):
        find_run("kd-digit", url)


def test_a_copy_says_that_the_run_goes_on_while_its_lease_holds(run: Remote, url: str, tmp_path: Path) -> None:
    journal = (tmp_path / "elsewhere" / "kd-digits" / "study.journal").read_text().splitlines(keepends=True)
    running = "".join(
        line for line in journal if '"state": "COMPLETE"' not in line and '"state":"COMPLETE"' not in line
    )
    run.write("study.journal", running.encode())
    Lease(run, tmp_path).acquire()
    assert Results(find_run("kd-digits", url)).state == "RUNNING"
    expire(run)
    assert Results(find_run("kd-digits", url)).state == "CRASHED"


def test_what_the_url_holds_no_more_leaves_the_copy_too(run: Remote, url: str) -> None:
    run.write("confirm.json", b"{}")
    run.write("best/old.png", b"picture")
    folder = find_run("kd-digits", url)
    assert (folder / "confirm.json").is_file()
    assert (folder / "best" / "old.png").is_file()
    run.delete("confirm.json")
    run.delete("best/old.png")
    assert find_run("kd-digits", url) == folder
    assert not (folder / "confirm.json").exists()
    assert not (folder / "best" / "old.png").exists()


def test_keys_are_in_no_file_of_a_copy(run: Remote, url: str) -> None:
    home = Home(url)
    find_run("kd-digits", url)
    texts = [path.read_bytes() for path in home.folder.rglob("*") if path.is_file()]
    assert len(texts) > 2
    assert not any(b"testing-secret" in text for text in texts)


def test_reading_a_folder_imports_no_pyarrow_and_reading_a_url_neither_ray_nor_torch(run: Remote, url: str) -> None:
    code = """
import sys
from kdsearch.results import Results, list_runs
list_runs("nowhere")
assert "pyarrow" not in sys.modules
assert len(list_runs(sys.argv[1])) == 1
assert not {"torch", "ray", "optuna", "boto3"} & set(sys.modules)
"""
    ended = subprocess.run([sys.executable, "-c", code, url], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
