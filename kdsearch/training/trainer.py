"""One student, one method, one data set: epoch by epoch, state in, state out. No ray."""

from __future__ import annotations

import io
import time
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import save

from kdsearch import data as data_sets
from kdsearch import files, tasks
from kdsearch.data.base import Batching
from kdsearch.data.preprocessing import preprocess
from kdsearch.data.randomness import torch_seed
from kdsearch.errors import Diverged, InvalidSetting
from kdsearch.objective import Report
from kdsearch.training.averaging import AveragedStudent
from kdsearch.training.layout import has_narrow_strides, memory_format
from kdsearch.training.memory import keep_freed_memory
from kdsearch.training.optimizer import Optimizer
from kdsearch.training.randomness import seeded
from kdsearch.training.schedule import shown_epochs

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from torch import nn

    from kdsearch.data.base import Batch, DataSet, Facts
    from kdsearch.data.teacher_outputs import TeacherOutputs
    from kdsearch.experiment import Experiment, Hyperparameters
    from kdsearch.methods.base import Teacher
    from kdsearch.objective import Panels
    from kdsearch.settings import AugmentationSettings

CHECKPOINT = "last.ckpt"

# A diverged loss is looked for once in so many steps: each look waits for the device.
LOOK_EVERY = 200


@dataclass(frozen=True)
class Best:
    """The best student so far, by the task's metric on validation."""

    value: float
    epoch: int
    weights: str
    """`raw` or `averaged`."""
    metrics: dict[str, float]
    state: dict[str, torch.Tensor]


