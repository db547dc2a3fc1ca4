"""What a training on a CPU asks of the system at each step: counted, not timed."""

from __future__ import annotations

import platform
import resource

import pytest

from kdsearch import Experiment
from kdsearch.training.trainer import Trainer


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="malloc is told what to keep in glibc's words")
def test_a_step_takes_its_memory_from_what_the_one_before_has_freed() -> None:
    data = {"name": "digits", "label_fraction": 0.3}
    trainer = Trainer(Experiment(method="lsskd", data=data, student="resnet8", training={"epochs": 4}), {})
    trainer.epoch(), trainer.epoch()  # the second has a snapshot, too
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    trainer.epoch()
    pages = (resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) / trainer.batches.steps
    assert pages < 500  # thousands where each step's activations are new to the process
