"""Syne Tune as its documentation shows it: the local backend, and its ASHA that stops with a model of the space."""

from __future__ import annotations

import sys
from pathlib import Path

import workload


def main() -> None:
    from syne_tune import StoppingCriterion, Tuner
    from syne_tune.backend import LocalBackend
    from syne_tune.config_space import choice, loguniform, uniform
    from syne_tune.optimizer.baselines import ASHA

    found = {}
    for name, entry in workload.space().items():
        if "choices" in entry:
            found[name] = choice([int(value) for value in entry["choices"]])
        else:
            found[name] = (loguniform if entry["log"] else uniform)(entry["low"], entry["high"])
    scheduler = ASHA(
        found,
        metric="accuracy",
        do_minimize=False,
        time_attr="epoch",
        max_t=workload.epochs(),
        grace_period=workload.GRACE,
        reduction_factor=workload.REDUCTION,
        random_seed=workload.seed(),
    )
    tuner = Tuner(
        trial_backend=LocalBackend(entry_point=str(Path(__file__).resolve())),
        scheduler=scheduler,
        stop_criterion=StoppingCriterion(max_num_trials_started=workload.trials()),
        n_workers=workload.SLOTS,
    )
    tuner.run()


def trial() -> None:
    import argparse

    from syne_tune import Reporter

    parser = argparse.ArgumentParser()
    kinds = {name: int if "choices" in entry else float for name, entry in workload.space().items()}
    for name, kind in kinds.items():
        parser.add_argument(f"--{name}", type=kind)
    setting = vars(parser.parse_known_args()[0])
    report = Reporter()
    for epoch, accuracy in enumerate(workload.train(setting), start=1):
        report(epoch=epoch, accuracy=accuracy)


if __name__ == "__main__":
    if any(argument.startswith("--") for argument in sys.argv[1:]):
        trial()
    else:
        main()
