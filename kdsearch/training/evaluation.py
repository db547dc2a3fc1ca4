"""An export, measured again in a new process."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from kdsearch import data as data_sets
from kdsearch import models, tasks
from kdsearch.consent import refuse_code
from kdsearch.errors import BadWeights, InvalidSetting, RunError
from kdsearch.results.documents import read_json, read_yaml
from kdsearch.results.export import METRICS, WEIGHTS, add_test_reading
from kdsearch.settings import DataSettings
from kdsearch.training.trainer import default_device, predictor

SPLITS = {"val": "validation", "validation": "validation", "test": "test"}


def evaluate_export(
    export: str | Path, split: str = "val", data_root: str | None = None, *, allow_code: bool = False
) -> dict[str, Any]:
    """Metrics of an exported student on a split of the data it was trained for.

    Reading the test split is an act: it is counted in the export's metrics.json. Code that the export names is refused
    unless `allow_code`. Raises UserError.
    """
    folder = Path(export).expanduser()
    if split not in SPLITS:
        raise InvalidSetting("--split", split, "must be val or test")
    if not (folder / METRICS).is_file() or not (folder / WEIGHTS).is_file():
        raise RunError(f"{str(export)!r} is not an export: it holds no {METRICS} and {WEIGHTS}")
    facts = read_json(folder / METRICS)
    try:
        student, settings, task = facts["student"], DataSettings(**facts["data"]), tasks.find(facts["task"])
        recorded = _recorded(folder)
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
    predict = predictor(task.build(network, data).to(device), data, size)
    chosen = getattr(data, SPLITS[split])
    metrics = task.evaluate(predict, chosen, device) | task.final_metrics(predict, chosen, device)
    readings = len(facts.get("test_readings", []))
    if SPLITS[split] == "test":
        readings = add_test_reading(folder, metrics)
    return {"export": str(export), "split": SPLITS[split], "metrics": metrics, "test_readings": readings}


def _recorded(folder: Path) -> dict[str, str]:
    """Where the run's own experiment says that a person's files lie (`data`, `root`, `student`): exports do not say."""
    experiment = folder.resolve().parent / "experiment.yaml"
    if not experiment.is_file():
        return {}
    content = read_yaml(experiment)
    data, student = (content.get(section) for section in ("data", "student"))
    found = {"root": _text(data, "root"), "data": _own(data), "student": _own(student)}
    return {name: place for name, place in found.items() if place}


def _own(section: Any) -> str | None:
    """The name in a section, where it is a file of a person's."""
    name = _text(section, "name")
    return name if name is not None and ".py:" in name else None


def _text(section: Any, key: str) -> str | None:
    value = section.get(key) if isinstance(section, dict) else None
    return value if isinstance(value, str) else None
