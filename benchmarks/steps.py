"""What a step of each method costs beside the bare work of the same networks: `python benchmarks/steps.py`.

    ips     over a cross-entropy step on the doubled batch
    kd      over a student step and a forward pass of the teacher (resnet56)
    lsskd   over a step of student and light heads on the four views, and a forward pass of their snapshot

on resnet20 with 32×32 images, batch 128, 100 classes, and resnet8 with 8×8 images, batch 64, 10 classes. Bare work is
PyTorch's own: networks, `cross_entropy`, backward, fused SGD. Both sides keep images, weights and freed memory as the
Trainer does. They take turns in one process, so that whatever slows the machine down meets both; the ratio is the
median of the turns'. On a CPU time is that of the process, which other programs on the machine do not take from it.
Batches are made beforehand. Where torchdistill can be imported (`pip install torchdistill`; 1.1.5 was measured), a step
of `kd` is also set beside one with its `KDLoss` and PyTorch's SGD as its examples have it.
Prints a table and writes benchmarks/results/steps.json and benchmarks/pictures/steps.png.
"""

from __future__ import annotations

import argparse
import copy
import json
import time
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from statistics import median, quantiles
from typing import TYPE_CHECKING, Any

import torch
from bars import draw_bars
from torch.nn.functional import cross_entropy, one_hot

from kdsearch import methods, models, tasks
from kdsearch.data.base import Batch, Facts
from kdsearch.methods.heads import head_logits
from kdsearch.methods.transformations import rotations, stack_views
from kdsearch.settings import NetworkSettings, TrainingSettings
from kdsearch.training.layout import memory_format
from kdsearch.training.memory import keep_freed_memory
from kdsearch.training.optimizer import Optimizer
from kdsearch.training.trainer import default_device

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import nn

HERE = Path(__file__).resolve().parent
RESULT, PICTURE = HERE / "results" / "steps.json", HERE / "pictures" / "steps.png"
TEACHER = "resnet56"
ALLOWED = {"ips": 1.05, "kd": 1.03, "lsskd": 1.10}
RIVAL = "torchdistill"
NEVER_SLOWER = 1.0


@dataclass(frozen=True)
class Case:
    """A network and the batches it is given."""

    student: str
    side: int
    channels: int
    batch: int
    classes: int

    @property
    def facts(self) -> Facts:
        return Facts(self.classes, self.channels, (self.side, self.side), steps=10_000, epochs=100)

    def network(self, name: str, device: torch.device) -> nn.Module:
        settings, size = NetworkSettings(name=name), (self.side, self.side)
        network = models.build(settings, outputs=self.classes, channels=self.channels, size=size).to(device)
        return network.to(memory_format=memory_format(TrainingSettings(), device, network))

    def data(self, device: torch.device) -> Batch:
        layout = memory_format(TrainingSettings(), device, self.network(self.student, device))
        generator = torch.Generator(device).manual_seed(0)
        shape = (self.batch, self.channels, self.side, self.side)
        images, partners = (
            torch.randn(shape, generator=generator, device=device).contiguous(memory_format=layout) for _ in range(2)
        )
        classes = torch.randint(self.classes, (self.batch,), generator=generator, device=device)
        targets = one_hot(classes, self.classes).float()
        everyone = torch.ones(self.batch, dtype=torch.bool, device=device)
        return Batch(images, targets, generator, partners, everyone)


CASES = (Case("resnet8", 8, 1, 64, 10), Case("resnet20", 32, 3, 128, 100))


def build(name: str, case: Case, teacher: nn.Module, device: torch.device) -> methods.Method:
    kind = methods.find(name)

    @torch.no_grad()
    def teach(images: torch.Tensor) -> torch.Tensor:
        answer: torch.Tensor = teacher(images)
        return answer

    student = case.network(case.student, device)
    method = kind(kind.Hyperparameters(), student, teach, tasks.find("classification"), case.facts).to(device)
    method.train()
    method.start_epoch(1)
    return method


def method_step(method: methods.Method, batch: Batch) -> Callable[[], None]:
    """A step as the Trainer takes it."""
    optimizer = Optimizer(method, TrainingSettings(), batch.images.device)

    def step() -> None:
        values = torch.stack(list(method.losses(batch, 0.5).values()))
        optimizer.step(values.sum(), 0.5)

    return step


def bare_step(name: str, method: methods.Method, teacher: nn.Module, batch: Batch) -> Callable[[], None]:
    """The same networks' work without the method."""
    student = copy.deepcopy(method.student)
    if name == "lsskd":
        return _bare_heads(method, batch)
    images, targets = batch.images, batch.targets
    if name == "ips":
        assert batch.partners is not None
        images, targets = torch.cat([images, batch.partners]), targets.repeat(2, 1)
    optimizer = _sgd(student)

    def step() -> None:
        if name == "kd":
            with torch.no_grad():
                teacher(images)
        optimizer.zero_grad()
        cross_entropy(student(images), targets).backward()
        optimizer.step()

    return step


