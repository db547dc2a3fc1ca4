"""A search, ready to run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from kdsearch.experiment import Experiment
    from kdsearch.objective import Objective
    from kdsearch.settings import Scalar
    from kdsearch.tuning.upload import Upload

    Objectives = Callable[[Mapping[str, Scalar]], Objective]


@dataclass(frozen=True)
class Plan:
    """What is known before the first trial."""

    experiment: Experiment
    folder: Path
    slots: int
    objectives: Objectives
    upload: Upload | None = None
    """Sends the run to its storage at a URL."""
