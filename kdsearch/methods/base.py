"""What a distillation method is: named, weighted loss terms of one batch."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from pydantic import BaseModel, ConfigDict
from torch import nn

if TYPE_CHECKING:
    import torch

    from kdsearch.data.base import Batch, Facts
    from kdsearch.settings import Scalar
    from kdsearch.tasks.base import Task


class Teacher(Protocol):
    """What teaches: images normalised for the student [B, C, H, W] → outputs, without gradient."""

    @property
    def module(self) -> nn.Module:
        """The network behind it, whose insides a method may look at."""
        ...

    def __call__(self, images: torch.Tensor) -> torch.Tensor: ...


class Hyperparameters(BaseModel):
    """A method's own hyperparameters: the paper's values as defaults, the legal range as constraints.

    `Field(description=...)` of each says unit and equation; `weight = True` in `json_schema_extra` marks a
    distillation weight, which the scratch control sets to 0.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Method(nn.Module):
    """One distillation method.

    The student is the sub-module `student`; further trainable parts are further sub-modules: the Trainer
    optimises them and the export leaves them out. The teacher is held outside the module tree, so that it is
    neither trained nor saved.

    Nothing in `losses` may depend on a hyperparameter's value in Python (`if`, `.item()`): it may be a tensor.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    """The method in a few words."""
    citation: ClassVar[str]
    """Authors, title, year, arXiv number or venue."""
    notes: ClassVar[tuple[str, ...]] = ()
    """The method's card: one sentence each, ending with its mark [doc], [ref] or [ours]."""
    tasks: ClassVar[tuple[str, ...]] = ("classification",)
    needs_teacher: ClassVar[bool] = False
    needs_partners: ClassVar[bool] = False
    """Each batch brings, for every image, another one of its class."""
    paper_training: ClassVar[Mapping[str, Scalar]] = {}
    """Training settings of the paper (learning_rate, weight_decay, optimizer, momentum): trial 0 takes them."""
    forwards: ClassVar[float]
    """Student forward passes per training image, for fair comparisons of cost."""

    Hyperparameters: ClassVar[type[Hyperparameters]] = Hyperparameters

    def __init__(
        self, hyperparameters: Any, student: nn.Module, teacher: Teacher | None, task: Task, facts: Facts
    ) -> None:
        super().__init__()
        self.hyperparameters = hyperparameters
        self.student = student
        self.task = task
        self.facts = facts
        # A tuple hides the teacher from nn.Module's bookkeeping.
        self._teacher = (teacher,)

    @property
    def teacher(self) -> Teacher:
        """The teacher: normalised student images [B, C, H, W] → logits [B, K], without gradient."""
        teacher = self._teacher[0]
        assert teacher is not None, f"{self.name} was built without a teacher"
        return teacher

    def taught(self, batch: Batch) -> torch.Tensor:
        """The teacher's outputs for the images of a batch: as the batch brings them, or by asking the teacher."""
        return self.teacher(batch.images) if batch.taught is None else batch.taught

    @abstractmethod
    def losses(self, batch: Batch, progress: float) -> dict[str, torch.Tensor]:
        """Named, already weighted scalar terms; their sum is the loss.

        `progress` ∈ [0, 1) is the share of the FULL budget that is spent, whatever rung will end the trial.
        """

    def start_epoch(self, epoch: int) -> None:
        """Called before each epoch (from 0), in training order."""

    def diagnostics(self, batch: Batch, progress: float) -> dict[str, float]:
        """Called once an epoch with its first batch, before it is trained on: what else is worth a curve."""
        return {}

    @classmethod
    def control(cls) -> dict[str, Scalar]:
        """The hyperparameters that turn the method off: every distillation weight 0."""
        weights: dict[str, Scalar] = {}
        for name, field in cls.Hyperparameters.model_fields.items():
            if isinstance(field.json_schema_extra, dict) and field.json_schema_extra.get("weight"):
                weights[name] = 0.0
        return weights
