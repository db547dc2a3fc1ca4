"""`gpus_per_trial: auto` against fixed shares of one GPU: `python benchmarks/packing.py` on a machine with a GPU.

Trials of kd with students mobilenetv2_050 and resnet8x4 and the teacher resnet32x4, 32×32 images, 100 classes, batch
128, trained 1, 2, 4 and 8 at a time, each in a process of its own that is held to its share; and as many as `auto`
chooses, by the code that a search runs, with the seconds that choosing took. Needs no Ray. Prints a table and writes
benchmarks/results/packing.json.

- trials/h: steps per second of all of them over the window, for trials of 30 epochs of 50,000 images; starting a
  trial, its validation and what a scheduler ends early are not in it;
- memory: of the GPU, at most, with contexts;
- utilisation: mean of what nvidia-smi says of the GPU five times a second during the window (the share of time in
  which a kernel ran, not of its arithmetic).

The images are random: what they show does not matter here. This has not been run on a GPU so far; what its code does
is tested with a device that is none (tests/cluster/test_packing_benchmark.py).
"""

from __future__ import annotations

import argparse
import contextlib
import json
import multiprocessing
import subprocess
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import mean
from typing import TYPE_CHECKING, Any

import torch

from kdsearch.data.base import DataSet
from kdsearch.data.splits import MemorySplit
from kdsearch.experiment import Experiment
from kdsearch.settings import AugmentationSettings
from kdsearch.training.devices import CudaDevice, Device, hold_to
from kdsearch.training.mps import mps_is_on
from kdsearch.training.packing import CopyFailed, Level, Limit, measured_level, most_demanding, pack, share_of
from kdsearch.training.probe import Probe, far_from_its_end
from kdsearch.training.teacher import load_teacher
from kdsearch.training.trainer import Trainer, default_device

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from multiprocessing.connection import Connection

    from kdsearch.settings import Scalar

RESULT = Path(__file__).resolve().parent / "results" / "packing.json"
STUDENTS = ("mobilenetv2_050", "resnet8x4")
COPIES = (1, 2, 4, 8)
IMAGES, EPOCHS = 50_000, 30
GIB = 2**30


