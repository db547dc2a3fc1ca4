"""The search: Ray Tune runs the trials, Optuna chooses them, the ledger keeps the books."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kdsearch.tuning.run import resume as resume
    from kdsearch.tuning.run import search as search

__all__ = ["resume", "search"]


def __getattr__(name: str) -> Any:
    """Loaded on first use: the processes of trials come through here too, and need neither Optuna nor the books."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from kdsearch.tuning import run

    return getattr(run, name)
