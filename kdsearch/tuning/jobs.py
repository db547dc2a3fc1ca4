"""Jobs of a Ray cluster, seen from outside: submit, list, follow, stop."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from kdsearch.errors import UnknownName, UserError
from kdsearch.tuning.admission import refused

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

DEFAULT_ADDRESS = "http://localhost:8265"
"""Where `ray dashboard` and `kubectl port-forward` bring a cluster's head to."""
ADDRESS, OTHER_ADDRESS = "RAY_API_SERVER_ADDRESS", "RAY_ADDRESS"
GRACE = "RAY_JOB_STOP_WAIT_TIME_S"
"""What Ray calls the seconds between the SIGTERM and the SIGKILL of a job that is stopped; 3 where nobody says more.
It is read by the job's own supervisor, so that a job can bring it along."""
GRACE_SECONDS = 3600
"""Running epochs end, and write their checkpoints, within that time; else they are lost."""
CONNECT_SECONDS = 10.0

RUN = "kdsearch_run"
"""Under this name Ray keeps the run that a job is for."""


@dataclass(frozen=True)
class Job:
    """A job as the head of the cluster tells it."""

    name: str
    state: str
    """PENDING, RUNNING, STOPPED, SUCCEEDED or FAILED."""
    run: str | None
    command: str
    started: float | None
    """Seconds since 1970."""
    ended: float | None
    message: str | None
    """Ray's own words about the state."""

    @property
    def over(self) -> bool:
        return self.state in ("STOPPED", "SUCCEEDED", "FAILED")

    def document(self) -> dict[str, Any]:
        return {
            "job": self.name,
            "state": self.state,
            "run": self.run,
            "command": self.command,
            "started": self.started,
            "ended": self.ended,
            "message": self.message,
        }


class Jobs:
    """The jobs of one cluster.

    Args:
        address: of the head's dashboard, `http://head:8265`; None: what the environment says (RAY_API_SERVER_ADDRESS,
            RAY_ADDRESS), or the port of this machine that tunnels to clusters lead to.

    The token is Ray's affair: RAY_AUTH_MODE=token with RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH. Raises UserError where
    no cluster answers or the token is not the cluster's.
    """

    def __init__(self, address: str | None = None) -> None:
        from ray.job_submission import JobSubmissionClient

        # Else Ray tells on standard error what it uploads.
        for name in ("ray.dashboard.modules.dashboard_sdk", "ray.dashboard.modules.job.sdk", "ray._private"):
            logging.getLogger(name).setLevel(logging.ERROR)
        self.address = address_of(address)
        with self._explained(), _as_asked(self.address):
            _reach(self.address)
            self._client = JobSubmissionClient(self.address)

    def submit(
        self, command: str, *, name: str, run: str, folder: Path | None = None, environment: Mapping[str, str]
    ) -> Job:
        """Start a job; it goes on whatever becomes of this process.

        Args:
            command: for the shell of the head.
            name: of the job; where there is such a job already, a number is added.
            run: what the job is for.
            folder: what travels along and is the folder that the command runs in.
            environment: variables for the job's processes.
        """
        taken = {job.name for job in self.all()}
        names = (name, *(f"{name}.{number}" for number in range(2, len(taken) + 3)))
        free = next(candidate for candidate in names if candidate not in taken)
        surroundings: dict[str, Any] = {"env_vars": {GRACE: str(GRACE_SECONDS), **environment}}
        if folder is not None:
            surroundings["working_dir"] = str(folder)
        with self._explained():
            self._client.submit_job(
                entrypoint=command, submission_id=free, runtime_env=surroundings, metadata={RUN: run}
            )
        return self.find(free)

    def all(self) -> list[Job]:
        """The jobs that were submitted to the cluster since it started, the newest last."""
        with self._explained():
            found = [_job(details) for details in self._client.list_jobs() if details.submission_id]
        return sorted(found, key=lambda job: job.started or 0)

    def find(self, name: str) -> Job:
        """One job. Raises UnknownName, which lists those that there are."""
        jobs = self.all()
        for job in jobs:
            if job.name == name:
                return job
        known = [job.name for job in jobs]
        raise UnknownName("job", name, known, f"at {self.address}" if known else f"({self.address} has no jobs)")

    def logs(self, name: str) -> str:
        """What a job has printed so far."""
        self.find(name)
        with self._explained():
            return str(self._client.get_job_logs(name))

    def follow(self, name: str, write: Callable[[str], None]) -> Job:
        """Hand over what a job prints, from its beginning, as it is printed; the job at its end.

        Raises UserError when the connection is lost; the job goes on.
        """
        self.find(name)
        with self._explained():
            try:
                asyncio.run(self._tail(name, write))
            except (RuntimeError, OSError) as error:  # aiohttp's errors are OSErrors, or Ray wraps them
                why = _first_line(error)
                raise UserError(f"the connection to {self.address} was lost ({why}); the job goes on") from None
        return self.find(name)

    async def _tail(self, name: str, write: Callable[[str], None]) -> None:
        async for text in self._client.tail_job_logs(name):
            write(text)

    def stop(self, name: str) -> Job:
        """Ask a job to end, with SIGTERM. Returns at once, with the job as it was; what is over stays as it is."""
        job = self.find(name)
        if not job.over:
            with self._explained():
                self._client.stop_job(name)
        return job

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        """Turn what Ray raises into a sentence."""
        from ray.exceptions import AuthenticationError

        try:
            yield
        except AuthenticationError:
            raise UserError(refused(self.address)) from None
        except (OSError, RuntimeError, ValueError) as error:  # those of requests are OSErrors
            raise UserError(f"no Ray cluster takes jobs at {self.address}: {_first_line(error)}") from None


def address_of(given: str | None) -> str:
    """What is meant: what is given, else what the environment says, else the end of a tunnel on this machine."""
    if given is not None and "://" not in given and given != "auto":
        return f"http://{given}"
    return given or os.environ.get(ADDRESS) or os.environ.get(OTHER_ADDRESS) or DEFAULT_ADDRESS


@contextlib.contextmanager
def _as_asked(address: str) -> Iterator[None]:
    """Ray lets the environment override its argument; here an address that is given comes first."""
    before = os.environ.get(ADDRESS)
    os.environ[ADDRESS] = address
    try:
        yield
    finally:
        os.environ.pop(ADDRESS)
        if before is not None:
            os.environ[ADDRESS] = before


def _reach(address: str) -> None:
    """Raise ConnectionError where nobody listens. Ray would wait for minutes for a host that does not answer."""
    place = urlsplit(address)
    if place.scheme not in ("http", "https"):
        return  # Ray's own addresses: it asks the cluster where its dashboard is
    try:
        port = place.port or (443 if place.scheme == "https" else 80)
        socket.create_connection((place.hostname or "", port), CONNECT_SECONDS).close()
    except OSError as error:
        raise ConnectionError(error.strerror or str(error)) from None


def _job(details: Any) -> Job:
    """What Ray tells of a job, in our words and in seconds."""
    started, ended = (time / 1000 if time else None for time in (details.start_time, details.end_time))
    run = (details.metadata or {}).get(RUN)
    return Job(details.submission_id, str(details.status), run, details.entrypoint, started, ended, details.message)


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