def rival_step(method: methods.Method, teacher: nn.Module, batch: Batch) -> Callable[[], None]:
    """The step of `kd` with torchdistill's loss, which is told what the networks' outputs were."""
    from torchdistill.losses.mid_level import KDLoss  # type: ignore[import-not-found]

    student, images, classes = copy.deepcopy(method.student), batch.images, batch.targets.argmax(1)
    h: Any = method.hyperparameters
    loss = KDLoss(".", "output", ".", "output", temperature=h.temperature, alpha=1 - h.alpha)
    optimizer = torch.optim.SGD(student.parameters(), lr=1e-3, momentum=0.9, weight_decay=5e-4)

    def step() -> None:
        with torch.no_grad():
            taught = teacher(images)
        optimizer.zero_grad()
        loss({".": {"output": student(images)}}, {".": {"output": taught}}, classes).backward()
        optimizer.step()

    return step


def _bare_heads(method: Any, batch: Batch) -> Callable[[], None]:
    """Student and heads on all views, and once more in evaluation mode."""
    both = copy.deepcopy(method)
    both.projections = None
    past = both.snapshot
    optimizer = _sgd(both)
    views = stack_views(batch.images, rotations(both.facts))
    targets = batch.targets.repeat(4, 1)
    joint = torch.eye(batch.targets.shape[1] * 4, device=views.device)[targets.argmax(1) * 4]

    def step() -> None:
        past(views)
        optimizer.zero_grad()
        logits, features = both.taps(views)
        answers = head_logits(both.heads, features).values()
        (cross_entropy(logits, targets) + sum(cross_entropy(answer, joint) for answer in answers)).backward()
        optimizer.step()

    return step


def _sgd(module: nn.Module) -> torch.optim.Optimizer:
    parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
    return torch.optim.SGD(parameters, lr=1e-3, momentum=0.9, weight_decay=5e-4, fused=True)


def compare(ours: Callable[[], None], bare: Callable[[], None], turns: int, seconds: float) -> dict[str, float]:
    """Milliseconds a step of both sides, and the ratio over the turns, each of which takes about so many seconds."""
    ours(), bare()
    steps = max(1, round(seconds * 1000 / _milliseconds(bare, 1)))
    found: list[tuple[float, float]] = []
    for turn in range(turns + 1):
        order = (ours, bare) if turn % 2 else (bare, ours)
        taken = {side: _milliseconds(side, steps) for side in order}
        if turn:  # the first warms up
            found.append((taken[ours], taken[bare]))
    ratios = [mine / theirs for mine, theirs in found]
    low, _, high = quantiles(ratios, n=4)
    return {
        "ms": median(mine for mine, _ in found),
        "bare_ms": median(theirs for _, theirs in found),
        "ratio": median(ratios),
        "quarter": low,
        "three_quarters": high,
    }


def _milliseconds(step: Callable[[], None], count: int) -> float:
    clock = time.perf_counter if torch.cuda.is_available() else time.process_time
    _wait()
    started = clock()
    for _ in range(count):
        step()
    _wait()
    return (clock() - started) * 1000 / count


def line(row: dict[str, Any]) -> str:
    """A line of the table."""
    quartiles = f"{row['ratio']:.3f} ({row['quarter']:.3f}–{row['three_quarters']:.3f})"
    network = f"{row['student']}, {row['side']}×{row['side']} | {row['batch']}"
    times = f"{row['ms']:.1f} | {row['bare_ms']:.1f}"
    return f"| {row['method']} | {network} | {row['over']} | {times} | {quartiles} | {row['allowed']} |"


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def main() -> None:
    parser = argparse.ArgumentParser(description="What a step of each method costs beside its networks' bare work.")
    parser.add_argument("--turns", type=int, default=15)
    parser.add_argument("--seconds", type=float, default=0.7, help="length of a turn")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--dry", action="store_true", help="write neither results nor picture")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    device, found = default_device(), []
    if device.type == "cpu":
        keep_freed_memory()
    print("| method | student | batch | over | step ms | its ms | ratio (quartiles) | at most |\n" + "|---" * 8 + "|")
    for case in CASES:
        teacher, batch = case.network(TEACHER, device).eval(), case.data(device)
        for name, allowed in ALLOWED.items():
            method = build(name, case, teacher, device)
            rivals = {"": (bare_step(name, method, teacher, batch), allowed)}
            if name == "kd" and find_spec(RIVAL) is not None:
                rivals[RIVAL] = (rival_step(method, teacher, batch), NEVER_SLOWER)
            for rival, (other, most) in rivals.items():
                measured = compare(method_step(method, batch), other, options.turns, options.seconds)
                row = {"method": name, "over": rival or "bare work", **vars(case), "allowed": most, **measured}
                found.append(row)
                print(line(row), flush=True)
    if not options.dry:
        RESULT.parent.mkdir(exist_ok=True)
        content = {"threads": options.threads, "device": device.type, "steps": found}
        RESULT.write_text(json.dumps(content, indent=1) + "\n")
        title = "a step over the bare work of the same networks"
        values = [(f"{row['method']}, {row['student']}", row["ratio"]) for row in found if row["over"] != RIVAL]
        draw_bars(PICTURE, [(title, values, "{:.3f}")])


if __name__ == "__main__":
    main()
