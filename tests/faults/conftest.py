"""One Ray that outlives the drivers, and what a search finds when nothing befalls it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest
import ray

from kdsearch.experiment import Experiment
from kdsearch.tuning import search
from kdsearch.tuning.pool import ENVIRONMENT
from tests.faults import driver, harness
from tests.faults.objectives import FaultyObjectives

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    """A local Ray with two CPUs; its address."""
    driver.ship()
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield str(ray.get_runtime_context().gcs_address)
    ray.shutdown()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that nothing befell."""
    storage = tmp_path_factory.mktemp("whole")
    driver.ship()
    search(Experiment(**harness.EXPERIMENT), storage=storage, objectives=FaultyObjectives())
    harness.assert_told_once(storage / "run")
    return storage / "run"


@pytest.fixture(scope="module")
def expected(whole: Path) -> list[tuple[Any, ...]]:
    """What every search that something befell must find in the end."""
    return harness.found(whole)