class Trainer:
    """Trains one student with one setting. Usable alone, from Python.

    Args:
        experiment: what is fixed: data, networks, budget.
        hyperparameters: this trial's setting, flat; what it leaves out keeps the experiment's or the paper's value.
        seed: of initialisation, data order and augmentation; None: the experiment's.
        data: the loaded data set; None: loaded here.
        teacher: normalised student images → logits; needed when the method needs one.
        taught: what it says of the training images as they are (`kdsearch.training.teaching`); None: it is asked.
        device: None: the GPU if there is one.

    Stopped after any epoch, saved, loaded and resumed, it ends bit-equal on a CPU to one that was not stopped. On a CPU
    a process that trains an epoch keeps the memory that it frees from then on (`kdsearch.training.memory`).
    """

    def __init__(
        self,
        experiment: Experiment,
        hyperparameters: Hyperparameters,
        *,
        seed: int | None = None,
        data: DataSet | None = None,
        teacher: Teacher | None = None,
        taught: TeacherOutputs | None = None,
        device: torch.device | None = None,
    ) -> None:
        self.experiment, self.hyperparameters = experiment, hyperparameters = experiment.of(hyperparameters)
        self.seed = experiment.seed if seed is None else seed
        self.device = device or default_device()
        self.data = data or data_sets.load(experiment.data, experiment.task)
        self.task = tasks.find(experiment.task)
        settings = experiment.resolve(hyperparameters)
        self.training = settings.training
        self.history: list[Report] = []
        self.best: Best | None = None

        with seeded(torch_seed(self.seed, "build"), self.device):
            self.student = self._build_student()
            self.memory_format = memory_format(self.training, self.device, self.student)
            self.student.to(memory_format=self.memory_format)
            self.size = self.task.input_size(self.student, experiment.student, self.data)
            self.batches = self.task.batches(self.data, self._batching(settings.augmentation, taught))
            self.steps = self.batches.steps * self.training.epochs
            self.method = experiment.method_class(settings.method, self.student, teacher, self.task, self._facts())
            self.method.to(self.device)
            _check_layout(self.method, self.memory_format, self.device)
        self.average = AveragedStudent(self.student, self.steps) if self.training.averaging else None
        self.optimizer = Optimizer(self.method, self.training, self.device)
        if self.training.compile:
            self.student.compile()

    def _batching(self, augmentation: AugmentationSettings, taught: TeacherOutputs | None) -> Batching:
        return Batching(
            batch_size=self.training.batch_size,
            augmentation=data_sets.resolve(augmentation, self.data.augmentation),
            seed=self.seed,
            device=self.device,
            partners=self.experiment.method_class.needs_partners,
            size=self.size,
            channels_last=self.memory_format is torch.channels_last,
            taught=taught if self.experiment.method_class.needs_teacher else None,
        )

    def _build_student(self) -> nn.Module:
        return self.task.build(self.experiment.student, self.data).to(self.device)

    def _facts(self) -> Facts:
        return data_sets.facts(self.data, steps=self.steps, epochs=self.training.epochs, size=self.size)

    @property
    def epochs_done(self) -> int:
        return len(self.history)

    @property
    def finished(self) -> bool:
        return self.epochs_done >= self.training.epochs

    def epoch(self) -> Report:
        """Train one more epoch and validate. Raises Diverged when a loss is no longer finite."""
        started = time.perf_counter()
        number = self.epochs_done
        if self.device.type == "cpu":  # here: a process that only rehearses gives its memory back
            keep_freed_memory()
        with seeded(torch_seed(self.seed, "epoch", number), self.device):
            metrics = self._train(number)
        value, validation = self.validate()
        shown = number + 1 in shown_epochs(self.experiment.search, self.training.epochs)
        report = Report(
            epoch=number + 1,
            value=value,
            metrics={**metrics, **validation},
            seconds=time.perf_counter() - started,
            images=round(self.batches.steps * self.batches.batch_size * self.method.forwards),
            panels=self.panels(self.average.module if self.average else self.student) if shown else {},
        )
        self.history.append(report)
        self.optimizer.epoch_ended(value if self.task.mode == "max" else -value)
        return report

    def _train(self, number: int) -> dict[str, float]:
        self.method.train()
        self.method.start_epoch(number)
        record: list[torch.Tensor] = []
        names: list[str] = []
        observed: dict[str, float] = {}
        for index, batch in enumerate(self.batches.epoch(number)):
            step = number * self.batches.steps + index
            if index == 0:
                observed = self.method.diagnostics(batch, step / self.steps)
            names, values = self._step(batch, step)
            record.append(values)
            if len(record) % LOOK_EVERY == 0:
                _raise_if_diverged(record[-LOOK_EVERY:], names, step + 1 - LOOK_EVERY)
        since = len(record) - len(record) % LOOK_EVERY
        _raise_if_diverged(record[since:], names, number * self.batches.steps + since)
        means = torch.stack(record).mean(0).tolist()
        terms = dict(zip(names, means, strict=True))
        return {
            "loss/total": sum(means),
            **{f"loss/{name}": value for name, value in terms.items()},
            "learning_rate": self.optimizer.learning_rate,
            **{f"method/{name}": value for name, value in observed.items()},
        }

    def _step(self, batch: Batch, step: int) -> tuple[list[str], torch.Tensor]:
        """One optimiser step; the names and, still on the device, the values of the loss terms."""
        with self.optimizer.autocast():
            terms = self.method.losses(batch, step / self.steps)
        values = torch.stack([term.float() for term in terms.values()])
        self.optimizer.step(values.sum(), step / self.steps)
        if self.average is not None:
            self.average.update(step)
        return list(terms), values.detach()

    def validate(self) -> tuple[float, dict[str, float]]:
        """The score of the students as they are and all validation metrics; keeps the best student."""
        candidates = {"raw": self.student}
        if self.average is not None:
            candidates["averaged"] = self.average.module
        metrics: dict[str, float] = {}
        score = self.task.worst
        for weights, module in candidates.items():
            measured = self.task.evaluate(predictor(module, self.data, self.size), self.data.validation, self.device)
            prefix = "validation" if weights == "raw" else "validation_averaged"
            metrics |= {f"{prefix}/{name}": value for name, value in measured.items()}
            score = measured[self.task.metric]  # the averaged one where there is one: it comes last
            self._keep_if_best(score, self.epochs_done + 1, weights, measured, module)
        return score, metrics

    def panels(self, module: nn.Module) -> Panels:
        """The task's pictures of what a student makes of a few validation images, beside its teacher's."""
        teacher = None
        if self.experiment.method_class.needs_teacher:
            teacher = partial(_taught, self.method.teacher, self.data, self.size)
        return self.task.panels(predictor(module, self.data, self.size), self.data, self.device, teacher)

    def _keep_if_best(
        self, value: float, epoch: int, weights: str, metrics: dict[str, float], module: nn.Module
    ) -> None:
        better = self.best is None or (value > self.best.value if self.task.mode == "max" else value < self.best.value)
        if better:
            state = {name: tensor.detach().clone() for name, tensor in module.state_dict().items()}
            self.best = Best(value, epoch, weights, metrics, state)

    def rehearse_steps(self, count: int) -> float:
        """Seconds per step over a few real steps, after a first that warms up."""
        self.method.train()
        self.method.start_epoch(0)
        started = time.perf_counter()
        taken = 0
        for taken, batch in zip(range(count + 1), self.batches.epoch(0), strict=False):
            _, values = self._step(batch, taken)
            values.tolist()  # waits for the device
            if taken == 0:
                started = time.perf_counter()
        return (time.perf_counter() - started) / max(1, taken)

    def state_dict(self) -> dict[str, Any]:
        """Everything that decides how training goes on; plain numbers and tensors."""
        return {
            "hyperparameters": self.hyperparameters,
            "seed": self.seed,
            "history": [asdict(replace(report, panels={})) for report in self.history],
            "method": self.method.state_dict(),
            "average": self.average.module.state_dict() if self.average else None,
            "optimizer": self.optimizer.state_dict(),
            "best": vars(self.best) if self.best else None,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up a state that `state_dict` gave, of the same setting."""
        self.history = [Report(**report) for report in state["history"]]
        self.method.load_state_dict(state["method"])
        if self.average is not None:
            self.average.module.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.best = Best(**state["best"]) if state["best"] else None

    def save(self, folder: Path) -> None:
        """Write the state into `folder`, whole or not at all; the checkpoint before stays as a fallback."""
        write_state(folder, self.state_dict())

    def load(self, folder: Path) -> bool:
        """Take up the state in `folder`; False when there is none."""
        state = read_state(folder, self.device)
        if state is not None:
            self.load_state_dict(state)
        return state is not None

    def student_bytes(self) -> bytes:
        """The best student as safetensors: the plain backbone, no trace of the method's own parts."""
        assert self.best is not None, "no epoch was trained yet"
        return save({name: tensor.contiguous().cpu() for name, tensor in self.best.state.items()})


def write_state(folder: Path, state: dict[str, Any]) -> None:
    """A checkpoint in `folder`, whole or not at all; the one before stays as a fallback."""
    folder.mkdir(parents=True, exist_ok=True)
    files.write_checked(folder / CHECKPOINT, state_bytes(state))


def read_state(folder: Path, device: torch.device) -> dict[str, Any] | None:
    """What the checkpoint in `folder` holds, on this device; None when there is none."""
    content = files.read_checked(folder / CHECKPOINT)
    if content is None:
        return None
    state: dict[str, Any] = torch.load(io.BytesIO(content), map_location=device, weights_only=True)
    return state


def state_bytes(state: dict[str, Any]) -> bytes:
    """A state as a file that `torch.load(weights_only=True)` reads."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.getvalue()


def predictor(module: nn.Module, data: DataSet, size: tuple[int, int] | None) -> Callable[[torch.Tensor], torch.Tensor]:
    """uint8 images [B, C, H, W], resized to `size` (None: as they are) → outputs of the module in eval mode."""

    @torch.no_grad()
    def predict(images: torch.Tensor) -> torch.Tensor:
        outputs: torch.Tensor = module(preprocess(images, data.mean, data.std, size))
        return outputs

    module.eval()
    return predict


@torch.no_grad()
def _taught(teacher: Teacher, data: DataSet, size: tuple[int, int] | None, images: torch.Tensor) -> torch.Tensor:
    """What the teacher makes of uint8 images."""
    return teacher(preprocess(images, data.mean, data.std, size))


def _check_layout(method: nn.Module, layout: torch.memory_format, device: torch.device) -> None:
    """A method's own parts are there only after the layout was chosen by the student's."""
    if layout is torch.channels_last and device.type == "cpu" and has_narrow_strides(method):
        why = "a strided 1×1 convolution of this method's own parts has fewer than 16 channels; set it to false"
        raise InvalidSetting("training.channels_last", True, why)


def default_device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def _raise_if_diverged(record: list[torch.Tensor], names: list[str], first_step: int) -> None:
    if not record:
        return
    values = torch.stack(record)
    finite = values.isfinite().all(1)
    if bool(finite.all()):
        return
    index = int(finite.int().argmin())
    raise Diverged(first_step + index, dict(zip(names, values[index].tolist(), strict=True)))
