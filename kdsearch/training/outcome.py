"""What a finished training leaves behind: the facts about its best student, and pictures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kdsearch import models
from kdsearch.training.trainer import predictor
from kdsearch.versions import versions

if TYPE_CHECKING:
    from kdsearch.objective import Panels
    from kdsearch.training.trainer import Trainer


@dataclass(frozen=True)
class Outcome:
    """The document and the pictures of a training's best student."""

    facts: dict[str, Any]
    """metrics.json without what only a search can know."""
    pictures: dict[str, bytes]
    """PNG by name."""
    panels: Panels
    """The task's own pictures in columns, where its output is one."""


def outcome(trainer: Trainer) -> Outcome:
    """The outcome of a trainer that is done: its student takes up the best weights and is looked at once more."""
    best, experiment, data = trainer.best, trainer.experiment, trainer.data
    assert best is not None, "no epoch was trained yet"
    trainer.student.load_state_dict(best.state)
    predict = predictor(trainer.student, data, trainer.size)
    evidence = trainer.task.evidence(predict, data, trainer.device)
    final = trainer.task.final_metrics(predict, data.validation, trainer.device)
    facts = {
        "task": experiment.task,
        "method": experiment.method,
        "metric": trainer.task.metric,
        "mode": trainer.task.mode,
        "value": best.value,
        "validation": best.metrics | final,
        **evidence.facts,
        "weights": best.weights,
        "epoch": best.epoch,
        "epochs": trainer.training.epochs,
        "seed": trainer.seed,
        "hyperparameters": trainer.hyperparameters,
        "student": {
            **experiment.student.model_dump(mode="json", exclude={"weights"}),
            "task": experiment.task,
            "outputs": trainer.task.outputs(data),
            "channels": data.channels,
            "size": list(data.size),
            "scale": data.scale,
            "input": None if trainer.size is None else list(trainer.size),
            "mean": list(data.mean),
            "std": list(data.std),
            "parameters": models.count_parameters(trainer.student),
        },
        "data": experiment.data.model_dump(mode="json", exclude={"root"}),
        "classes": list(data.classes),
        "training": trainer.training.model_dump(mode="json"),
        "seconds": round(sum(report.seconds for report in trainer.history), 3),
        "versions": versions(),
        "test_readings": [],
    }
    return Outcome(facts, evidence.pictures, trainer.panels(trainer.student))
