"""A small run folder as a search leaves it: the paper's setting, the control that was stopped, one still running."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from kdsearch.results.pictures import confusion_matrix, predictions
from kdsearch.results.tensorboard import TrialWriter, write_experiment
from kdsearch.settings import Choices, Range

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from kdsearch.settings import Scalar

METRIC = "validation/accuracy"

SPACE: Mapping[str, Range | Choices | Scalar] = {
    "temperature": Range(low=1, high=8),
    "alpha": Range(low=0.1, high=2, log=True),
    "learning_rate": Range(low=0.001, high=0.3, log=True),
    "patches": Choices(choices=(2, 4, 8)),
    "nesterov": Choices(choices=(True, False)),
    "optimizer": "sgd",
}

PAPER: Mapping[str, Scalar] = {
    "temperature": 4.0, "alpha": 1.0, "learning_rate": 0.05, "patches": 4, "nesterov": False, "optimizer": "sgd",
}  # fmt: skip
CONTROL = {**PAPER, "alpha": 0.0}
SAMPLED = {**PAPER, "temperature": 2.5, "alpha": 0.7, "learning_rate": 0.0123, "patches": 8, "nesterov": True}

TRIALS = ((PAPER, 27, "COMPLETE"), (CONTROL, 9, "PRUNED"), (SAMPLED, 15, None))
"""Hyperparameters, epochs and final state of trials 0, 1 and 2; None: still running."""


def accuracy(number: int, epoch: int) -> float:
    """A rising curve whose last value is not its best: it falls by 0.01 at the last epoch of every trial."""
    last = epoch == TRIALS[number][1]
    return round(0.97 - 0.02 * number - 0.6 * math.exp(-(epoch - last) / 4) - 0.01 * last, 6)


def best(number: int) -> float:
    return max(accuracy(number, epoch) for epoch in range(1, TRIALS[number][1] + 1))


def report(number: int, epoch: int) -> dict[str, float]:
    loss = 2 * math.exp(-epoch / 5) + 0.1 * (number + 1)
    return {
        "loss/total": loss,
        "loss/cross_entropy": 0.6 * loss,
        "loss/swap": 0.4 * loss,
        "validation/accuracy": accuracy(number, epoch),
        "learning_rate": 0.025 * (1 + math.cos(math.pi * (epoch - 1) / 27)),
        "seconds": 0.4 + 0.01 * (epoch % 3),
    }


def write_run(run: Path, pictures: bool = False) -> None:
    """The whole run folder, written with the project's own writer."""
    write_experiment(run, SPACE, METRIC, tried=[PAPER, CONTROL])
    start = 1_700_000_000.0
    for number, (hyperparameters, epochs, state) in enumerate(TRIALS):
        writer = TrialWriter(run / "trials" / f"{number:04d}", METRIC)
        writer.hyperparameters(hyperparameters, started=start)
        top = -math.inf
        for epoch in range(1, epochs + 1):
            top = max(top, accuracy(number, epoch))
            writer.scalars(epoch, report(number, epoch), best=top, wall_time=start + 0.5 * epoch)
        if state is not None:
            writer.finish(state, ended=start + 0.5 * epochs)
    if pictures:
        _write_pictures(TrialWriter(run / "trials" / "0000", METRIC))


def _write_pictures(writer: TrialWriter) -> None:
    from sklearn.datasets import load_digits

    digits = load_digits()
    classes = [str(digit) for digit in digits.target_names]
    images = (digits.images[:16] * 255 / 16).astype(np.uint8)[:, None]
    guessed = [*digits.target[:15].tolist(), 0]
    counts = 34 * np.eye(10, dtype=int) + np.eye(10, k=1, dtype=int) + np.eye(10, k=-9, dtype=int)
    writer.image("best/predictions", predictions(images, digits.target[:16], guessed, [0.93] * 16, classes), 27)
    writer.image("best/confusion_matrix", confusion_matrix(counts.tolist(), classes), 27)
