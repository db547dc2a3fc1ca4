"""What augmentation costs: `python benchmarks/augmentation.py`.

Batches of 128 images of 32×32×3, shuffled, augmented, normalised, on one thread, as kdsearch makes them (whole batches
at a time) and as torchvision's usual pipeline for CIFAR does (image by image, from PIL, in a DataLoader without
workers). And their share of a training step, by plain labels (`ce`) and by `ips`, which takes two images for one: of
resnet20 on these, and of resnet8 on digits, 8×8, batch 64, where a step is a matter of milliseconds. All in turns in
one process; time is that of the process, which other programs do not take from it. Prints two tables of medians and
writes benchmarks/results/augmentation.json.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from functools import partial
from itertools import count, islice
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from packing import Case
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from kdsearch import data as data_sets
from kdsearch.data.base import Batching, DataSet
from kdsearch.data.batches import Batches
from kdsearch.data.splits import MemorySplit
from kdsearch.experiment import Experiment
from kdsearch.settings import AugmentationSettings
from kdsearch.training.memory import keep_freed_memory
from kdsearch.training.trainer import Trainer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

RESULT = Path(__file__).resolve().parent / "results" / "augmentation.json"
IMAGES, BATCH, SIDE = 5120, 128, 32
CPU = torch.device("cpu")
STEPS = 4
"""Of a training, that each turn takes."""
SETTINGS: dict[str, dict[str, Any]] = {
    "crop and flip": {"crop": 4, "flip": True},
    "crop, flip, colour jitter, Cutout": {"crop": 4, "flip": True, "color_jitter": 0.4, "cutout": 8},
}


def data_set() -> DataSet:
    """Random images: what they show costs nothing."""
    return Case("resnet20", samples=IMAGES, batch=BATCH, side=SIDE).data()


class OneByOne(Dataset[tuple[torch.Tensor, int]]):
    """The same images as torchvision's CIFAR keeps them: an array, an image of PIL for each, transforms on that."""

    def __init__(self, data: DataSet, settings: dict[str, Any]) -> None:
        assert isinstance(data.train, MemorySplit)
        self._images = data.train.images.permute(0, 2, 3, 1).contiguous().numpy()
        self._targets = data.train.targets.tolist()
        jitter, cutout = settings.get("color_jitter"), settings.get("cutout")
        share = (cutout / SIDE) ** 2 if cutout else 0
        self._transform = transforms.Compose(
            [
                transforms.RandomCrop(SIDE, padding=settings["crop"]),
                transforms.RandomHorizontalFlip(),
                *([transforms.ColorJitter(jitter, jitter, jitter)] if jitter else []),
                transforms.ToTensor(),
                transforms.Normalize(data.mean, data.std),
                *([transforms.RandomErasing(1.0, (share, share), (1, 1))] if cutout else []),
            ]
        )

    def __len__(self) -> int:
        return len(self._targets)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        image: torch.Tensor = self._transform(Image.fromarray(self._images[index]))
        return image, self._targets[index]


def ours(data: DataSet, settings: dict[str, Any], size: int = BATCH, *, partners: bool = False) -> Batches:
    augmentation = AugmentationSettings(**{"crop": 0, "flip": False, "color_jitter": 0, "cutout": 0} | settings)
    return Batches(data, Batching(size, augmentation, 0, CPU, partners, channels_last=True))


def seconds(epoch: Iterable[Any], most: int) -> float:
    """Of the process, for one batch, after a first that warms up."""
    batches = iter(epoch)
    next(batches)
    started = time.process_time()
    taken = sum(1 for _ in islice(batches, most))
    return (time.process_time() - started) / taken


def of_epochs(batches: Batches) -> Callable[[], float]:
    """Measures a batch in another epoch each time."""
    numbers = count()
    return lambda: seconds(batches.epoch(next(numbers)), batches.steps)


