"""A bank of views: the teacher is asked about each view once, and every training shows those views and no others."""

from __future__ import annotations

import pickle
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from kdsearch.data import Batching, DataSet, load, resolve
from kdsearch.data.batches import Batches
from kdsearch.data.draws import view_draws
from kdsearch.data.view_bank import ViewBank
from kdsearch.data.views import Views
from kdsearch.errors import InvalidSetting, UserError
from kdsearch.experiment import Experiment
from kdsearch.settings import AugmentationSettings
from kdsearch.training.teacher import load_teacher
from kdsearch.training.teaching import (
    blank_outputs,
    compute_outputs,
    keeps_outputs,
    outputs_name,
    read_outputs,
    view_bank,
    write_outputs,
)
from kdsearch.training.trainer import Trainer

if TYPE_CHECKING:
    from pathlib import Path

    from kdsearch.data.teacher_outputs import TeacherOutputs

CPU = torch.device("cpu")
VIEWS = 3
AUGMENTATION = {"crop": 2, "flip": True, "cutout": 3}


def experiment(teacher: dict[str, Any] | None = None, **changes: Any) -> Experiment:
    sections: dict[str, Any] = {
        "method": "kd",
        "teacher": {"name": "resnet14", "cache_views": VIEWS, **(teacher or {})},
        "training": {"epochs": 4, "batch_size": 50},
        "search": {"grace_period": 1},
        "data": {"name": "digits", "label_fraction": 0.2},
        "augmentation": AUGMENTATION,
    }
    return Experiment(**(sections | changes))


@pytest.fixture(scope="module")
def digits() -> DataSet:
    return load(experiment().data)


@pytest.fixture(scope="module")
def outputs(digits: DataSet) -> TeacherOutputs:
    torch.manual_seed(1)
    return compute_outputs(experiment(), digits, load_teacher(experiment(), digits, CPU), CPU)


def batches(data: DataSet, taught: TeacherOutputs | None, seed: int = 0, **augmentation: Any) -> Batches:
    settings = resolve(AugmentationSettings(**(AUGMENTATION | augmentation)), data.augmentation)
    return Batches(data, Batching(50, settings, seed=seed, device=CPU, taught=taught))


def shown(made: Batches, epochs: int) -> list[dict[int, bytes]]:
    """Of each epoch: the view of each image, by its index."""
    found = []
    for epoch in range(epochs):
        views = torch.cat([batch.images for batch in made.epoch(epoch)]).numpy()
        indices = made._order(epoch).ravel().tolist()
        found.append({index: view.tobytes() for index, view in zip(indices, views, strict=True)})
    return found


def test_what_a_batch_brings_is_what_the_teacher_says_of_the_views_in_it(
    digits: DataSet, outputs: TeacherOutputs
) -> None:
    torch.manual_seed(1)
    teacher = load_teacher(experiment(), digits, CPU)
    for batch in [*batches(digits, outputs).epoch(0), *batches(digits, outputs, seed=5).epoch(7)]:
        assert batch.taught is not None
        torch.testing.assert_close(batch.taught, teacher(batch.images), rtol=1e-4, atol=1e-5)
        assert float(batch.taught.std(0).mean()) > 1e-3  # of images that it tells apart


def test_an_image_shows_each_of_its_views_once_before_any_comes_again(digits: DataSet, outputs: TeacherOutputs) -> None:
    epochs = shown(batches(digits, outputs), 2 * VIEWS)
    there = set.intersection(*(set(epoch) for epoch in epochs))  # an incomplete last batch is dropped
    assert len(there) > 50
    for image in there:
        views = [epoch[image] for epoch in epochs]
        assert views[VIEWS:] == views[:VIEWS]
    different = sum(len({epoch[image] for epoch in epochs}) for image in there)
    assert different > 0.95 * VIEWS * len(there)  # by chance two views of an image may be equal


def test_trainings_share_the_views_and_differ_in_when_they_come(digits: DataSet, outputs: TeacherOutputs) -> None:
    first, second = (shown(batches(digits, outputs, seed=seed), 3 * VIEWS) for seed in (0, 1))
    for image in set.intersection(*(set(epoch) for epoch in [*first, *second])):
        assert {epoch[image] for epoch in first} == {epoch[image] for epoch in second}
    both = first[0].keys() & second[0].keys()
    assert 0 < sum(first[0][image] == second[0][image] for image in both) < len(both)


def test_a_training_shorter_than_the_bank_sees_no_view_twice_and_each_view_is_as_likely() -> None:
    bank = ViewBank(8, AugmentationSettings(), seed=0)
    rows = np.stack([bank.rows(4000, epoch, seed=3) for epoch in range(8)])
    assert (np.sort(rows, 0) == np.arange(4000) * 8 + np.arange(8)[:, None]).all()
    of_first = np.bincount(rows[0] % 8, minlength=8)
    assert of_first.min() > 400  # of 500 expected


