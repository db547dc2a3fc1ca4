"""Run folders for tests, written by Optuna itself through a backend that stamps each line with a clock of ours."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import yaml
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState
from safetensors.numpy import save_file

START = 1_700_000_000.0

EXPERIMENT = {
    "method": "ips",
    "task": "classification",
    "name": "my-run",
    "seed": 0,
    "data": {"name": "digits", "root": None},
    "student": {"name": "resnet8"},
    "teacher": None,
    "space": {
        "temperature": {"low": 1.0, "high": 8.0, "log": True},
        "alpha": {"low": 0.3, "high": 3.0, "log": True},
        "patches_per_side": {"choices": [2, 4, 8]},
        "gamma": 1.0,
    },
    "training": {"epochs": 3},
    "search": {"trials": 6, "time": None, "gpu_hours": None},
    "resources": {},
}

DISTRIBUTIONS = {
    "temperature": FloatDistribution(1.0, 8.0, log=True),
    "alpha": FloatDistribution(0.3, 3.0, log=True),
    "patches_per_side": CategoricalDistribution([2, 4, 8]),
    "stages": IntDistribution(1, 3),
}


class TimedBackend(JournalFileBackend):
    """Optuna's file backend, whose n-th line is stamped START + n; without its lock and its sync, for speed."""

    def __init__(self, path: Path) -> None:
        super().__init__(str(path))
        self._path = path
        self._clock: Iterator[float] = (START + line for line in range(10**9))

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        with self._path.open("a") as file:
            file.writelines(json.dumps(log | {"time": next(self._clock)}, separators=(",", ":")) + "\n" for log in logs)


class RunBuilder:
    """A run that is written step by step, as a driver would."""

    def __init__(self, folder: Path, mode: str = "max", experiment: Mapping[str, Any] = EXPERIMENT) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.folder = folder
        folder.mkdir(parents=True)
        (folder / "experiment.yaml").write_text(yaml.safe_dump(dict(experiment)))
        self.study = optuna.create_study(
            storage=JournalStorage(TimedBackend(folder / "study.journal")),
            study_name=folder.name,
            direction="maximize" if mode == "max" else "minimize",
            sampler=optuna.samplers.RandomSampler(seed=0),
        )
        self.describe(metric="accuracy", mode=mode, state="RUNNING", started=START, kdsearch="0.1.0")

    def describe(self, **attributes: Any) -> None:
        for name, value in attributes.items():
            self.study.set_user_attr(name, value)

    def begin(self, role: str = "search", **hyperparameters: Any) -> optuna.Trial:
        trial = self.study.ask(DISTRIBUTIONS)
        setting = {**trial.params, "gamma": 1.0, "learning_rate": 0.05, "detach": True, **hyperparameters}
        trial.set_user_attr("hyperparameters", setting)
        trial.set_user_attr("role", role)
        trial.set_user_attr("node", "node-1")
        trial.set_user_attr("gpu_ids", ["0"])
        return trial

    def end(
        self, trial: optuna.Trial, state: TrialState, value: float | None = None, error: str | None = None, **more: Any
    ) -> None:
        for name, note in {"seconds": 12.5, **({"error": error} if error else {}), **more}.items():
            trial.set_user_attr(name, note)
        self.study.tell(trial, value, state=state)

    def trial(self, curve: list[float], state: TrialState, value: float | None = None, **more: Any) -> int:
        """A whole trial; its number. `role`, `error`, `epochs` and hyperparameters are taken from `more`."""
        notes = {name: more.pop(name) for name in ("error", "epochs", "seconds", "images") if name in more}
        trial = self.begin(**more)
        for epoch, score in enumerate(curve, 1):
            trial.report(score, epoch)
        self.end(trial, state, value, **notes)
        return trial.number


def sample_run(folder: Path) -> RunBuilder:
    """Six trials: paper, control, the best (2), one pruned (3), one diverged (4), one running (5)."""
    run = RunBuilder(folder)
    run.trial([0.5, 0.6, 0.7], TrialState.COMPLETE, 0.71, role="paper", temperature=4.0)
    run.trial([0.4, 0.5, 0.6], TrialState.COMPLETE, 0.61, role="control", alpha=0.0)
    run.trial([0.6, 0.9, 0.8], TrialState.COMPLETE, 0.9)
    run.trial([0.3, 0.2], TrialState.PRUNED, error=None)
    run.trial([0.1, 0.0], TrialState.PRUNED, error="the loss is not finite at step 40", epochs=1)
    run.begin().report(0.95, 1)
    return run


def facts(**changes: Any) -> dict[str, Any]:
    """The metrics document of a small student."""
    return {
        "task": "classification",
        "method": "ips",
        "metric": "accuracy",
        "mode": "max",
        "value": 0.9,
        "validation": {"accuracy": 0.9, "loss": 0.31},
        "per_class_accuracy": {"zero": 0.95, "one": 0.85},
        "weights": "averaged",
        "epoch": 2,
        "epochs": 3,
        "seed": 0,
        "hyperparameters": {"temperature": 4.0},
        "student": {
            "name": "resnet8",
            "stem": "auto",
            "input_size": None,
            "arguments": {},
            "outputs": 2,
            "channels": 1,
            "size": [8, 8],
            "input": [8, 8],
            "mean": [0.3],
            "std": [0.4],
            "parameters": 77000,
        },
        "data": {"name": "digits", "label_fraction": 1.0},
        "classes": ["zero", "one"],
        "training": {"epochs": 3, "batch_size": 64},
        "search": None,
        "versions": {"python": "3.11.7", "kdsearch": "0.1.0", "revision": None},
        **changes,
    }


def keep_best(run: Path, number: int, **changes: Any) -> dict[str, np.ndarray]:
    """What the Trainer leaves in a kept trial's folder; the weights."""
    folder = run / "trials" / f"{number:04d}" / "best"
    folder.mkdir(parents=True)
    weights = {"layer.weight": np.arange(6, dtype=np.float32).reshape(2, 3) + number}
    save_file(weights, folder / "student.safetensors")
    (folder / "facts.json").write_text(json.dumps(facts(**changes)))
    return weights
