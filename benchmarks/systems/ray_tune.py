"""Stock Ray Tune as its documentation shows it: a function trainable, OptunaSearch, ASHAScheduler."""

from __future__ import annotations

import sys
from typing import Any

import ray
import workload
from ray import tune
from ray.tune.schedulers import ASHAScheduler
from ray.tune.search.optuna import OptunaSearch


def trainable(config: dict[str, Any]) -> None:
    for accuracy in workload.train(config):
        tune.report({"accuracy": accuracy})


def domain(entry: dict[str, Any]) -> Any:
    if "choices" in entry:
        return tune.choice(list(entry["choices"]))
    return (tune.loguniform if entry["log"] else tune.uniform)(entry["low"], entry["high"])


def main() -> None:
    ray.init(address="local", num_cpus=workload.SLOTS)
    tuner = tune.Tuner(
        tune.with_resources(trainable, {"cpu": 1}),
        param_space={name: domain(entry) for name, entry in workload.space().items()},
        tune_config=tune.TuneConfig(
            metric="accuracy",
            mode="max",
            search_alg=OptunaSearch(seed=workload.seed()),
            scheduler=ASHAScheduler(
                max_t=workload.epochs(), grace_period=workload.GRACE, reduction_factor=workload.REDUCTION
            ),
            num_samples=workload.trials(),
            max_concurrent_trials=workload.SLOTS,
        ),
        run_config=tune.RunConfig(storage_path=sys.argv[1]),
    )
    tuner.fit()


if __name__ == "__main__":
    main()