def test_without_a_bank_or_with_another_augmentation_views_are_drawn_anew_and_the_teacher_is_asked(
    digits: DataSet, outputs: TeacherOutputs
) -> None:
    alone, other = batches(digits, None, cutout=0), batches(digits, outputs, cutout=0)
    for mine, theirs in zip(alone.epoch(1), other.epoch(1), strict=True):
        assert theirs.taught is None
        assert torch.equal(mine.images, theirs.images)


def test_partners_too_are_views_of_the_bank(digits: DataSet, outputs: TeacherOutputs) -> None:
    settings = resolve(AugmentationSettings(**AUGMENTATION), digits.augmentation)
    paired = Batches(digits, Batching(50, settings, seed=0, device=CPU, taught=outputs, partners=True))
    views = Views(digits, settings, digits.size, CPU)
    drawn = outputs.bank.draw(views, len(digits.train)) if outputs.bank else None
    assert drawn is not None
    every = torch.arange(len(digits.train)).repeat_interleave(VIEWS)
    (images,) = digits.train.fetch([every])
    bank = {view.numpy().tobytes() for view in views.of(images, view_draws(drawn, CPU))}
    for batch in paired.epoch(0):
        assert batch.partners is not None
        assert {image.numpy().tobytes() for image in (*batch.images, *batch.partners)} <= bank


def test_a_training_with_a_bank_resumes_to_the_last_bit(
    digits: DataSet, outputs: TeacherOutputs, tmp_path: Path
) -> None:
    made = experiment()
    teacher = load_teacher(made, digits, CPU)
    first, whole = (
        Trainer(made, made.paper(), data=digits, teacher=teacher, taught=outputs, device=CPU) for _ in range(2)
    )
    first.epoch()
    first.save(tmp_path)
    second = Trainer(made, made.paper(), data=digits, teacher=teacher, taught=outputs, device=CPU)
    assert second.load(tmp_path)
    for trainer in (whole, second):
        while not trainer.finished:
            trainer.epoch()
    assert second.student_bytes() == whole.student_bytes()


def test_outputs_in_an_object_store_and_in_a_file_keep_their_bank(
    digits: DataSet, outputs: TeacherOutputs, tmp_path: Path
) -> None:
    buffers: list[pickle.PickleBuffer] = []
    again = pickle.loads(pickle.dumps(outputs, protocol=5, buffer_callback=buffers.append), buffers=buffers)
    write_outputs(tmp_path / "outputs", outputs)
    read = read_outputs(tmp_path / "outputs", experiment(), digits)
    assert read is not None
    for each in (again, read):
        assert each.bank == outputs.bank == view_bank(experiment(), digits)
        assert torch.equal(each.values, outputs.values)
    assert len(blank_outputs(experiment(), digits)) == len(outputs) == VIEWS * len(digits.train)
    assert read_outputs(tmp_path / "outputs", experiment({"cache_views": 2}), digits) is None


def test_the_name_of_outputs_tells_banks_apart(digits: DataSet) -> None:
    teacher = load_teacher(experiment(), digits, CPU)
    changes = [
        experiment(),
        experiment({"cache_views": 4}),
        experiment(augmentation={"crop": 1}),
        experiment({"cache_views": None}, augmentation={}),
        experiment(data={"name": "digits", "label_fraction": 0.2, "seed": 1}),
    ]
    assert len({outputs_name(made, digits, teacher) for made in changes}) == len(changes)


def test_images_that_are_never_augmented_have_one_view(digits: DataSet) -> None:
    assert view_bank(experiment(augmentation={}), digits) is None
    assert keeps_outputs(experiment(augmentation={}), digits)


def test_a_bank_that_cannot_be_is_refused(digits: DataSet, monkeypatch: pytest.MonkeyPatch) -> None:
    assert keeps_outputs(experiment(), digits)
    with pytest.raises(InvalidSetting, match=r"teacher\.cache_views = 3: cutmix and mixup make an image of two"):
        keeps_outputs(experiment(augmentation={"cutmix": 0.5}), digits)
    with pytest.raises(UserError, match="cache_views = 3 keeps outputs: it needs cache = auto, not off"):
        experiment({"cache": "off"})
    monkeypatch.setattr("kdsearch.training.teaching.IN_MEMORY_BYTES", VIEWS * len(digits.train) * 10 * 4)
    with pytest.raises(InvalidSetting, match=r"cache_views = 3: .* more than 4 GiB: take fewer views"):
        keeps_outputs(experiment(), digits)
    assert keeps_outputs(experiment({"cache_dtype": "float16"}), digits)


def test_a_dense_task_has_no_bank() -> None:
    made = Experiment(
        method="edge_kd",
        task="edges",
        data={"name": "drawn_edges", "samples": 10},
        teacher={"name": "edge_unet", "cache_views": 2},
        augmentation={"flip": True},
    )
    with pytest.raises(InvalidSetting, match=r"cache_views = 2: views are kept for classification alone, not for edge"):
        keeps_outputs(made, load(made.data, made.task))
