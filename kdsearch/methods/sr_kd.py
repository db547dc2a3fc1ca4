"""Super-resolution distillation: a student matches the truth, its teacher's features and its teacher's picture."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

import torch
from pydantic import Field
from torch import nn
from torch.nn import functional

from kdsearch.errors import UserError
from kdsearch.methods.base import Hyperparameters, Method
from kdsearch.methods.losses import accurate
from kdsearch.methods.perceptual import Perceptual
from kdsearch.models.upsampling import LowFeatures, captured, find_low_features

if TYPE_CHECKING:
    from kdsearch.data.base import Batch, Facts
    from kdsearch.methods.base import Teacher
    from kdsearch.tasks.base import Task


class SRKDHyperparameters(Hyperparameters):
    """L = L1(ŷ, y) + w_feat·mean((φ(f_s) − f_t)²) + w_vgg·perceptual(ŷ, y) + w_out·L1(ŷ, ŷ_t)."""

    feature_weight: float = Field(
        1.0,
        ge=0,
        le=100,
        description="w_feat, weight of mean((φ(f_s) − f_t)²), the distance of the features before the upsampler; φ "
        "is a trained 1×1 convolution that brings the student's to the teacher's width",
        json_schema_extra={"weight": True},
    )
    perceptual_weight: float = Field(
        1.0,
        ge=0,
        le=100,
        description="w_vgg, weight of the distance between VGG19's features of the student's picture and of the truth; "
        "needs VGG19's weights on disk",
        json_schema_extra={"weight": True},
    )
    output_weight: float = Field(
        0.0,
        ge=0,
        le=100,
        description="w_out, weight of the mean absolute difference between the student's and the teacher's picture",
        json_schema_extra={"weight": True},
    )


class SRKD(Method):
    """Feature matching, perceptual distance and output imitation beside the L1 loss on pictures [B, 3, H, W].

    A term whose weight is 0 is not computed: without features and imitation the teacher is not asked, and VGG19 is
    loaded for the perceptual term alone. Raises UserError where teacher and student have no features of one size,
    BadWeights where VGG19's weights are needed and not there.
    """

    name = "sr_kd"
    title = "Super-resolution distillation by features, perception and imitation"
    citation = (
        "A report on student distillation of compute-heavy networks; its teacher is SwinIR: J. Liang, J. Cao, G. Sun, "
        "K. Zhang, L. Van Gool, R. Timofte, ICCV workshops 2021, arXiv 2108.10257; the connector is that of FitNets: "
        "A. Romero et al., ICLR 2015, arXiv 1412.6550"
    )
    notes = (
        "L = L1(ŷ, y) + w_feat·mean((φ(f_s) − f_t)²) + w_vgg·perceptual(ŷ, y), with φ a trained 1×1 convolution and "
        "features at low resolution, before the upsampler; the sum is unweighted: w_feat = w_vgg = 1 [doc].",
        "w_out·L1(ŷ, ŷ_t), imitation of the teacher's picture, is an addition that is off by default [ours].",
        "The features are what the first sub-pixel convolution is given, found by tracing either network [ours].",
        "The document names VGG features and no layer: here conv5_4 of VGG19 before its activation, compared by L1, as "
        "in ESRGAN (arXiv 1809.00219) [ref].",
        "VGG19's weights are never downloaded; without them a perceptual weight above 0 is refused before any trial, "
        "and the shipped space holds it at 0: trial 0 is then the document's sum without the perceptual term [ours].",
        "L1 and features are on RGB in [0, 1]; PSNR and SSIM are on luma, the border cropped by the scale [doc].",
        "Trained with Adam 1e-3, batch 8, 20 epochs, patches of 160×160 pixels; low resolution by Gaussian blur (of a "
        "strength it does not say) and bicubic down-sampling [doc].",
        "No weight decay: the document names none [doc].",
        "The control, trial 1, has every weight 0: L1 alone [ours].",
        "Reported PSNR at ×4: 23.02 without distillation, 25.79 with, teacher 27.26: 65 % of the gap [doc].",
        "Searched in w_feat and w_vgg ∈ [1e-3, 1], w_out ∈ [0.1, 2] (log), each or 0 [ours].",
    )
    tasks = ("super_resolution",)
    needs_teacher = True
    paper_training = {"optimizer": "adam", "learning_rate": 0.001, "momentum": 0.9, "weight_decay": 0.0}
    forwards = 1.0
    Hyperparameters = SRKDHyperparameters

    hyperparameters: SRKDHyperparameters

    def __init__(
        self,
        hyperparameters: SRKDHyperparameters,
        student: nn.Module,
        teacher: Teacher | None,
        task: Task,
        facts: Facts,
    ) -> None:
        super().__init__(hyperparameters, student, teacher, task, facts)
        h = hyperparameters
        self._features: tuple[LowFeatures, LowFeatures] | None = None
        if _is_on(h.feature_weight):
            self._features = _matching(student, self.teacher.module, facts)
            own, taught = self._features
            self.connector = nn.Conv2d(own.channels, taught.channels, 1)
        self._perceptual = Perceptual() if _is_on(h.perceptual_weight) else None
        self._imitates = _is_on(h.output_weight)

    def losses(self, batch: Batch, progress: float) -> dict[str, torch.Tensor]:
        h = self.hyperparameters
        with ExitStack() as hooks:
            if self._features is not None:
                own, taught = self._features
                features = hooks.enter_context(captured(self.student, own))
                wanted = hooks.enter_context(captured(self.teacher.module, taught))
            picture = self.student(batch.images)
            if self._features is not None or self._imitates:
                imitated = self.teacher(batch.images)
        terms = {"pixel": self.task.loss(picture, batch.targets)}
        if self._features is not None:
            distance = functional.mse_loss(accurate(self.connector(features[0])), accurate(wanted[0]))
            terms["features"] = h.feature_weight * distance
        if self._perceptual is not None:
            terms["perceptual"] = h.perceptual_weight * self._perceptual(picture, batch.targets)
        if self._imitates:
            terms["output"] = h.output_weight * functional.l1_loss(picture, imitated)
        return terms


def _is_on(weight: float | torch.Tensor) -> bool:
    """Whether a term can count: a weight that is a tensor may come to, whatever it holds now."""
    return isinstance(weight, torch.Tensor) or weight != 0


def _matching(student: nn.Module, teacher: nn.Module, facts: Facts) -> tuple[LowFeatures, LowFeatures]:
    """Where both networks have their features before the upsampler, which must be of one size."""
    own, taught = (find_low_features(network, facts.channels, facts.size[0]) for network in (student, teacher))
    if own.side != taught.side:
        low, mine, theirs = (f"{side}×{side}" for side in (facts.size[0], own.side, taught.side))
        raise UserError(
            f"of patches of {low} pixels the student's features before its upsampler are {mine} and the teacher's "
            f"{theirs}: take another data.patch_size (for swinir a multiple of 8 × data.scale), or feature_weight 0"
        )
    return own, taught
