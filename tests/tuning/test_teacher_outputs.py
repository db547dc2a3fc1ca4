"""What a teacher says is asked once for a whole search: counted by a teacher that keeps a list of what it is shown."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch

from kdsearch import data as data_sets
from kdsearch import models
from kdsearch.data.draws import view_draws
from kdsearch.data.preprocessing import preprocess
from kdsearch.data.splits import MemorySplit
from kdsearch.data.views import Views
from kdsearch.errors import InvalidSetting
from kdsearch.experiment import Experiment
from kdsearch.results import Results
from kdsearch.results.documents import read_json
from kdsearch.settings import NetworkSettings
from kdsearch.tuning.pool import ENVIRONMENT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from kdsearch.data.base import DataSet
    from kdsearch.tuning.objective import TrainerObjectives

WATCHED = """
import hashlib
import torch

class Watched(torch.nn.Module):
    def __init__(self, classes, shown):
        super().__init__()
        self.linear = torch.nn.Linear(64, classes)
        self.shown = shown

    def forward(self, images):
        lines = [hashlib.sha256(image.numpy().tobytes()).hexdigest() for image in images.contiguous()]
        with open(self.shown, "a") as file:
            file.write("".join(line + chr(10) for line in lines))
        return self.linear(images.flatten(1))
