"""What a teacher says of the training images, as they are or in a bank of views: computed once, gathered by row."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch

from kdsearch.data.splits import RESIDENT_SHARE
from kdsearch.errors import InvalidSetting

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from kdsearch.data.base import Batch
    from kdsearch.data.view_bank import ViewBank
    from kdsearch.settings import AugmentationSettings

DType = Literal["float32", "float16"]


def fixed_views(augmentation: AugmentationSettings) -> bool:
    """Whether an augmentation, which is resolved, leaves every image as it is."""
    a = augmentation
    return not (a.crop or a.flip or a.color_jitter or a.cutout or a.cutmix or a.mixup)


@dataclass(frozen=True)
class TeacherOutputs:
    """A teacher's outputs for N images, or views: all of them, or the k largest of each and a remainder.

    Pickled with protocol 5 and out-of-band buffers (as Ray's object store does) nothing is copied: all processes of a
    node read the same memory. It must not be written to.

    Of the k largest of K classes, logits z, each class that is left out has one logit
    r = log Σ_{left out} exp(z_i) − log(K − k): at T = 1 the kept classes have their exact probabilities, and the rest
    of the mass is spread evenly over the others. At T > 1 these then have at least the mass that they should, since
    mean(exp(z))^(1/T) ≥ mean(exp(z / T)); at T < 1 at most.
    """

    values: torch.Tensor
    """float32 or float16 [N, K, ...]; of the largest alone [N, k, ...]."""
    outputs: int
    """K."""
    classes: torch.Tensor | None = None
    """int32 [N, k, ...]: which classes the values are of; None: all, in order."""
    rest: torch.Tensor | None = None
    """[N, 1, ...]: the logit r of each class that is left out."""
    bank: ViewBank | None = None
    """Which views these are the outputs of; None: of the images as they are."""

    @classmethod
    def of(cls, logits: torch.Tensor, dtype: DType = "float32", top_k: int | None = None) -> TeacherOutputs:
        """What is kept of logits [N, K, ...]. Raises InvalidSetting for values that float16 cannot hold."""
        logits = logits.float()
        outputs, classes, rest = logits.shape[1], None, None
        if top_k is not None:
            values, order = logits.topk(top_k, dim=1)
            left_out = logits.scatter(1, order, -math.inf)
            rest = left_out.logsumexp(1, keepdim=True) - math.log(outputs - top_k)
            logits, classes = values, order.int()
        if dtype == "float16":
            largest = float(logits.abs().max())
            if largest > torch.finfo(torch.float16).max:
                why = f"cannot hold the teacher's outputs, of which one is {largest:g}: take float32"
                raise InvalidSetting("teacher.cache_dtype", dtype, why)
            logits, rest = logits.half(), None if rest is None else rest.half()
        return cls(logits.contiguous(), outputs, classes, rest)

    @classmethod
    def joined(cls, parts: list[TeacherOutputs]) -> TeacherOutputs:
        """Those of several batches, in order."""
        values, classes, rest = (
            [tensor for part in parts if (tensor := getattr(part, name)) is not None]
            for name in ("values", "classes", "rest")
        )
        return cls(
            torch.cat(values),
            parts[0].outputs,
            torch.cat(classes) if classes else None,
            torch.cat(rest) if rest else None,
        )

    def __len__(self) -> int:
        return len(self.values)

    def fits(self, augmentation: AugmentationSettings) -> bool:
        """Whether the views that an augmentation, which is resolved, makes of the images are among these."""
        return fixed_views(augmentation) if self.bank is None else augmentation == self.bank.augmentation

    def rows(self, index: torch.Tensor) -> torch.Tensor:
        """Outputs float32 [B, K, ...] of the images, or rows of the bank, int64 [B], where this lies."""
        values = self.values.index_select(0, index).float()
        if self.classes is None or self.rest is None:
            return values
        rest = self.rest.index_select(0, index).float()
        whole = rest.expand(-1, self.outputs, *rest.shape[2:]).clone()
        return whole.scatter_(1, self.classes.index_select(0, index).long(), values)

    def along(self, batches: Iterator[Batch], order: torch.Tensor) -> Iterator[Batch]:
        """The batches, each with what the teacher says of its images, whose rows here are order[step] [B]."""
        for batch, index in zip(batches, order.to(self.device, non_blocking=True), strict=True):
            yield replace(batch, taught=self.rows(index).to(batch.images.device, non_blocking=True))

    @property
    def tensors(self) -> dict[str, torch.Tensor]:
        """What it holds, by name."""
        named = {"values": self.values, "classes": self.classes, "rest": self.rest}
        return {name: tensor for name, tensor in named.items() if tensor is not None}

    @property
    def nbytes(self) -> int:
        return sum(tensor.nbytes for tensor in self.tensors.values())

    @property
    def device(self) -> torch.device:
        return self.values.device

    def on(self, device: torch.device) -> TeacherOutputs:
        """The same on the device; itself, where it would take more than a quarter of the memory that is free there."""
        if device.type in ("cpu", self.device.type) and device.index in (None, self.device.index):
            return self
        if device.type == "cuda" and self.nbytes > RESIDENT_SHARE * torch.cuda.mem_get_info(device)[0]:
            return self
        moved = {name: each.to(device) for name, each in self.tensors.items()}
        return TeacherOutputs(outputs=self.outputs, bank=self.bank, **moved)

    def __reduce__(self) -> tuple[Any, ...]:
        arrays = {name: tensor.cpu().numpy() for name, tensor in self.tensors.items()}
        return _of_arrays, (self.outputs, self.bank, arrays)


def _of_arrays(outputs: int, bank: ViewBank | None, arrays: dict[str, NDArray[Any]]) -> TeacherOutputs:
    """Of arrays that are not copied and may be read-only."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        tensors = {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in arrays.items()}
    return TeacherOutputs(outputs=outputs, bank=bank, **tensors)
