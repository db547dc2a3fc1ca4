"""A teacher's outputs at a URL: another machine takes those that a search began with."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from kdsearch import data as data_sets
from kdsearch import models
from kdsearch.experiment import Experiment
from kdsearch.settings import NetworkSettings
from kdsearch.tuning.prepare import prepare

if TYPE_CHECKING:
    from pathlib import Path

    from kdsearch.results.remote import Remote


def test_outputs_are_computed_on_one_machine_and_fetched_by_the_next(remote: Remote, tmp_path: Path) -> None:
    network = models.build(NetworkSettings(name="resnet8"), outputs=10, channels=1, size=(8, 8))
    torch.save(network.state_dict(), tmp_path / "weights.pt")
    made = Experiment(
        method="kd",
        data={"name": "digits", "label_fraction": 0.1},
        teacher={"name": "resnet8", "weights": str(tmp_path / "weights.pt")},
        resources={"gpus_per_trial": 0},
    )
    data = data_sets.load(made.data)
    told: list[str] = []
    here = prepare(made, data, tmp_path / "here", told.append, remote).taught
    there = prepare(made, data, tmp_path / "there", told.append, remote).taught
    assert len(told) == 1
    assert here is not None
    assert there is not None
    assert torch.equal(here.values, there.values)
