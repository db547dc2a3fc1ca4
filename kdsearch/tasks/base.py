"""What a task is: its loss on outputs, its metric, its evaluation."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from kdsearch import models

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import torch
    from torch import nn

    from kdsearch.data.base import Batch, Batching, DataSet, Split, TrainingBatches
    from kdsearch.objective import Panels as Panels
    from kdsearch.settings import NetworkSettings

    Predict = Callable[[torch.Tensor], torch.Tensor]


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

    data: ClassVar[str]
    """The built-in set that a search takes when nothing but the task is named."""
    student: ClassVar[str]
    """The network that it then trains."""
    student_arguments: ClassVar[Mapping[str, Any]] = {}
    """The arguments of that network."""
    teacher: ClassVar[Mapping[str, Any]] = {}
    """The teacher section that it then has, where the method needs one."""
    training: ClassVar[Mapping[str, Any]] = {}
    """What the training section then has, such as a batch size."""
    search: ClassVar[Mapping[str, Any]] = {}
    """What the search section then has, such as a number of trials that suits the built-in set."""
    whole_images: ClassVar[bool] = True
    """Whether training images are shown whole, the same in each epoch but for augmentation; False: a random part."""
    teacher_method: ClassVar[str] = "supervised"
    """The method that trains a teacher which comes without weights."""

    @abstractmethod
    def loss(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """The supervised loss, a scalar; outputs as the student gives them, targets as `Batch.targets`."""

    @abstractmethod
    def outputs(self, data: DataSet) -> int:
        """Number of outputs (dimension 1) the network needs for this data set."""

    @abstractmethod
    def shape(self, data: DataSet) -> tuple[int | None, ...]:
        """Shape of the output for one image of `data.size`; None where any length will do."""

    @abstractmethod
    def batches(self, data: DataSet, batching: Batching) -> TrainingBatches:
        """The training part as batches. Raises InvalidSetting for an augmentation that these images cannot have."""

    @abstractmethod
    def evaluate(self, predict: Predict, split: Split, device: torch.device) -> dict[str, float]:
        """All metrics over a whole split; `predict` maps uint8 images on the device to outputs in eval mode."""

    def build(self, network: NetworkSettings, data: DataSet) -> nn.Module:
        """A network for this task and data set, in training mode on the CPU. Raises UserError."""
        return models.build(
            network,
            outputs=self.outputs(data),
            channels=data.channels,
            size=data.size,
            task=self.name,
            scale=data.scale,
            shape=self.shape(data),
        )

    def input_size(self, module: nn.Module, network: NetworkSettings, data: DataSet) -> tuple[int, int] | None:
        """Height and width to which images are resized for the network; None: it takes any, as they are.

        Dense tasks do not resize: their truth has the size of the images (`data.image_size` sets both).
        """
        return data.size

    def logits(self, outputs: torch.Tensor) -> torch.Tensor:
        """The class logits [B, K, ...] among the outputs."""
        return outputs

    def swap(self, batch: Batch, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Targets of the two views of a patch swap: the image with its partner's pixels where `mask` is set (bool
        [B, 1, H, W]), and the partner with the image's."""
        raise NotImplementedError(f"{self.name} has no rule for swapped patches")

    def agreement(
        self, outputs: torch.Tensor, targets_a: torch.Tensor, targets_b: torch.Tensor, batch: Batch
    ) -> torch.Tensor | None:
        """Weights [B, ...] of the divergence between the two views at each position, whose mean over all positions is
        the term; None: 1 everywhere. `outputs` are those of view a."""
        return None

    def final_metrics(self, predict: Predict, split: Split, device: torch.device) -> dict[str, float]:
        """Metrics that are too costly for every epoch: measured on a finished student, and by `kdsearch evaluate`."""
        return {}

    def evidence(self, predict: Predict, data: DataSet, device: torch.device) -> Evidence:
        """What to keep of a finished student, from the validation split; nothing unless a task says otherwise."""
        return Evidence()

    def panels(self, predict: Predict, data: DataSet, device: torch.device, teacher: Predict | None = None) -> Panels:
        """The same few validation images in columns of uint8 [C, H, W]: `input`, `target`, `teacher` where there is
        one, `student`. Nothing where the output is no picture."""
        return {}
