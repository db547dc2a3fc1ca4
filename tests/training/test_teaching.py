"""A teacher's outputs, asked for once: exact, shared, kept in a file, and used by every trial in the place of it."""

from __future__ import annotations

import math
import pickle
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from torch import nn

from kdsearch.data import DataSet, load
from kdsearch.data.teacher_outputs import TeacherOutputs
from kdsearch.errors import InvalidSetting
from kdsearch.experiment import Experiment
from kdsearch.objective import Report
from kdsearch.training.teacher import LateTeacher, load_teacher
from kdsearch.training.teaching import (
    blank_outputs,
    compute_outputs,
    keeps_outputs,
    outputs_name,
    read_outputs,
    write_outputs,
)
from kdsearch.training.trainer import Trainer

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kdsearch.methods.base import Teacher

CPU = torch.device("cpu")
SMALL = {"name": "digits", "label_fraction": 0.2}


def experiment(**changes: Any) -> Experiment:
    sections: dict[str, Any] = {
        "method": "kd",
        "teacher": {"name": "resnet14"},
        "training": {"epochs": 3},
        "search": {"grace_period": 1},
        "data": SMALL,
    }
    return Experiment(**(sections | changes))


@pytest.fixture(scope="module")
def digits() -> DataSet:
    return load(experiment().data)


def teacher_of(made: Experiment, data: DataSet) -> Teacher:
    """A teacher whose outputs tell images apart, though it was never trained."""
    torch.manual_seed(1)
    return load_teacher(made, data, CPU)


class Counting:
    """Counts the images that a teacher is shown."""

    def __init__(self, teacher: Teacher) -> None:
        self.teacher = teacher
        self.images = 0

    @property
    def module(self) -> nn.Module:
        return self.teacher.module

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        self.images += len(images)
        return self.teacher(images)


def trained(
    made: Experiment, data: DataSet, teacher: Teacher, taught: TeacherOutputs | None, **setting: Any
) -> Trainer:
    trainer = Trainer(made, {**made.paper(), **setting}, data=data, teacher=teacher, taught=taught, device=CPU)
    while not trainer.finished:
        trainer.epoch()
    return trainer


def told(trainer: Trainer) -> list[Mapping[str, float]]:
    return [report.metrics | {"value": report.value} for report in trainer.history]


def test_a_training_with_kept_outputs_is_the_training_with_the_teacher_to_the_last_bit(digits: DataSet) -> None:
    made = experiment()
    teacher = Counting(teacher_of(made, digits))
    outputs = compute_outputs(made, digits, teacher, CPU)
    assert teacher.images == len(digits.train)
    kept = trained(made, digits, teacher, outputs)
    assert teacher.images == len(digits.train)
    asked = trained(made, digits, teacher, None)
    assert teacher.images > 3 * len(digits.train)
    assert told(kept) == told(asked)
    assert kept.student_bytes() == asked.student_bytes()


def test_an_interrupted_training_with_kept_outputs_ends_as_one_that_was_not(digits: DataSet, tmp_path: Path) -> None:
    made = experiment()
    teacher = teacher_of(made, digits)
    whole = trained(made, digits, teacher, compute_outputs(made, digits, teacher, CPU))
    write_outputs(tmp_path / "outputs", compute_outputs(made, digits, teacher, CPU))
    first = Trainer(made, made.paper(), data=digits, teacher=teacher, taught=whole.batches._taught, device=CPU)
    first.epoch()
    first.save(tmp_path)
    again = read_outputs(tmp_path / "outputs", made, digits)
    assert again is not None
    second = Trainer(made, made.paper(), data=digits, teacher=teacher, taught=again, device=CPU)
    assert second.load(tmp_path)
    while not second.finished:
        second.epoch()
    assert second.student_bytes() == whole.student_bytes()


def test_under_random_augmentation_the_teacher_sees_every_view_though_outputs_are_there(digits: DataSet) -> None:
    made = experiment(augmentation={"crop": 1})
    assert not keeps_outputs(made, digits)
    teacher = Counting(teacher_of(made, digits))
    trainer = trained(made, digits, teacher, blank_outputs(experiment(), digits))
    assert teacher.images == 3 * trainer.batches.steps * trainer.batches.batch_size


@pytest.mark.parametrize(
    "augmentation",
    [{"crop": 1}, {"flip": True}, {"cutout": 2}, {"cutmix": 0.5}, {"mixup": 0.1}],
    ids=lambda value: next(iter(value)),
)
def test_no_random_view_has_kept_outputs(digits: DataSet, augmentation: dict[str, Any]) -> None:
    assert keeps_outputs(experiment(), digits)
    assert not keeps_outputs(experiment(augmentation=augmentation), digits)


