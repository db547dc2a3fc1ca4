"""Devices, and what a probe measures on one: on a GPU that is none, and on a real one where there is one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch

from kdsearch.data import load
from kdsearch.experiment import Experiment
from kdsearch.settings import DataSettings
from kdsearch.training.devices import CudaDevice, hold_to
from kdsearch.training.mps import mps_is_on
from kdsearch.training.probe import EPOCHS, EVALUATED, STEPS, Probe, far_from_its_end
from kdsearch.training.trainer import Trainer
from tests.training.fake_device import FakeDevice

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kdsearch.data.base import DataSet
    from kdsearch.settings import Scalar


@pytest.fixture(scope="module")
def digits() -> DataSet:
    return load(DataSettings(label_fraction=0.2))


class Recorded:
    """Makes Trainers and keeps them, with the batches that each saw."""

    def __init__(self, data: DataSet, method: str = "ce", batch_size: int = 16) -> None:
        self._data = data
        self.experiment = Experiment(
            method=method, training={"epochs": 3, "batch_size": batch_size}, search={"grace_period": 1}
        )
        self.trainers: list[Trainer] = []

    def __call__(self, setting: Mapping[str, Scalar]) -> Trainer:
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        made = Trainer(far_from_its_end(self.experiment), setting, data=self._data, device=device)
        self.trainers.append(made)
        return made


def limits(folder: Path) -> list[float]:
    file = folder / "limits"
    return [float(line.split()[1]) for line in file.read_text().splitlines()] if file.exists() else []


@pytest.mark.parametrize(("share", "expected"), [(0.5, [0.45]), (0.125, [0.1125]), (1.0, []), (2.0, []), (0.0, [])])
def test_a_process_is_held_to_nine_tenths_of_a_share_and_to_nothing_with_whole_gpus(
    tmp_path: Path, share: float, expected: list[float]
) -> None:
    hold_to(FakeDevice(str(tmp_path)), share)
    assert limits(tmp_path) == pytest.approx(expected)


def test_where_there_is_no_gpu_nothing_is_held() -> None:
    limited: list[float] = []

    class Missing(FakeDevice):
        def count(self) -> int:
            return 0

        def limit_memory(self, fraction: float) -> None:
            limited.append(fraction)

    hold_to(Missing("nowhere"), 0.5)
    assert limited == []


def test_a_probe_trains_two_short_epochs_and_looks_at_a_few_batches(tmp_path: Path, digits: DataSet) -> None:
    made = Recorded(digits)
    probe = Probe(made, FakeDevice(str(tmp_path), context=7, tensors=30, others=50))
    probe.prepare({})
    (trainer,) = made.trainers
    assert trainer.epochs_done == EPOCHS == 2
    assert trainer.best is not None  # its weights are kept, as a trial's are
    pace = probe.run(seconds=9.0)  # a step takes 1.5 s on this device, and the look at its end too
    assert (pace.steps, pace.seconds) == (6, 10.5)
    assert (pace.memory.reserved, pace.memory.peak, pace.memory.used) == (30, 30, 50 + 7 + 30)
    assert trainer.epochs_done == EPOCHS + 1


def test_a_window_longer_than_the_data_begins_them_anew(tmp_path: Path, digits: DataSet) -> None:
    made = Recorded(digits, batch_size=100)
    probe = Probe(made, FakeDevice(str(tmp_path)))
    probe.prepare({})
    steps = made.trainers[0].batches.steps
    assert steps < STEPS
    assert probe.run(seconds=15.0).steps == 10


def test_nothing_diverges_in_a_probe(tmp_path: Path, digits: DataSet) -> None:
    probe = Probe(Recorded(digits), FakeDevice(str(tmp_path)))
    probe.prepare({"learning_rate": 1e9})
    assert probe.run(seconds=3.0).steps == STEPS


def test_what_remembers_the_epoch_before_is_at_work_in_a_probe(tmp_path: Path, digits: DataSet) -> None:
    """LSSKD's snapshot of the previous epoch makes a pass of its own, but not in the first epoch."""
    made = Recorded(digits, method="lsskd")
    Probe(made, FakeDevice(str(tmp_path))).prepare({})
    assert getattr(made.trainers[0].method, "_remembers") is True  # noqa: B009 - not a method's public side