@dataclass(frozen=True)
class Case:
    """A search on one GPU, whose trials share it."""

    student: str
    teacher: str = "resnet32x4"
    side: int = 32
    classes: int = 100
    samples: int = IMAGES
    batch: int = 128
    most: int = 16
    """Copies beyond which `auto` does not look."""
    device: Device = field(default_factory=CudaDevice)

    @property
    def experiment(self) -> Experiment:
        return Experiment(
            method="kd",
            student=self.student,
            teacher=self.teacher,
            training={"batch_size": self.batch},
            space={"learning_rate": {"low": 0.01, "high": 0.3, "log": True}},
        )

    def data(self) -> DataSet:
        generator = torch.Generator().manual_seed(0)
        shape = (self.samples, 3, self.side, self.side)
        images = torch.randint(256, shape, generator=generator, dtype=torch.uint8)
        train = MemorySplit(images, torch.arange(self.samples) % self.classes)
        held_out = MemorySplit(images[:1000], train.targets[:1000])
        return DataSet(
            name="random",
            task="classification",
            train=train,
            validation=held_out,
            test=held_out,
            classes=tuple(map(str, range(self.classes))),
            channels=3,
            size=(self.side, self.side),
            mean=(0.5,) * 3,
            std=(0.25,) * 3,
            augmentation=AugmentationSettings(crop=4, flip=True),
        )

    def trials_per_hour(self, level: Level) -> float | None:
        steps = EPOCHS * (IMAGES // self.batch)
        return None if level.rate is None else level.rate * 3600 / steps


class Makes:
    """Makes the Trainer of a setting, with data and teacher that all of a process share."""

    def __init__(self, case: Case) -> None:
        self.experiment, self.data = far_from_its_end(case.experiment), case.data()
        self.teacher = load_teacher(self.experiment, self.data)

    def __call__(self, setting: Mapping[str, Scalar]) -> Trainer:
        return Trainer(self.experiment, setting, data=self.data, teacher=self.teacher, device=default_device())


def serve(connection: Connection, case: Case, share: float) -> None:
    """One copy: does what it is told, until its parent ends it."""
    torch.set_num_threads(1)
    hold_to(case.device, share)
    probe = Probe(Makes(case), case.device)
    while True:
        what, arguments = connection.recv()
        try:
            connection.send((getattr(probe, what)(*arguments), None))
        except Exception as error:
            connection.send((None, (str(error), isinstance(error, torch.OutOfMemoryError))))


class Processes:
    """Copies in processes of their own."""

    def __init__(self, connections: Sequence[Connection]) -> None:
        self._connections = connections

    def each(self, what: str, *arguments: Any) -> list[Any]:
        answers = []
        for connection in self._connections:
            connection.send((what, arguments))
        for connection in self._connections:
            try:
                answer, failure = connection.recv()
            except EOFError:
                raise CopyFailed("its process ended", out_of_memory=False) from None
            if failure is not None:
                raise CopyFailed(failure[0], out_of_memory=failure[1])
            answers.append(answer)
        return answers


@contextlib.contextmanager
def processes(case: Case, copies: int) -> Iterator[Processes]:
    """So many copies, which end with the block."""
    context = multiprocessing.get_context("spawn")
    pairs = [context.Pipe() for _ in range(copies)]
    started = [context.Process(target=serve, args=(theirs, case, share_of(copies)), daemon=True) for _, theirs in pairs]
    for process in started:
        process.start()
    for _, theirs in pairs:
        theirs.close()
    try:
        yield Processes([ours for ours, _ in pairs])
    finally:
        for process in started:
            process.kill()
        for process in started:
            process.join()


class Utilisation:
    """What nvidia-smi says of the first GPU while the block lasts, in percent; None where there is no nvidia-smi."""

    def __init__(self) -> None:
        self.percent: float | None = None
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Utilisation:
        query = ["nvidia-smi", "--id=0", "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits", "-lms", "200"]
        with contextlib.suppress(FileNotFoundError):
            self._process = subprocess.Popen(query, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        return self

    def __exit__(self, *error: object) -> None:
        if self._process is None:
            return
        self._process.terminate()
        seen = [float(line) for line in self._process.communicate()[0].split() if line.isdigit()]
        self.percent = mean(seen) if seen else None


def fixed(case: Case, copies: int, seconds: float) -> dict[str, Any]:
    """So many at a time, measured for so long."""
    setting = most_demanding(case.experiment, (), lambda setting: 0)
    watched = Utilisation()

    @contextlib.contextmanager
    def start(copies: int) -> Iterator[Watched]:
        with processes(case, copies) as crew:
            yield Watched(crew, watched)

    level = measured_level(start, copies, setting, seconds)
    return row(case, level) | {"utilisation": watched.percent}


class Watched:
    """Copies whose GPU is watched while they run."""

    def __init__(self, crew: Processes, watched: Utilisation) -> None:
        self._crew = crew
        self._watched = watched

    def each(self, what: str, *arguments: Any) -> list[Any]:
        with self._watched if what == "run" else contextlib.nullcontext():
            return self._crew.each(what, *arguments)


def row(case: Case, level: Level) -> dict[str, Any]:
    return {"student": case.student, **asdict(level), "trials_per_hour": case.trials_per_hour(level)}


def automatic(case: Case) -> dict[str, Any]:
    """What `auto` chooses, with what it measured on the way and how long that took."""
    started = time.perf_counter()
    limit = Limit(case.most, f"more than {case.most} are not looked at")
    found = pack(lambda copies: processes(case, copies), case.experiment, (), limit)
    return {
        "student": case.student,
        "gpu": asdict(found.device),
        "copies": found.copies,
        "why": found.why,
        "seconds": round(time.perf_counter() - started, 1),
        "levels": [row(case, level) for level in found.levels],
    }


def compare(case: Case, copies: Sequence[int], seconds: float) -> dict[str, Any]:
    """`auto`, and every fixed share; the one that it chose is measured like the others."""
    chosen = automatic(case)
    wanted = sorted({*copies, chosen["copies"]})
    return {"auto": chosen, "fixed": [fixed(case, number, seconds) for number in wanted]}


def table(found: Sequence[Mapping[str, Any]]) -> str:
    lines = ["| student | trials a GPU | trials/h | memory, GiB | utilisation |", "|---" * 5 + "|"]
    for one in found:
        for level in one["fixed"]:
            name = f"{level['copies']}{' (auto)' if level['copies'] == one['auto']['copies'] else ''}"
            cells = [level["failure"] or "", "", ""]
            if level["failure"] is None:
                busy = level["utilisation"]
                cells = [
                    f"{level['trials_per_hour']:.1f}",
                    f"{level['memory'] / GIB:.2f}",
                    "" if busy is None else f"{busy:.0f} %",
                ]
            lines.append(f"| {' | '.join([level['student'], name, *cells])} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=30, help="for which each share is measured")
    parser.add_argument("--dry", action="store_true", help="write nothing")
    options = parser.parse_args()
    if CudaDevice().count() == 0:
        parser.exit(2, "torch sees no GPU here\n")
    found = [compare(Case(student), COPIES, options.seconds) for student in STUDENTS]
    for one in found:
        auto = one["auto"]
        print(f"{auto['student']} on {auto['gpu']['name']}: {auto['copies']} ({auto['why']}), {auto['seconds']} s")
    print(table(found))
    if not options.dry:
        RESULT.parent.mkdir(exist_ok=True)
        content = {"torch": torch.__version__, "mps": mps_is_on(), "seconds": options.seconds, "found": found}
        RESULT.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
