"""kdsearch: hyperparameter search for knowledge distillation in computer vision, on Ray Tune.

from kdsearch import Experiment, search

results = search(Experiment.load("ips", {"search.trials": 8}))
results.best, results.trials, results.to_dataframe()
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kdsearch.experiment import Experiment as Experiment
    from kdsearch.results import Results as Results
    from kdsearch.training.trainer import Trainer as Trainer
    from kdsearch.tuning import resume as resume
    from kdsearch.tuning import search as search

__version__ = "0.1.0"

# Loaded on first use: `kdsearch --help` must not wait for torch and ray.
_HOME = {
    "Experiment": "kdsearch.experiment",
    "Results": "kdsearch.results",
    "Trainer": "kdsearch.training.trainer",
    "resume": "kdsearch.tuning",
    "search": "kdsearch.tuning",
}
__all__ = ["__version__", *_HOME]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)
