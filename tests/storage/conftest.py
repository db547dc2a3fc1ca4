"""A local S3 server, and a Ray whose processes may use it."""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING

import pytest
import ray
from moto.server import ThreadedMotoServer

from kdsearch.results.remote import Remote
from kdsearch.tuning.pool import ENVIRONMENT
from tests.faults import driver

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "testing",
    "AWS_SECRET_ACCESS_KEY": "testing-secret",
    "AWS_EC2_METADATA_DISABLED": "true",
    "AWS_CONFIG_FILE": os.devnull,
    "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
}


class Server:
    """A store that can go away and come back with what it held."""

    def __init__(self) -> None:
        logging.getLogger("werkzeug").setLevel(logging.ERROR)
        self._server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
        self._server.start()
        self.port = self._server.get_host_and_port()[1]
        import boto3

        client = boto3.client("s3", endpoint_url=f"http://127.0.0.1:{self.port}", region_name="us-east-1")
        client.create_bucket(Bucket="bucket")

    def url(self, prefix: str) -> str:
        return f"s3://bucket/{prefix}?endpoint_override=127.0.0.1:{self.port}&scheme=http&region=us-east-1"

    def go_away(self) -> None:
        self._server.stop()

    def come_back(self) -> None:
        self._server = ThreadedMotoServer(ip_address="127.0.0.1", port=self.port, verbose=False)
        self._server.start()


@pytest.fixture(scope="session")
def environment() -> Iterator[None]:
    """Credentials, for this process and those that it starts."""
    before = {name: os.environ.get(name) for name in CREDENTIALS}
    os.environ.update(CREDENTIALS)
    yield
    for name, value in before.items():
        os.environ.pop(name) if value is None else os.environ.update({name: value})


@pytest.fixture(scope="session")
def server(environment: None) -> Iterator[Server]:
    found = Server()
    yield found
    found.go_away()


@pytest.fixture
def url(server: Server, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A storage of this test's own; working copies lie below `tmp_path`."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return server.url(f"{tmp_path.parent.name}-{tmp_path.name}/runs")


@pytest.fixture
def remote(url: str) -> Remote:
    return Remote.at(url)


@pytest.fixture(scope="module")
def cluster(environment: None) -> Iterator[str]:
    """A local Ray with two CPUs; its address."""
    driver.ship()
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield str(ray.get_runtime_context().gcs_address)
    ray.shutdown()
