"""Comparisons as a driver would leave them, from figures that a test chooses."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from optuna.trial import TrialState

from kdsearch.results.confirmation import CONTROL, PAPER, WINNER
from tests.results.build_run import RunBuilder

Values = Sequence[float | None]


def setting(values: Values, role: str = "search") -> dict[str, Any]:
    """One part of a confirmation whose test metric on seeds 2, 4, … has these values; None: it diverged."""
    known = [value for value in values if value is not None]
    count = len(known)
    mean = {"mean": sum(known) / count, "low": min(known), "high": max(known), "count": count} if known else None
    return {
        "trial": {"search": 2, "paper": 0, "control": 1}[role],
        "role": role,
        "hyperparameters": {"alpha": 1.0},
        "search": 0.9,
        "validation": mean,
        "test": mean,
        "per_class": {},
        "per_seed": [
            {"seed": 2 * place, "test": value, "validation": value, "error": "diverged" if value is None else None}
            for place, value in enumerate(values, 1)
        ],
    }


def confirmation(winner: Values, paper: Values | None = None) -> dict[str, Any]:
    """A confirm.json; without `paper` the paper's setting has won."""
    parts = {WINNER: setting(winner, "search" if paper else "paper"), CONTROL: setting(winner, "control")}
    if paper:
        parts[PAPER] = setting(paper, "paper")
    seeds = [2 * place for place in range(1, len(winner) + 1)]
    return {
        "seeds": {"deciding": [], "reporting": seeds},
        "settings": parts,
        "optimism": None,
        "test_readings": [{}] * len(seeds) * len(parts),
    }


def row(name: str, labels: tuple[float, float] = (1.0, 0.0)) -> dict[str, Any]:
    run = f"labels{labels[0]:g}-noise{labels[1]:g}-{name}".replace("+", "-")
    return {
        "run": run,
        "name": name,
        "method": name.partition("+")[0],
        "label_fraction": labels[0],
        "label_noise": labels[1],
        "epochs": 3,
    }


def document(rows: Sequence[Mapping[str, Any]], **changes: Any) -> dict[str, Any]:
    return {
        "comparison": "mine",
        "task": "classification",
        "metric": "accuracy",
        "mode": "max",
        "seed": 0,
        "data": "digits",
        "student": "resnet8",
        "reference": "ce",
        "budget": {"unit": "images", "amount": 2000},
        "seeds": 3,
        "top": 2,
        "costs": {},
        "failures": {},
        "rows": list(rows),
        **changes,
    }


def comparison_in(storage: Path, content: Mapping[str, Any]) -> Path:
    """The folder of a comparison of which nothing has begun."""
    folder = storage / "mine"
    folder.mkdir(parents=True)
    (folder / "compare.yaml").write_text("entries: []\n")
    (folder / "compare.json").write_text(json.dumps(content))
    return folder


def searched(folder: Path, mode: str = "max", best: float = 0.8) -> None:
    """A run of three trials: the paper's, the control (2 epochs of 100 images each), one of 3 epochs of 300 images."""
    run = RunBuilder(folder, mode=mode)
    run.trial([0.5, 0.6], TrialState.COMPLETE, 0.6, role="paper", seconds=4.0, images=200, epochs=2)
    run.trial([0.9, 0.95], TrialState.COMPLETE, 0.95, role="control", seconds=4.0, images=200, epochs=2)
    run.trial([0.4, best, 0.7], TrialState.COMPLETE, best, seconds=9.0, images=900, epochs=3)
    run.describe(state="COMPLETE", why="done")


def confirmed(folder: Path, winner: Values, paper: Values | None = None) -> None:
    """A searched run with its confirmation."""
    searched(folder, best=max(value for value in winner if value is not None))
    (folder / "confirm.json").write_text(json.dumps(confirmation(winner, paper)))
