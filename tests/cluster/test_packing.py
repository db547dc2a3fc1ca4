"""`gpus_per_trial: auto` on a real local Ray: real trials on a GPU that is none, whose memory they run out of."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import ray
import torch

from kdsearch.cli.packing import show_packing
from kdsearch.data import load
from kdsearch.errors import InvalidSetting
from kdsearch.experiment import Experiment
from kdsearch.results.packing import in_words, read_packing
from kdsearch.training.packing import Limit
from kdsearch.training.probe import Described
from kdsearch.tuning import resume, search
from kdsearch.tuning.objective import TrainerObjectives
from kdsearch.tuning.packing import PACKINGS, find_packing, fingerprint, kinds
from kdsearch.tuning.pool import ENVIRONMENT
from tests.training import fake_device
from tests.training.fake_device import FakeDevice

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from kdsearch.results.packing import KindDocument, LevelDocument, PackingDocument
    from kdsearch.settings import Scalar
    from kdsearch.training.trainer import Trainer


@pytest.fixture(scope="module")
def local_ray() -> Iterator[None]:
    """One Ray with a logical GPU for all tests of this file that need one."""
    before = dict(os.environ)
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    kind = {"accelerator_type:FAKE": 1.0}
    ray.init(address="local", num_cpus=8, num_gpus=1, resources=kind, include_dashboard=False, log_to_driver=False)
    for module in (fake_device, sys.modules[__name__]):  # workers cannot import the tests
        ray.cloudpickle.register_pickle_by_value(module)
    yield
    ray.shutdown()
    os.environ.clear()
    os.environ.update(before)


def needs_ray(test: Callable[..., None]) -> Callable[..., None]:
    """With Ray, and slow: each copy and each trial is a process that imports torch."""
    return pytest.mark.slow(pytest.mark.usefixtures("local_ray")(test))


def experiment(**changes: Any) -> Experiment:
    sections: dict[str, Any] = {
        "method": "ce",
        "name": "run",
        "space": {"learning_rate": {"low": 0.01, "high": 0.3}, "batch_size": {"choices": [16, 128]}},
        "data": {"name": "digits", "label_fraction": 0.1},
        "training": {"epochs": 1},
        "search": {"trials": 2, "scheduler": "none"},
        "resources": {"gpus_per_trial": "auto", "cpus_per_trial": 0.5},
    }
    return Experiment(**(sections | changes))


def objectives(made: Experiment, device: FakeDevice) -> TrainerObjectives:
    return TrainerObjectives(made, load(made.data), threads=1, device=device)


def limits(folder: Path) -> list[tuple[str, float]]:
    """Process and fraction of each time that a process was held to its share."""
    lines = (folder / "limits").read_text().splitlines()
    return [(line.split()[0], float(line.split()[1])) for line in lines]


def measured(made: Experiment, device: FakeDevice, storage: Path | None = None) -> tuple[PackingDocument, list[str]]:
    """What is found for these trials on this device, and what was said."""
    said: list[str] = []
    found = find_packing(made.resources, objectives(made, device), (), storage, said.append)
    return found, said


@needs_ray
def test_a_search_measures_packs_holds_each_process_to_its_share_and_remembers(tmp_path: Path) -> None:
    folder, storage = tmp_path / "device", tmp_path / "runs"
    folder.mkdir()
    made, device, said = experiment(), FakeDevice(str(folder)), list[str]()
    results = search(made, storage=storage, objectives=objectives(made, device), announce=said.append)
    assert [trial.state for trial in results.trials] == ["COMPLETE"] * 2
    assert results.experiment["resources"]["gpus_per_trial"] == 0.5
    packing = read_packing(results.folder)
    assert packing is not None
    (kind,) = packing["kinds"]
    assert (kind["gpu"], kind["total_memory"], kind["setting"]["batch_size"]) == ("Fake", 1000, 128)
    assert [(level["copies"], level["memory"]) for level in kind["levels"]] == [(1, 120), (2, 240)]
    alone, both = (level["rate"] for level in kind["levels"])
    assert alone is not None
    assert both == pytest.approx(2 * alone)
    assert kind["why"] == "2 trials at a time are 2 a GPU"
    # Two copies of the probe and two trials, each held to nine tenths of its half; the copy that was alone to nothing.
    assert [fraction for _, fraction in limits(folder)] == [0.45] * 4
    assert said[-1] == "2 trials share a GPU (measured), by turns, as NVIDIA MPS is off"
    assert said[:-1] == [
        "measuring how many trials can share a Fake",
        "FAKE: 1 on a GPU: 0.5 steps/s, 0.00 GiB in use",
        "FAKE: 2 on a GPU: 1 steps/s, 0.00 GiB in use",
    ]

    (remembered,) = (storage / PACKINGS).glob("*.json")
    again: list[str] = []
    found = find_packing(made.resources, objectives(made, device), (), storage, again.append)
    assert found["kinds"] == [json.loads(remembered.read_text())] == packing["kinds"]
    assert again == said[-1:], "nothing was measured again"

    more = resume(results.folder, more_trials=1, objectives=objectives(made, device), announce=again.append)
    assert more.experiment["resources"]["gpus_per_trial"] == 0.5
    assert {fraction for _, fraction in limits(folder)} == {0.45}
    assert len(list((storage / PACKINGS).iterdir())) == 1


@needs_ray
def test_as_many_share_a_gpu_as_its_memory_holds(tmp_path: Path) -> None:
    found, said = measured(experiment(search={"trials": 8, "scheduler": "none"}), FakeDevice(str(tmp_path), total=280))
    (kind,) = found["kinds"]
    assert [(level["copies"], level["memory"]) for level in kind["levels"]] == [(1, 120), (2, 240)]
    assert (kind["copies"], found["gpus_per_trial"]) == (2, 0.5)
    assert kind["why"].startswith("3 would take")
    assert said[-1].startswith("2 trials share a GPU (measured)")


@needs_ray
@pytest.mark.parametrize(
    ("trouble", "why"),
    [({"refuses": 2}, "2 failed: out of GPU memory"), ({"kills": 2}, "2 failed: ActorDiedError: ")],
)
def test_a_copy_that_fails_sends_the_measurement_back_to_what_worked(
    tmp_path: Path, trouble: dict[str, Any], why: str
) -> None:
    found, said = measured(experiment(search={"trials": 8, "scheduler": "none"}), FakeDevice(str(tmp_path), **trouble))
    assert (found["kinds"][0]["copies"], found["gpus_per_trial"]) == (1, 1.0)
    assert found["kinds"][0]["why"].startswith(why)
    assert said[-1] == "each trial has a GPU for itself (measured)"


@needs_ray
def test_what_does_not_fit_on_a_whole_gpu_is_said_before_the_first_trial(tmp_path: Path) -> None:
    device = FakeDevice(str(tmp_path), total=110)
    made = experiment()
    with pytest.raises(InvalidSetting) as refused:
        search(made, storage=tmp_path / "runs", objectives=objectives(made, device))
    assert str(refused.value) == (
        "resources.gpus_per_trial = 'auto': the most demanding setting of the space (batch_size = 128) does not fit on "
        "a whole FAKE: lower what it asks for"
    )
    assert not (tmp_path / "runs" / "run").exists()


class Hungry(TrainerObjectives):
    """Trials that need more than the fourth of the device that they are first held to."""

    def trainer(self, hyperparameters: Mapping[str, Scalar], seed: int | None = None) -> Trainer:
        made = super().trainer(hyperparameters, seed)
        assert isinstance(self.device, FakeDevice)
        if self.device.fraction < 0.4:
            raise torch.OutOfMemoryError(f"CUDA out of memory. {self.device.fraction:.2f} of the device is allowed")
        return made


@needs_ray
def test_what_runs_out_of_its_share_runs_again_in_a_process_that_is_held_to_more(tmp_path: Path) -> None:
    made = experiment(resources={"gpus_per_trial": 0.25, "cpus_per_trial": 0.5, "max_concurrent": 1})
    hungry = Hungry(made, load(made.data), threads=1, device=FakeDevice(str(tmp_path)))
    said: list[str] = []
    results = search(made, storage=tmp_path / "runs", objectives=hungry, announce=said.append)
    assert [trial.state for trial in results.trials] == ["COMPLETE"] * 2
    (first, *later) = limits(tmp_path)
    assert first[1] == 0.225
    assert {fraction for _, fraction in later} == {0.45}
    assert first[0] not in {process for process, _ in later}
    assert any("with 0.25 GPUs: it runs again with 0.5" in sentence for sentence in said)
    packing = read_packing(results.folder)
    assert packing == {"asked": 0.25, "gpus_per_trial": 0.25, "mps": False, "kinds": []}


def test_in_a_pool_without_gpus_auto_means_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(ray, "nodes", lambda: [{"Alive": True, "Resources": {"CPU": 2.0}}])
    found, said = measured(experiment(), FakeDevice(str(tmp_path)))
    assert found["gpus_per_trial"] == 0
    assert said == ["no GPU in the pool: trials run on CPUs (gpus_per_trial auto)"]


def test_on_several_kinds_of_gpu_the_share_is_what_the_kind_that_holds_the_fewest_needs(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    made = experiment(search={"trials": 16, "scheduler": "none"})
    documents = iter([4, 2, 8])
    monkeypatch.setattr(
        "kdsearch.tuning.packing._of_kind", lambda kind, *others: {"copies": next(documents), "mps": False}
    )
    nodes = [{"Alive": True, "Resources": {"CPU": 8.0, "GPU": 1.0, f"accelerator_type:{name}": 1.0}} for name in "ABC"]
    monkeypatch.setattr(ray, "nodes", lambda: nodes)
    monkeypatch.setattr(ray, "put", lambda value: value)
    assert measured(made, FakeDevice(str(tmp_path)))[0]["gpus_per_trial"] == 0.5


def test_how_many_copies_there_is_a_use_for() -> None:
    """The CPUs of a kind's smallest node, and the trials that may run at a time."""
    nodes = [
        {"CPU": 16.0, "GPU": 4.0, "accelerator_type:T4": 1.0, "node:10.0.0.1": 1.0},
        {"CPU": 8.0, "GPU": 4.0, "accelerator_type:T4": 1.0},
        {"CPU": 64.0, "GPU": 1.0, "accelerator_type:A100": 1.0},
        {"CPU": 32.0},
        {"CPU": 0.0, "GPU": 1.0, "accelerator_type:L4": 1.0},
        {"CPU": 9.0, "GPU": 1.0},
    ]
    made = experiment(search={"trials": 500, "scheduler": "none"}, resources={"cpus_per_trial": 1})
    found = {kind.name: kind.limit.copies for kind in kinds(nodes, made)}
    assert found == {"": 9, "A100": 50, "T4": 2}
    few = experiment(search={"trials": 500, "scheduler": "none"}, resources={"cpus_per_trial": 1, "max_concurrent": 25})
    assert {kind.name: kind.limit.copies for kind in kinds(nodes, few)} == {"": 3, "A100": 3, "T4": 2}
    assert kinds([{"CPU": 4.0}], made) == []


