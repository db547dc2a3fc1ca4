"""A run folder that came from someone else: what lies in it as a checkpoint is never run."""

from __future__ import annotations

import io
import os
import pickle
from pathlib import Path

import pytest
import torch

from kdsearch import files
from kdsearch.data import load
from kdsearch.experiment import Experiment
from kdsearch.settings import DataSettings
from kdsearch.training.trainer import CHECKPOINT, Trainer


class Bomb:
    """A pickle that makes a file when it is loaded."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.marker),)


def as_torch(bomb: Bomb) -> bytes:
    buffer = io.BytesIO()
    torch.save({"history": [], "method": bomb}, buffer)
    return buffer.getvalue()


def as_old_torch(bomb: Bomb) -> bytes:
    buffer = io.BytesIO()
    torch.save({"history": [], "method": bomb}, buffer, _use_new_zipfile_serialization=False)
    return buffer.getvalue()


@pytest.mark.parametrize("disguise", [as_torch, as_old_torch, pickle.dumps])
def test_a_checkpoint_that_would_run_something_is_refused(disguise: object, tmp_path: Path) -> None:
    marker = tmp_path / "was-run"
    assert callable(disguise)
    files.write_checked(tmp_path / CHECKPOINT, disguise(Bomb(marker)))  # its checksum is right: anyone can write one
    made = Experiment(method="ce", training={"epochs": 1}, search={"grace_period": 1})
    data = load(DataSettings(label_fraction=0.1))
    trainer = Trainer(made, made.paper(), data=data, device=torch.device("cpu"))
    with pytest.raises(pickle.UnpicklingError):
        trainer.load(tmp_path)
    assert not marker.exists()
    assert trainer.history == []