def test_a_long_validation_split_ends_after_a_few_batches_with_the_worst_value(
    tmp_path: Path, digits: DataSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kdsearch.tasks.classification.BATCH", 8)
    made = Recorded(digits)
    seen: list[int] = []

    def counting(setting: Mapping[str, Scalar]) -> Trainer:
        trainer = made(setting)
        trainer.student.register_forward_pre_hook(
            lambda module, inputs: None if module.training else seen.append(len(inputs[0]))
        )
        return trainer

    Probe(counting, FakeDevice(str(tmp_path))).prepare({})
    assert len(digits.validation) > 8 * EVALUATED
    assert seen == [8] * EVALUATED * EPOCHS
    assert made.trainers[0].history[0].value == made.trainers[0].task.worst == 0.0


def test_a_probe_of_a_setting_leaves_nothing_behind(tmp_path: Path, digits: DataSet) -> None:
    made = Recorded(digits)
    device = FakeDevice(str(tmp_path), context=7, tensors=30)
    probe = Probe(made, device)
    assert probe.peak({}) == 30
    assert device.reserved_memory() == 0
    with pytest.raises(AssertionError, match="prepare comes first"):
        probe.run(1.0)


def test_mps_is_on_where_its_control_socket_is(tmp_path: Path) -> None:
    environment = {"CUDA_MPS_PIPE_DIRECTORY": str(tmp_path)}
    assert not mps_is_on(environment)
    (tmp_path / "control").touch()
    assert mps_is_on(environment)


def test_the_first_gpu_is_asked_through_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Torch raises when the peak of a device is reset that it has not taken up: it is taken up before."""
    called: list[tuple[str, tuple[object, ...]]] = []
    answers = {"mem_get_info": (300, 1000), "memory_reserved": 40, "max_memory_reserved": 70, "device_count": 3}
    done = ("init", "empty_cache", "reset_peak_memory_stats", "set_per_process_memory_fraction", "synchronize")
    for name, answer in {**answers, **dict.fromkeys(done)}.items():

        def stand_in(*arguments: object, name: str = name, answer: object = answer) -> object:
            called.append((name, arguments))
            return answer

        monkeypatch.setattr(torch.cuda, name, stand_in)
    device = CudaDevice()
    assert (device.total_memory(), device.used_memory(), device.count()) == (1000, 700, 3)
    assert (device.reserved_memory(), device.peak_memory()) == (40, 70)
    called.clear()
    device.forget()
    assert called == [("init", ()), ("empty_cache", ()), ("reset_peak_memory_stats", (0,))]
    called.clear()
    hold_to(device, 0.25)
    device.synchronise()
    assert called == [("device_count", ()), ("set_per_process_memory_fraction", (0.225, 0)), ("synchronize", (0,))]


@pytest.mark.needs_gpu
def test_a_real_gpu_refuses_what_exceeds_the_share_and_the_error_is_known_as_out_of_memory() -> None:
    from kdsearch.tuning.failures import is_out_of_gpu_memory

    device = CudaDevice()
    share = 2**30 / device.total_memory()
    try:
        hold_to(device, share)
        torch.empty(2**29, dtype=torch.uint8, device="cuda")
        with pytest.raises(torch.OutOfMemoryError) as caught:
            torch.empty(2**30, dtype=torch.uint8, device="cuda")
        assert is_out_of_gpu_memory(caught.value)
    finally:
        device.limit_memory(1.0)
        device.forget()


@pytest.mark.needs_gpu
def test_a_real_gpu_tells_what_a_probe_takes(digits: DataSet) -> None:
    made, device = Recorded(digits), CudaDevice()
    probe = Probe(made, device)
    small = probe.peak({"batch_size": 16})
    large = Probe(Recorded(digits, batch_size=256), device).peak({"batch_size": 256})
    assert 0 < small <= large <= device.total_memory()
    probe.prepare({"batch_size": 16})
    pace = probe.run(0.5)
    assert pace.steps >= STEPS
    assert pace.memory.used > pace.memory.reserved > 0  # the context is none of torch's
