"""Trials on CPUs keep to their slot: so many threads as they were given CPUs."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from kdsearch import data as data_sets
from kdsearch.experiment import Experiment
from kdsearch.tuning import search
from kdsearch.tuning.objective import TrainerObjectives
from kdsearch.tuning.pool import ENVIRONMENT

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from kdsearch.settings import Scalar
    from kdsearch.tuning.objective import TrainerObjective

pytestmark = pytest.mark.slow


@dataclass
class Counting(TrainerObjectives):
    """Those of a real search; each process writes down its threads when it has a trial."""

    folder: str = ""

    def __call__(self, hyperparameters: Mapping[str, Scalar]) -> TrainerObjective:
        import torch

        made = super().__call__(hyperparameters)
        torch.ones(512, 512) @ torch.ones(512, 512)  # its threads are there from now on
        with open(f"{self.folder}/{os.getpid()}", "a") as file:
            file.write(f"{torch.get_num_threads()}\n")
        return made


@pytest.fixture
def four_cpus() -> Iterator[None]:
    """A local Ray with four logical CPUs, whatever this machine has; the environment is as it was afterwards."""
    before = dict(os.environ)
    os.environ.update({**ENVIRONMENT, "RAY_prestart_worker_first_driver": "0"})
    import ray

    ray.init(address="local", num_cpus=4, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()
    os.environ.clear()
    os.environ.update(before)


def test_each_process_computes_with_as_many_threads_as_a_trial_has_cpus(four_cpus: None, tmp_path: Path) -> None:
    import ray

    from kdsearch.tuning.prepare import prepare
    from tests.tuning import test_threads

    ray.cloudpickle.register_pickle_by_value(test_threads)
    sections: dict[str, Any] = {
        "method": "ips",
        "student": "resnet8",
        "data": {"name": "digits", "label_fraction": 0.1},
        "name": "run",
        "space": {},
        "training": {"epochs": 1},
        "search": {"scheduler": "none"},
        "resources": {"gpus_per_trial": 0, "cpus_per_trial": 2},
    }
    made = Experiment(**sections)
    (tmp_path / "threads").mkdir()
    data = data_sets.load(made.data, made.task)
    plain = prepare(made, data, tmp_path, print)
    counting = test_threads.Counting(plain.experiment, plain.data, plain.threads, folder=str(tmp_path / "threads"))
    results = search(made, storage=tmp_path, objectives=counting)
    assert {trial.state for trial in results.trials} == {"COMPLETE"}
    told = [file.read_text().split() for file in (tmp_path / "threads").iterdir()]
    assert sum(map(len, told)) == len(results.trials)
    assert {threads for process in told for threads in process} == {"2"}