def test_another_setting_device_or_number_of_cpus_is_measured_anew(tmp_path: Path) -> None:
    made, device = experiment(), FakeDevice(str(tmp_path))
    limit, gpu = Limit(4, ""), Described("A", 10, mps=False)
    base = objectives(made, device)

    def name(changed: TrainerObjectives = base, limit: Limit = limit, gpu: Described = gpu, **tried: Scalar) -> str:
        return fingerprint(changed, [tried] if tried else [], limit, gpu)

    def with_changes(**changes: Any) -> TrainerObjectives:
        return replace(base, experiment=experiment(**changes))

    same = with_changes(
        name="other",
        seed=7,
        search={"trials": 9, "scheduler": "none"},
        training={"epochs": 5},
        resources=made.resources,
    )
    assert name(same) == name()
    others = [
        name(with_changes(student="resnet20")),
        name(with_changes(training={"epochs": 1, "precision": "bf16"})),
        name(with_changes(resources={"cpus_per_trial": 2})),
        name(limit=Limit(8, "")),
        name(gpu=Described("A", 20, mps=False)),
        name(gpu=Described("A", 10, mps=True)),
        name(batch_size=256),
    ]
    assert len({name(), *others}) == 1 + len(others)


def test_what_was_measured_is_shown_in_a_short_table(capsys: pytest.CaptureFixture[str]) -> None:
    levels: list[LevelDocument] = [
        {"copies": 1, "memory": 2 * 2**30, "rate": 40.0, "failure": None},
        {"copies": 2, "memory": 4 * 2**30, "rate": 70.0, "failure": None},
        {"copies": 4, "memory": None, "rate": None, "failure": "out of GPU memory"},
    ]
    kind: KindDocument = {
        "gpu": "NVIDIA T4",
        "total_memory": 15 * 2**30,
        "mps": True,
        "setting": {"batch_size": 256, "heads": "all", "learning_rate": 0.3},
        "levels": levels,
        "copies": 2,
        "why": "4 failed: out of GPU memory",
        "measured": 0.0,
    }
    show_packing({"asked": "auto", "gpus_per_trial": 0.5, "mps": True, "kinds": [kind]})
    shown = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert shown == [
        "2 trials share a GPU (measured), through NVIDIA MPS",
        "NVIDIA T4, 15.0 GiB, measured with batch_size 256 · heads all",
        "trials a GPU memory in use steps/s gain",
        "1 2.00 GiB 40",
        "2 4.00 GiB 70 +75%",
        "4 out of GPU memory",
        "2 a GPU: 4 failed: out of GPU memory",
    ]
    show_packing({"asked": "auto", "gpus_per_trial": 0.5, "mps": True, "kinds": [kind]}, everything=False)
    assert len(capsys.readouterr().out.splitlines()) == 1


@pytest.mark.parametrize(
    ("document", "sentence"),
    [
        ({"asked": 0.25, "gpus_per_trial": 0.25, "mps": True}, "4 trials share a GPU, through NVIDIA MPS"),
        ({"asked": 0.5, "gpus_per_trial": 0.5, "mps": None}, "2 trials share a GPU, NVIDIA MPS is not known of"),
        (
            {"asked": "auto", "gpus_per_trial": 1.0, "mps": False},
            "each trial has a GPU for itself (nothing was measured)",
        ),
    ],
)
def test_the_packing_in_words(document: dict[str, Any], sentence: str) -> None:
    assert in_words({"kinds": [], **document}) == sentence  # type: ignore[typeddict-item]