"""


@pytest.fixture(autouse=True)
def no_trace_of_ray() -> Iterator[None]:
    """What imports Ray finds the environment of a search, and leaves none behind."""
    before = dict(os.environ)
    os.environ.update(ENVIRONMENT)
    yield
    os.environ.clear()
    os.environ.update(before)


def sections(folder: Path, **changes: Any) -> dict[str, Any]:
    """A search taught by a network that writes down the images that it is shown."""
    (folder / "watched.py").write_text(WATCHED)
    teacher = {"name": f"{folder / 'watched.py'}:Watched", "arguments": {"shown": str(folder / "shown")}}
    network = models.build(NetworkSettings(**teacher), outputs=10, channels=1, size=(8, 8))
    torch.save(network.state_dict(), folder / "weights.pt")
    (folder / "shown").touch()
    made = {
        "method": "kd",
        "name": "run",
        "data": {"name": "digits", "label_fraction": 0.2},
        "teacher": {**teacher, "weights": str(folder / "weights.pt")},
        "training": {"epochs": 2},
        "search": {"trials": 3, "scheduler": "none"},
        "resources": {"gpus_per_trial": 0, "max_concurrent": 2},
    }
    for key, value in changes.items():
        made[key] = {**made.get(key, {}), **value}
    return made


def looks_at_training_images(folder: Path, data: DataSet) -> list[int]:
    """How often the teacher was shown each training image, as it is."""
    assert isinstance(data.train, MemorySplit)
    images = preprocess(data.train.images, data.mean, data.std, data.size)
    shown = Counter((folder / "shown").read_text().split())
    return [shown[hashlib.sha256(image.numpy().tobytes()).hexdigest()] for image in images]


def prepared(made: Experiment, data: DataSet, storage: Path, told: Callable[[str], None] = print) -> TrainerObjectives:
    from kdsearch.tuning.prepare import prepare

    return prepare(made, data, storage, told)


@pytest.mark.slow
def test_a_search_shows_its_teacher_each_training_image_exactly_once(tmp_path: Path) -> None:
    """On a Ray with one logical GPU: there a worker asks the teacher; the other tests here ask it in their process."""
    given = sections(tmp_path, resources={"gpus_per_trial": 1})
    script = (
        "import ray\nfrom kdsearch.experiment import Experiment\nfrom kdsearch.tuning import search\n"
        "ray.init(address='local', num_cpus=2, num_gpus=1, include_dashboard=False, log_to_driver=False)\n"
        f"search(Experiment(**{given!r}), storage={str(tmp_path)!r}, announce=print)"
    )
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=280)
    assert ended.returncode == 0, ended.stderr
    data = data_sets.load(Experiment(**given).data)
    assert f"asking the teacher once for each of {len(data.train)} training images" in ended.stdout
    assert set(looks_at_training_images(tmp_path, data)) == {1}
    trials = Results(tmp_path / "run").trials
    assert [(trial.state, trial.epochs) for trial in trials] == [("COMPLETE", 2)] * 3
    # The winner is what its setting gives where the teacher is asked at every step.
    from kdsearch.training.teacher import load_teacher
    from kdsearch.training.trainer import Trainer

    facts = read_json(tmp_path / "run" / "best" / "metrics.json")
    made = Experiment(**given)
    alone = Trainer(made, facts["hyperparameters"], data=data, teacher=load_teacher(made, data))
    while not alone.finished:
        alone.epoch()
    assert alone.best is not None
    assert alone.best.value == facts["value"]
    assert alone.student_bytes() == (tmp_path / "run" / "best" / "student.safetensors").read_bytes()


def test_trials_of_a_process_share_one_table_and_never_load_the_teacher(tmp_path: Path) -> None:
    made = Experiment(**sections(tmp_path))
    data = data_sets.load(made.data)
    objectives = prepared(made, data, tmp_path)
    trainers = [objectives.trainer({"temperature": temperature}) for temperature in (1.0, 4.0)]
    for trainer in trainers:
        trainer.epoch()
        trainer.epoch()
    assert objectives.taught is not None
    places = {trainer.batches._taught.values.data_ptr() for trainer in trainers}  # type: ignore[attr-defined]
    assert places == {objectives.taught.values.data_ptr()}
    assert set(looks_at_training_images(tmp_path, data)) == {1}
    (tmp_path / "weights.pt").unlink()  # nor does a process that begins now ask for it
    objectives.__dict__.pop("teacher")
    objectives.trainer({}).epoch()


def test_with_random_views_the_teacher_is_shown_each_batch_of_each_epoch(tmp_path: Path) -> None:
    made = Experiment(**sections(tmp_path, augmentation={"crop": 1}))
    data = data_sets.load(made.data)
    objectives = prepared(made, data, tmp_path)
    assert objectives.taught is None
    assert not (tmp_path / ".teachers").exists()
    assert objectives.teacher is not None  # loaded now, it is shown the probes of whoever builds a network
    before = len((tmp_path / "shown").read_text().split())
    for trainer in (objectives.trainer({"temperature": temperature}) for temperature in (1.0, 4.0)):
        trainer.epoch()
        trainer.epoch()
    shown = len((tmp_path / "shown").read_text().split()) - before
    assert shown == 2 * 2 * trainer.batches.steps * trainer.batches.batch_size


def test_with_a_bank_of_views_the_teacher_is_shown_each_view_once_for_all_trials(tmp_path: Path) -> None:
    made = Experiment(**sections(tmp_path, augmentation={"crop": 2}, teacher={"cache_views": 3}))
    data = data_sets.load(made.data)
    told: list[str] = []
    objectives = prepared(made, data, tmp_path, told.append)
    assert told == [f"asking the teacher once for each of 3 views of {len(data.train)} training images"]
    for trainer in (objectives.trainer({"temperature": temperature}) for temperature in (1.0, 4.0)):
        trainer.epoch()
        trainer.epoch()
    assert objectives.taught is not None
    bank = objectives.taught.bank
    assert bank is not None
    assert isinstance(data.train, MemorySplit)
    views = Views(data, bank.augmentation, data.size, torch.device("cpu"))
    drawn = view_draws(bank.draw(views, len(data.train)), torch.device("cpu"))
    every = views.of(data.train.images.repeat_interleave(3, 0), drawn)
    expected = Counter(hashlib.sha256(view.numpy().tobytes()).hexdigest() for view in every)
    shown = Counter((tmp_path / "shown").read_text().split())
    assert {view: shown[view] for view in expected} == expected  # beside them it is shown probes as it is built


def test_the_table_is_kept_beside_the_teachers_and_computed_anew_when_it_is_damaged(tmp_path: Path) -> None:
    made = Experiment(**sections(tmp_path))
    data = data_sets.load(made.data)
    told: list[str] = []
    first = prepared(made, data, tmp_path, told.append).taught
    (path,) = (tmp_path / ".teachers").iterdir()
    assert path.name.startswith("outputs-")
    assert len(told) == 1
    resumed = prepared(made, data, tmp_path, told.append).taught
    assert len(told) == 1
    assert set(looks_at_training_images(tmp_path, data)) == {1}
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    mended = prepared(made, data, tmp_path, told.append).taught
    assert len(told) == 2
    assert path.read_bytes() == whole
    assert first is not None
    assert resumed is not None
    assert mended is not None
    assert torch.equal(first.values, resumed.values)
    assert torch.equal(first.values, mended.values)


def test_a_storage_that_cannot_be_written_costs_the_next_start_and_not_this_search(tmp_path: Path) -> None:
    made = Experiment(**sections(tmp_path))
    data = data_sets.load(made.data)
    (tmp_path / ".teachers").write_text("a file where the folder should be")
    assert prepared(made, data, tmp_path).taught is not None


def test_the_folder_of_an_export_is_a_teacher_that_is_trained(tmp_path: Path) -> None:
    """It answers as it did; trained on, it would be another."""
    from kdsearch.training.single import train_student

    fixed = {"data": {"name": "digits", "label_fraction": 0.2}, "training": {"epochs": 2}}
    train_student(Experiment(method="ce", student="resnet8", search={"grace_period": 1}, **fixed), tmp_path / "earlier")
    told: list[str] = []
    made = Experiment(method="kd", teacher=str(tmp_path / "earlier"), search={"grace_period": 1}, **fixed)
    data = data_sets.load(made.data)
    objectives = prepared(made, data, tmp_path, told.append)
    assert told == [f"asking the teacher once for each of {len(data.train)} training images"]
    network = models.build(NetworkSettings(name=str(tmp_path / "earlier")), outputs=10, channels=1, size=(8, 8)).eval()
    assert objectives.taught is not None
    with torch.no_grad():
        answers = network(preprocess(data.train.images, data.mean, data.std, None))  # type: ignore[attr-defined]
    torch.testing.assert_close(objectives.taught.values, answers, rtol=1e-4, atol=1e-5)


def test_a_mistake_in_what_to_keep_is_told_before_a_teacher_is_trained(tmp_path: Path) -> None:
    made = Experiment(**sections(tmp_path, teacher={"weights": None, "cache_top_k": 10}))
    with pytest.raises(InvalidSetting, match=r"teacher\.cache_top_k = 10: must be below"):
        prepared(made, data_sets.load(made.data), tmp_path)
    assert not (tmp_path / ".teachers").exists()
