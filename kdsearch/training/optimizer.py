"""Optimiser, learning rate, gradient clipping and mixed precision of one training."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

import torch

from kdsearch.training.schedule import Plateau, rate_factor

if TYPE_CHECKING:
    from torch import nn

    from kdsearch.settings import TrainingSettings


class Optimizer:
    """One `step(loss, progress)`: rate by schedule, backward, clip, update."""

    def __init__(self, module: nn.Module, training: TrainingSettings, device: torch.device) -> None:
        if not training.compile:
            _keep_compiler_out()
        self.training = training
        self.device = device
        self.parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
        self.optimizer = _build(self.parameters, training, device)
        self._update = inspect.unwrap(type(self.optimizer).step)
        self.plateau = Plateau(training.patience, training.decay_factor)
        self.precision = training.precision if device.type == "cuda" else "fp32"
        # fp16's narrow range needs its loss scaled; bf16's does not.
        self.scaler = torch.amp.GradScaler(device.type, enabled=self.precision == "fp16")
        self.learning_rate = training.learning_rate

    def autocast(self) -> torch.autocast:
        """The context in which losses are computed."""
        dtype = torch.float16 if self.precision == "fp16" else torch.bfloat16
        return torch.autocast(self.device.type, dtype=dtype, enabled=self.precision != "fp32")

    def step(self, loss: torch.Tensor, progress: float) -> None:
        """Update the parameters by the gradient of `loss`, at `progress` of the full budget."""
        self.learning_rate = self.training.learning_rate * rate_factor(self.training, progress) * self.plateau.factor
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate
        self.optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        if self.training.gradient_clip is not None:
            self.scaler.unscale_(self.optimizer)
            torch.nn.utils.clip_grad_norm_(self.parameters, self.training.gradient_clip)
        if self.scaler.is_enabled():
            self.scaler.step(self.optimizer)
            self.scaler.update()
        else:
            with torch.no_grad():
                self._update(self.optimizer)

    def epoch_ended(self, score: float) -> None:
        """Take the epoch's validation score, the higher the better."""
        if self.training.schedule == "plateau":
            self.plateau.update(score)

    def state_dict(self) -> dict[str, Any]:
        return {
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "plateau": {"best": self.plateau.best, "waited": self.plateau.waited, "factor": self.plateau.factor},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        for name, value in state["plateau"].items():
            setattr(self.plateau, name, value)


def _keep_compiler_out() -> None:
    """Spare every process the import of torch's compiler, which takes longer than that of torch itself.

    torch imports it when the first optimiser is made and at the first step, for the sole purpose of marking functions
    as not to be compiled. Here those of the optimiser are marked as their own uncompiled form and ask for nothing;
    `Optimizer.step` calls the update that the marks surround.
    """
    for function in vars(torch.optim.Optimizer).values():
        plain = getattr(function, "__wrapped__", None)
        if plain is not None:
            plain.__dynamo_disable = plain


def _build(parameters: list[nn.Parameter], training: TrainingSettings, device: torch.device) -> torch.optim.Optimizer:
    # The fused kernels do in one launch what the loop does in many, on CPUs too.
    rate, decay, fused = training.learning_rate, training.weight_decay, device.type in {"cpu", "cuda"}
    if training.optimizer == "sgd":
        return torch.optim.SGD(
            parameters,
            lr=rate,
            momentum=training.momentum,
            nesterov=training.nesterov and training.momentum > 0,
            weight_decay=decay,
            fused=fused,
        )
    betas = (training.momentum, 0.999)
    kind = torch.optim.Adam if training.optimizer == "adam" else torch.optim.AdamW
    return kind(parameters, lr=rate, betas=betas, weight_decay=decay, fused=fused)
