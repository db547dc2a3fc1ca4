"""Plain Optuna as its documentation shows it: processes that share a study in a journal file, and a pruner."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import optuna
import workload
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.study import MaxTrialsCallback


def objective(trial: optuna.Trial) -> float:
    setting = {name: suggest(trial, name, entry) for name, entry in workload.space().items()}
    accuracy = 0.0
    for epoch, value in enumerate(workload.train(setting), start=1):
        accuracy = value
        trial.report(accuracy, epoch)
        if trial.should_prune():
            raise optuna.TrialPruned
    return accuracy


def suggest(trial: optuna.Trial, name: str, entry: dict[str, Any]) -> Any:
    if "choices" in entry:
        return trial.suggest_categorical(name, entry["choices"])
    return trial.suggest_float(name, entry["low"], entry["high"], log=entry["log"])


def worker(folder: Path, number: int) -> None:
    study = optuna.create_study(
        study_name="benchmark",
        storage=JournalStorage(JournalFileBackend(str(folder / "optuna.journal"))),
        direction="maximize",
        load_if_exists=True,
        sampler=optuna.samplers.TPESampler(seed=workload.seed() * workload.SLOTS + number),
        pruner=optuna.pruners.SuccessiveHalvingPruner(min_resource=workload.GRACE, reduction_factor=workload.REDUCTION),
    )
    # All states, running ones too: the processes together start no more than the number of trials.
    study.optimize(objective, callbacks=[MaxTrialsCallback(workload.trials(), states=None)])


def main() -> None:
    folder = sys.argv[1]
    if len(sys.argv) > 2:
        worker(Path(folder), int(sys.argv[2]))
        return
    command = [sys.executable, __file__, folder]
    workers = [subprocess.Popen([*command, str(number)]) for number in range(workload.SLOTS)]
    codes = [process.wait() for process in workers]
    if any(codes):
        raise SystemExit("a worker failed")


if __name__ == "__main__":
    main()
