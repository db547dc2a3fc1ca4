"""The task's own loss and nothing else: how a teacher is trained, and what every distillation has to beat."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kdsearch.methods.base import Method

if TYPE_CHECKING:
    import torch

    from kdsearch.data.base import Batch


class Supervised(Method):
    """L = the task's loss on the student's outputs; no hyperparameters of its own.

    Classification has `ce`, which smooths the labels.
    """

    name = "supervised"
    title = "The task's own loss, without distillation"
    citation = "No paper: training from scratch on the ground truth, the control of every distillation"
    notes = (
        "L is the loss of the task: cross-entropy over the pixels that count for segmentation, the sums that the cards "
        "of the other tasks state for theirs [ours].",
        "It has no distillation weight, so trial 1, the control, is trial 0 [ours].",
        "It trains the teacher of a dense task where that comes without weights [ours].",
        "Trained with Adam 3e-3 and weight decay 1e-4, which suits small networks of every dense task; learning rate "
        "and weight decay are what a search of it varies [ours].",
    )
    tasks = ("segmentation", "detection", "edges", "super_resolution")
    paper_training = {"optimizer": "adam", "learning_rate": 0.003, "momentum": 0.9, "weight_decay": 1e-4}
    forwards = 1.0

    def losses(self, batch: Batch, progress: float) -> dict[str, torch.Tensor]:
        return {"supervised": self.task.loss(self.student(batch.images), batch.targets)}