def test_outputs_are_not_kept_where_it_is_off_or_nobody_learns_from_a_teacher(digits: DataSet) -> None:
    assert not keeps_outputs(experiment(teacher={"name": "resnet14", "cache": "off"}), digits)
    assert not keeps_outputs(experiment(method="ips", teacher=None), digits)


def test_outputs_that_would_fill_the_memory_are_not_kept(digits: DataSet, monkeypatch: pytest.MonkeyPatch) -> None:
    exactly = len(digits.train) * 10 * 4
    monkeypatch.setattr("kdsearch.training.teaching.IN_MEMORY_BYTES", exactly + 1)
    assert keeps_outputs(experiment(), digits)
    monkeypatch.setattr("kdsearch.training.teaching.IN_MEMORY_BYTES", exactly)
    assert not keeps_outputs(experiment(), digits)
    assert keeps_outputs(experiment(teacher={"name": "resnet14", "cache_dtype": "float16"}), digits)


def test_the_largest_logits_keep_their_probabilities_and_the_others_share_the_rest_evenly() -> None:
    logits = torch.tensor([[2.0, -1.0, 0.5, 0.0], [0.0, 3.0, 1.0, -2.0]])
    outputs = TeacherOutputs.of(logits, top_k=2).rows(torch.tensor([1, 0, 0]))
    # Of the first image classes 0 and 2 are kept: e^-1 + e^0 is shared by the two others.
    first = [2.0, math.log((math.exp(-1) + 1) / 2), 0.5, math.log((math.exp(-1) + 1) / 2)]
    second = [math.log((1 + math.exp(-2)) / 2), 3.0, 1.0, math.log((1 + math.exp(-2)) / 2)]
    assert torch.allclose(outputs, torch.tensor([second, first, first]), atol=1e-6)
    total = math.exp(2) + math.exp(-1) + math.exp(0.5) + 1
    expected = [
        math.exp(2) / total,
        (math.exp(-1) + 1) / 2 / total,
        math.exp(0.5) / total,
        (math.exp(-1) + 1) / 2 / total,
    ]
    assert outputs.softmax(1)[1].tolist() == pytest.approx(expected)


@pytest.mark.parametrize(("temperature", "sign"), [(4.0, 1), (0.5, -1)])
def test_beyond_temperature_one_the_classes_left_out_have_at_least_their_mass(temperature: float, sign: int) -> None:
    logits = 3 * torch.randn(200, 10)
    order = logits.argsort(1, descending=True)[:, 3:]
    true = (logits / temperature).exp().gather(1, order).sum(1)
    kept = (TeacherOutputs.of(logits, top_k=3).rows(torch.arange(200)) / temperature).exp().gather(1, order).sum(1)
    assert (sign * (kept - true) >= -1e-5).all()


def test_of_pixels_each_keeps_its_own_largest_classes() -> None:
    logits = torch.randn(2, 5, 3, 4)
    outputs = TeacherOutputs.of(logits, top_k=2).rows(torch.arange(2))
    alone = TeacherOutputs.of(logits.permute(0, 2, 3, 1).reshape(-1, 5), top_k=2).rows(torch.arange(24))
    assert torch.allclose(outputs, alone.view(2, 3, 4, 5).permute(0, 3, 1, 2), atol=1e-6)


def test_half_precision_is_as_near_as_it_can_be_and_refuses_what_it_cannot_hold() -> None:
    logits = 20 * torch.randn(50, 10)
    outputs = TeacherOutputs.of(logits, "float16")
    assert outputs.nbytes == 50 * 10 * 2
    assert (outputs.rows(torch.arange(50)) - logits).abs().le(logits.abs() * 2**-11 + 1e-7).all()
    with pytest.raises(InvalidSetting, match=r"teacher\.cache_dtype = 'float16': cannot hold .* 70000: take float32"):
        TeacherOutputs.of(torch.tensor([[0.0, 70000.0]]), "float16")


def test_as_many_largest_logits_as_there_are_classes_are_refused(digits: DataSet) -> None:
    with pytest.raises(InvalidSetting, match=r"teacher\.cache_top_k = 10: must be below .* 10"):
        keeps_outputs(experiment(teacher={"name": "resnet14", "cache_top_k": 10}), digits)


