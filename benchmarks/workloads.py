"""What the searches of the search-cost study search: three methods on two sets with few labels, in wide ranges.

In narrow ranges and with a small validation part the noise of seeds and of validation is as large as what settings
differ by, and no searcher can show what it is worth. So the ranges are wider than the shipped ones, and 1,000 images
validate.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from kdsearch.experiment import Experiment

EPOCHS = 27
SMALL_SHAPES = f"{Path(__file__).resolve().parent / 'small_shapes.py'}:small_shapes"

SETS: dict[str, dict[str, Any]] = {
    # Of the 1,797 images 301 train, 1,007 validate and 360 test.
    "digits": {"name": "digits", "validation_fraction": 0.56, "label_fraction": 0.7},
    "shapes": {"name": SMALL_SHAPES},
}
STUDENT = {"name": "resnet8", "arguments": {"width": 0.5}}
TEACHER = "resnet20"
RATES = {
    "learning_rate": {"low": 0.001, "high": 1, "log": True},
    "weight_decay": {"low": 1e-6, "high": 0.1, "log": True},
}
SPACES: dict[str, dict[str, Any]] = {
    "ips": {
        "temperature": {"low": 0.5, "high": 16, "log": True},
        "alpha": {"low": 0.03, "high": 10, "log": True},
        "gamma": {"low": 0.1, "high": 3, "log": True},
        "swap_probability": {"low": 0.0, "high": 1.0},
        "patches_per_side": {"choices": [2, 4, 8]},
        **RATES,
    },
    "lsskd": {
        "alpha": {"low": 0.0, "high": 0.95},
        "beta": {"low": 0.0, "high": 0.9},
        "gamma": {"low": 0.001, "high": 10, "log": True},
        "temperature": {"low": 0.5, "high": 16, "log": True},
        **RATES,
    },
    "kd": {
        "temperature": {"low": 0.5, "high": 20, "log": True},
        "alpha": {"low": 0.01, "high": 0.99},
        **RATES,
    },
}
WORKLOADS = tuple(f"{method} {name}" for name in SETS for method in SPACES)


def workload(name: str) -> Experiment:
    """The experiment of METHOD SET."""
    method, data = name.split()
    return Experiment(
        method=method,
        data=SETS[data],
        student=STUDENT,
        teacher=TEACHER if method == "kd" else None,
        space=SPACES[method],
        training={"epochs": EPOCHS, "batch_size": 32},
        resources={"gpus_per_trial": 0},
    )
