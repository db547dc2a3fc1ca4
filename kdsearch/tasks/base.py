"""What a task is: its loss on outputs, its metric, its evaluation."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch

    from kdsearch.data.base import DataSet, Split


@dataclass(frozen=True)
class Evidence:
    """What is worth keeping of a finished student beside its metrics."""

    facts: dict[str, Any] = field(default_factory=dict)
    """Further entries of metrics.json, such as the accuracy of each class."""
    pictures: dict[str, bytes] = field(default_factory=dict)
    """PNG by name, for TensorBoard and the export."""


class Task(ABC):
    """One kind of problem that a student is trained for."""

    name: ClassVar[str]
    metric: ClassVar[str]
    """The metric that a search optimises, as it stands in `evaluate`'s answer."""
    mode: ClassVar[Literal["max", "min"]]
    worst: ClassVar[float]
    """The worst value the metric can take: what a diverged trial is told as."""

    @abstractmethod
    def loss(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """The supervised loss, a scalar; outputs as the student gives them, targets as `Batch.targets`."""

    @abstractmethod
    def outputs(self, data: DataSet) -> int:
        """Number of outputs the network needs for this data set."""

    @abstractmethod
    def evaluate(
        self, predict: Callable[[torch.Tensor], torch.Tensor], split: Split, device: torch.device
    ) -> dict[str, float]:
        """All metrics over a whole split; `predict` maps uint8 images on the device to outputs in eval mode."""

    def evidence(
        self, predict: Callable[[torch.Tensor], torch.Tensor], data: DataSet, device: torch.device
    ) -> Evidence:
        """What to keep of a finished student, from the validation split; nothing unless a task says otherwise."""
        return Evidence()
