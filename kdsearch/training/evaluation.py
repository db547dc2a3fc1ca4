"""An export, measured again in a new process."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from kdsearch import data as data_sets
from kdsearch import models, tasks
from kdsearch.consent import refuse_code
from kdsearch.data.preprocessing import resize
from kdsearch.errors import BadWeights, InvalidSetting, RunError, UserError
from kdsearch.models.speed import latency
from kdsearch.results.documents import read_json, read_yaml
from kdsearch.results.export import METRICS, WEIGHTS, add_test_reading
from kdsearch.settings import DataSettings
from kdsearch.students import names_in, place_of
from kdsearch.training import robustness
from kdsearch.training.trainer import default_device, predictor

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import nn

    from kdsearch.data.base import DataSet, Split
    from kdsearch.tasks.base import Task

SPLITS = {"val": "validation", "validation": "validation", "test": "test"}


@dataclass(frozen=True)
class OpenExport:
    """An exported student with the data it was trained for."""

    folder: Path
    facts: dict[str, Any]
    task: Task
    data: DataSet
    network: nn.Module
    """In eval mode, on the device."""
    size: tuple[int, int] | None
    """Height and width of the network's input; None: any."""
    device: torch.device

    def of_units(self, images: torch.Tensor) -> torch.Tensor:
        """Outputs for images float [B, C, H, W] in [0, 1], differentiable."""
        resized = images.clone() if self.size is None else resize(images, self.size)
        mean, std = (resized.new_tensor(values).view(-1, 1, 1) for values in (self.data.mean, self.data.std))
        outputs: torch.Tensor = self.network((resized - mean) / std)
        return outputs


@dataclass(frozen=True)
class Questions:
    """What is asked of a student beside its metrics."""

    corruptions: bool = False
    corruptions_root: Path | None = None
    """Folder of the published CIFAR-10-C or CIFAR-100-C, used in place of corruptions of the split."""
    fgsm: tuple[float, ...] = ()
    """Sizes ε of the step, of images in [0, 1]."""
    pgd: tuple[float, ...] = ()
    calibration: bool = False
    latency: bool = False

    @property
    def of_classifiers(self) -> bool:
        return self.corruptions or self.corruptions_root is not None or bool(self.fgsm or self.pgd) or self.calibration


def evaluate_export(
    export: str | Path,
    split: str = "val",
    data_root: str | None = None,
    questions: Questions = Questions(),
    *,
    allow_code: bool = False,
) -> dict[str, Any]:
    """Metrics of an exported student on a split of the data it was trained for, and answers to the questions.

    Reading the test split is an act: it is counted in the export's metrics.json, once however much is asked. Code that
    the export names is refused unless `allow_code`. Raises UserError.
    """
    if split not in SPLITS:
        raise InvalidSetting("--split", split, "must be val or test")
    opened = open_export(export, data_root, allow_code=allow_code)
    if questions.of_classifiers and opened.task.name != "classification":
        raise UserError(f"{str(export)!r} is for {opened.task.name}: of its students only --latency can be asked")
    task, device = opened.task, opened.device
    chosen = getattr(opened.data, SPLITS[split])
    predict = predictor(opened.network, opened.data, opened.size)
    metrics = task.evaluate(predict, chosen, device) | task.final_metrics(predict, chosen, device)
    answers = _answers(opened, chosen, questions)
    readings = len(opened.facts.get("test_readings", []))
    if SPLITS[split] == "test":
        readings = add_test_reading(opened.folder, metrics)
    return {"export": str(export), "split": SPLITS[split], "metrics": metrics, "test_readings": readings, **answers}


def open_export(export: str | Path, data_root: str | None = None, *, allow_code: bool = False) -> OpenExport:
    """The student of an export, built, with its weights and data. Raises UserError."""
    folder = Path(export).expanduser()
    if not (folder / METRICS).is_file() or not (folder / WEIGHTS).is_file():
        raise RunError(f"{str(export)!r} is not an export: it holds no {METRICS} and {WEIGHTS}")
    facts = read_json(folder / METRICS)
    try:
        student, settings, task = facts["student"], DataSettings(**facts["data"]), tasks.find(facts["task"])
        recorded = _recorded(folder, student.get("name"))
        size = tuple(student["input"]) if student["input"] is not None else None
        mean, std = tuple(student["mean"]), tuple(student["std"])
    except (KeyError, TypeError, ValueError) as error:
        raise BadWeights(f"{folder / METRICS} is not complete: {error}") from None
    places = {"name": recorded.get("data", settings.name), "root": data_root or recorded.get("root")}
    settings = settings.model_copy(update=places)
    built = recorded.get("student", student.get("name"))
    if not allow_code:
        refuse_code({"data": settings.name, "student": built}, str(export))
    data = replace(data_sets.load(settings, task.name), mean=mean, std=std)
    network = models.from_export(folder)
    network = network.model_copy(update={"name": recorded.get("student", network.name)})
    device = default_device()
    return OpenExport(folder, facts, task, data, task.build(network, data).to(device).eval(), size, device)


def _answers(opened: OpenExport, split: Split, questions: Questions) -> dict[str, Any]:
    network, device = opened.of_units, opened.device
    answers: dict[str, Any] = {}
    if questions.corruptions_root is not None:
        found = robustness.published_accuracy(network, questions.corruptions_root, device)
        answers["corruptions"] = robustness.summary(found) | {"images": "published"}
    elif questions.corruptions:
        found = robustness.corruption_accuracy(network, split, device)
        answers["corruptions"] = robustness.summary(found) | {"images": "this split, corrupted here"}
    for name, attack in (("fgsm", robustness.fgsm_accuracy), ("pgd", robustness.pgd_accuracy)):
        if sizes := getattr(questions, name):
            answers[name] = {f"{size:g}": attack(network, split, device, size) for size in sizes}
    if questions.calibration:
        answers["calibration"] = robustness.calibration(network, split, device)
    if questions.latency:
        side = opened.size or opened.data.size
        example = torch.zeros((1, opened.data.channels, *side), device=device)
        answers["latency"] = asdict(latency(opened.network, example))
    return answers


def _recorded(folder: Path, built: object) -> dict[str, str]:
    """Where the run's own experiment says that a person's files lie (`data`, `root`, `student`): exports do not say.

    `built`: the network as the export names it, one of several students perhaps.
    """
    experiment = folder.resolve().parent / "experiment.yaml"
    if not experiment.is_file():
        return {}
    content = read_yaml(experiment)
    data = content.get("data")
    found = {"root": _text(data, "root"), "data": _own(data), "student": _own_student(content, built)}
    return {name: place for name, place in found.items() if place}


def _own_student(content: Mapping[str, Any], built: object) -> str | None:
    """Where the network of the export lies, if it is a file of a person's."""
    return _own({"name": place_of(content, built)} if names_in(content) else content.get("student"))


def _own(section: Any) -> str | None:
    """The name in a section, where it is a file of a person's."""
    name = _text(section, "name")
    return name if name is not None and ".py:" in name else None


def _text(section: Any, key: str) -> str | None:
    value = section.get(key) if isinstance(section, dict) else None
    return value if isinstance(value, str) else None
