"""The search: Ray Tune runs the trials, Optuna chooses them, the ledger keeps the books."""

from kdsearch.tuning.run import resume, search

__all__ = ["resume", "search"]
