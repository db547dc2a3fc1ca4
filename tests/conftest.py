"""What all tests share: one thread a process, Ray in a folder of its own, the command line as a person has it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import hypothesis
import pytest

# Read when torch and numpy are first imported: two cores with two threads each are slower than with one.
for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(_name, "1")
# Ray gives trials a low priority: beside the other half of the tests, on the same cores, they would hardly start.
os.environ.setdefault("RAY_worker_niceness", "0")

Cli = Callable[..., "subprocess.CompletedProcess[str]"]

# For commands of tests that are no test of what runs side by side: each trial's process imports torch and Tune, which
# takes more of a core than what it then trains.
ONE_CPU = {"RAY_OVERRIDE_RESOURCES": '{"CPU": 1}'}


def of_commands() -> dict[str, str]:
    """The environment in which tests run commands: a person's own storage does not reach them."""
    return {name: value for name, value in os.environ.items() if name != "KDSEARCH_STORAGE"} | ONE_CPU


# Continuous integration sets it: there everything must run that can, so a test that is skipped fails.
NO_SKIPS = bool(os.environ.get("KDSEARCH_CI"))


@pytest.fixture(scope="session", autouse=True)
def ray_folder() -> Iterator[Path]:
    """Ray's sockets and logs: apart from other programs', gone at the end.

    Not pytest's own temporary folder: the path of a socket may have 107 bytes, and Ray's part of it takes 70.
    """
    folder = Path(tempfile.mkdtemp(prefix="kdr", dir="/tmp"))
    before = os.environ.get("RAY_TMPDIR")
    os.environ["RAY_TMPDIR"] = str(folder)
    yield folder
    if before is None:
        del os.environ["RAY_TMPDIR"]
    else:
        os.environ["RAY_TMPDIR"] = before
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(autouse=True)
def same_draws() -> None:
    """Each test draws the same numbers whenever it runs, alone or after others: what fails once fails again.

    torch only where the test's own module has imported it: that takes seconds.
    """
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(0)


@pytest.fixture(scope="session")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of runs that lives as long as the session, for tests that read what an earlier search left."""
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="session")
def cli() -> Cli:
    """`cli("search", "ips", cwd=folder)`: the installed console script in a process of its own, its output captured.

    A Ray that it starts has one CPU. `env` adds variables; `KDSEARCH_STORAGE` of the caller's does not reach it.
    """
    script = Path(sys.executable).with_name("kdsearch")

    def run(
        *arguments: str, cwd: Path, timeout: float = 280, env: dict[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(script), *arguments],
            cwd=cwd,
            env=of_commands() | (env or {}),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    return run


def pytest_configure(config: pytest.Config) -> None:
    # A verdict on a change must not depend on what is drawn; new examples are sought on people's machines.
    hypothesis.settings.register_profile("verdict", derandomize=True)
    if NO_SKIPS:
        hypothesis.settings.load_profile("verdict")
    config.addinivalue_line("markers", "needs_gpu: skipped where torch sees no GPU, in continuous integration too")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with many slow tests come first, each file whole.

    Files are tested two at a time, in the order of the collection (`--no-loadscope-reorder`): were a long one the last,
    one process would wait for the other.
    """
    slow = Counter(item.path for item in items if item.get_closest_marker("slow"))
    items.sort(key=lambda item: -slow[item.path])


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("needs_gpu"):
        import torch

        if not torch.cuda.is_available():
            pytest.skip("needs a GPU")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    report = yield
    # An expected failure is reported as skipped too: it did run.
    if not hasattr(report, "wasxfail") and not item.get_closest_marker("needs_gpu"):
        _fail_if_skipped(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Iterator[None]:
    report = yield
    _fail_if_skipped(report)
    return report


def _fail_if_skipped(report: pytest.TestReport | pytest.CollectReport) -> None:
    if NO_SKIPS and report.skipped:
        report.outcome = "failed"
        report.longrepr = f"skipped, though nothing here may be: {report.longrepr}"