def in_turns(turns: int, one: Callable[[], float], other: Callable[[], float]) -> tuple[list[float], list[float]]:
    found: tuple[list[float], list[float]] = ([], [])
    for turn in range(turns):
        for which in (0, 1) if turn % 2 else (1, 0):
            found[which].append((one, other)[which]())
    return found


def pipelines(turns: int) -> list[dict[str, Any]]:
    """Images a second of both."""
    data, rows = data_set(), []
    for name, settings in SETTINGS.items():
        loader = DataLoader(OneByOne(data, settings), BATCH, shuffle=True, drop_last=True)
        mine, theirs = in_turns(turns, of_epochs(ours(data, settings)), partial(seconds, loader, 9))
        rates = {"kdsearch": [BATCH / each for each in mine], "torchvision": [BATCH / each for each in theirs]}
        ratios = [other / own for own, other in zip(mine, theirs, strict=True)]
        rows.append({"augmentation": name, **rates, "ratios": ratios})
    return rows


def step_seconds(trainer: Trainer) -> float:
    """Of the process, for one step of a training, without its batch."""
    trainer.method.train()
    spent = 0.0
    for step, batch in enumerate(islice(trainer.batches.epoch(0), STEPS + 1)):
        started = time.process_time()
        trainer._step(batch, step)
        if step:
            spent += time.process_time() - started
    return spent / STEPS


def shares(turns: int) -> list[dict[str, Any]]:
    """What share of a step the making of its batch is."""
    digits = data_sets.load(Experiment(method="ce", data="digits", student="resnet8").data)
    cases = [("resnet20", data_set(), BATCH, *setting) for setting in SETTINGS.items()]
    cases.append(("resnet8, digits", digits, 64, "crop", {"crop": 1}))
    rows = []
    for student, data, size, name, settings in cases:
        for method in ("ce", "ips"):
            training = {"batch_size": size, "epochs": 1000}
            experiment = Experiment(method=method, student=student.partition(",")[0], training=training)
            trainer = Trainer(experiment, {}, data=data, device=CPU)
            batches = ours(data, settings, size, partners=method == "ips")
            making, training_step = in_turns(turns, of_epochs(batches), partial(step_seconds, trainer))
            found = [batch / (batch + step) for batch, step in zip(making, training_step, strict=True)]
            row = {"method": method, "student": student, "augmentation": name}
            rows.append({**row, "batch": making, "step": training_step, "shares": found})
    return rows


def spread(values: list[float], places: int) -> str:
    """Median and range."""
    return f"{median(values):.{places}f} ({min(values):.{places}f}–{max(values):.{places}f})"


def main() -> None:
    parser = argparse.ArgumentParser(description="What augmentation costs beside torchvision's and beside a step.")
    parser.add_argument("--turns", type=int, default=9)
    parser.add_argument("--dry", action="store_true", help="write no results")
    options = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()
    print("| augmentation | kdsearch, images a second | torchvision | ratio (range) | wanted |\n" + "|---" * 5 + "|")
    rates = pipelines(options.turns)
    for row in rates:
        both = f"{median(row['kdsearch']):,.0f} | {median(row['torchvision']):,.0f}"
        print(f"| {row['augmentation']} | {both} | {spread(row['ratios'], 1)} | 10 |", flush=True)
    print("\n| method | student | augmentation | batch ms | step ms | share (range) | at most |\n" + "|---" * 7 + "|")
    parts = shares(options.turns)
    for row in parts:
        times = f"{median(row['batch']) * 1000:.1f} | {median(row['step']) * 1000:.1f}"
        case = f"{row['method']} | {row['student']} | {row['augmentation']}"
        print(f"| {case} | {times} | {spread(row['shares'], 3)} | 0.08 |", flush=True)
    if not options.dry:
        RESULT.write_text(json.dumps({"torch": torch.__version__, "rates": rates, "shares": parts}, indent=1) + "\n")


if __name__ == "__main__":
    main()