@pytest.mark.parametrize("top_k", [None, 3])
def test_pickled_outputs_share_their_memory_and_trials_of_a_process_do(digits: DataSet, top_k: int | None) -> None:
    made = experiment()
    outputs = TeacherOutputs.of(torch.randn(len(digits.train), 10), top_k=top_k)
    buffers: list[pickle.PickleBuffer] = []
    content = pickle.dumps(outputs, protocol=5, buffer_callback=buffers.append)
    assert len(content) < 1024  # no output travels in the stream itself
    read_only = [memoryview(bytes(buffer.raw())) for buffer in buffers]  # as an object store hands them out
    again = pickle.loads(content, buffers=read_only)
    starts = {np.frombuffer(view, np.uint8).__array_interface__["data"][0] for view in read_only}
    teacher = teacher_of(made, digits)
    trainers = [Trainer(made, made.paper(), data=digits, teacher=teacher, taught=again, device=CPU) for _ in range(2)]
    for trainer in trainers:
        held = trainer.batches._taught
        assert {tensor.data_ptr() for tensor in held.tensors.values()} <= starts
        assert isinstance(trainer.epoch(), Report)  # nothing writes there


@pytest.mark.parametrize(
    "options", [{}, {"cache_dtype": "float16"}, {"cache_top_k": 3}, {"cache_top_k": 3, "cache_dtype": "float16"}]
)
def test_a_file_gives_back_what_was_written_and_nothing_once_damaged(
    digits: DataSet, tmp_path: Path, options: dict[str, Any]
) -> None:
    made = experiment(teacher={"name": "resnet14", **options})
    outputs, path = compute_outputs(made, digits, teacher_of(made, digits), CPU), tmp_path / "teachers" / "outputs"
    assert read_outputs(path, made, digits) is None
    write_outputs(path, outputs)
    again = read_outputs(path, made, digits)
    assert again is not None
    every = torch.arange(len(digits.train))
    assert torch.equal(again.rows(every), outputs.rows(every))
    assert again.nbytes == outputs.nbytes
    whole = path.read_bytes()
    for damaged in (whole[:-1], b"", whole[:100], whole[:-5] + bytes([whole[-5] ^ 1]) + whole[-4:]):
        path.write_bytes(damaged)
        assert read_outputs(path, made, digits) is None
    write_outputs(path, outputs)
    assert [file.name for file in path.parent.iterdir()] == ["outputs"]


def test_the_name_of_outputs_tells_apart_whatever_changes_them(digits: DataSet) -> None:
    made = experiment()
    teacher = teacher_of(made, digits)
    first = outputs_name(made, digits, teacher)
    assert first is not None
    assert outputs_name(experiment(training={"epochs": 9, "batch_size": 32}, seed=4), digits, teacher) == first
    torch.manual_seed(2)
    fewer = experiment(data={"name": "digits", "label_fraction": 0.1})
    others = [
        outputs_name(made, digits, load_teacher(made, digits, CPU)),
        outputs_name(fewer, load(fewer.data), teacher),
        outputs_name(experiment(student={"name": "resnet8", "input_size": 16}), digits, teacher),
        outputs_name(experiment(teacher={"name": "resnet14", "input_size": 16}), digits, teacher),
        outputs_name(experiment(teacher={"name": "resnet14", "cache_dtype": "float16"}), digits, teacher),
        outputs_name(experiment(teacher={"name": "resnet14", "cache_top_k": 2}), digits, teacher),
    ]
    assert len({first, *others}) == 7


def test_a_teacher_that_is_loaded_late_disturbs_no_draw_and_answers_as_itself(digits: DataSet) -> None:
    made = experiment()
    loads = []

    def loading() -> Teacher:
        loads.append(1)
        return load_teacher(made, digits, CPU)

    late = LateTeacher(loading, CPU)
    assert not loads
    images = torch.randn(4, 1, 8, 8)
    torch.manual_seed(7)
    answer = late(images)
    drawn = torch.rand(3)
    torch.manual_seed(7)
    assert torch.equal(torch.rand(3), drawn)
    assert loads == [1]
    assert torch.equal(late(images), answer)
    assert late.module(images).shape == (4, 10)
    assert loads == [1]


def test_off_is_off_however_yaml_reads_it(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("method: kd\nteacher: {name: resnet14, cache: off}\n")
    made = Experiment.load(str(tmp_path / "mine.yaml"))
    assert made.teacher is not None
    assert made.teacher.cache == "off"
    (tmp_path / "again.yaml").write_text(made.to_yaml())
    assert Experiment.load(str(tmp_path / "again.yaml")) == made
    with pytest.raises(InvalidSetting, match=r"teacher\.cache = 'always': must be 'auto' or 'off'"):
        experiment(teacher={"name": "resnet14", "cache": "always"})
