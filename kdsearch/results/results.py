"""What a run has found so far: its trials, their curves, the best of them. Reads the run folder and nothing else."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from kdsearch.errors import UserError
from kdsearch.results.confirm_state import confirmation_state
from kdsearch.results.documents import read_yaml
from kdsearch.results.journal import Journal, Record, Study
from kdsearch.results.lock import is_locked

if TYPE_CHECKING:
    import pandas  # type: ignore[import-untyped]

EXPERIMENT = "experiment.yaml"
JOURNAL = "study.journal"
_ENDED_STATES = ("COMPLETE", "INTERRUPTED", "FAILED")


class Point(NamedTuple):
    """One epoch's score."""

    epoch: int
    value: float
    time: float | None
    """Seconds since the epoch; None where the journal does not say."""


@dataclass(frozen=True)
class Trial:
    """One setting that was tried."""

    number: int
    state: str
    """RUNNING, COMPLETE (full budget), PRUNED (stopped early) or FAILED (crashed or diverged: `error` says why)."""
    hyperparameters: dict[str, Any]
    role: str
    """paper (trial 0), control (no distillation), try (asked for by the user) or search."""
    epochs: int
    best: float | None
    """COMPLETE: the metric of its best weights; else the best score of its curve."""
    last: float | None
    seconds: float
    """Training time."""
    started: float | None
    """Seconds since the epoch, as `ended`."""
    ended: float | None
    node: str | None
    gpu_ids: tuple[str, ...]
    error: str | None
    curve: tuple[Point, ...]
    images: int | None = None
    """Images that the student saw in training; None while it runs, and of runs that did not count them."""

    def document(self) -> dict[str, Any]:
        """The trial as `kdsearch status --json` shows it."""
        names = "number state hyperparameters epochs best last seconds started ended node gpu_ids error"
        document = {name: getattr(self, name) for name in names.split()}
        return document | {"gpu_ids": list(self.gpu_ids)}


Rank = tuple[bool, int, float, int]


def rank(number: int, state: str, epochs: int, value: float, mode: str) -> Rank:
    """Trials sort by it, the best first: complete ones by their value, then the others by epochs reached and value."""
    complete = state == "COMPLETE"
    return not complete, 0 if complete else -epochs, -value if mode == "max" else value, number


class Results:
    """A run, read from its folder. `refresh` takes in what was added since; everything else answers from memory.

    Raises `RunError` when the folder holds no run, or its files are damaged.
    """

    def __init__(self, path: str | Path) -> None:
        self.folder = Path(path)
        self.experiment = read_yaml(self.folder / EXPERIMENT)
        self._journal = Journal(self.folder / JOURNAL)
        self._study: Study | None = None
        self._built_for = ""
        self._by_number: dict[int, Trial] = {}
        self.refresh()

    def refresh(self) -> None:
        """Read the lines that were added to the journal."""
        changed = self._journal.refresh()
        study = self._journal.study(self.name)
        if study is not self._study or self.mode != self._built_for:
            self._by_number.clear()
            self._study, self._built_for = study, self.mode
            changed = set(study.trials if study else ())
        for record in changed:
            if study is not None and record.state != "WAITING" and study.trials[record.number] is record:
                self._by_number[record.number] = _trial(record, self.mode)
        self.__dict__.pop("trials", None)

    @property
    def lines_read(self) -> int:
        """Journal lines taken in so far."""
        return self._journal.lines

    @property
    def name(self) -> str:
        return self.folder.resolve().name

    def attribute(self, name: str) -> Any:
        """What the driver noted about the study (`started`, `ended`, `gpu_hours`, `kdsearch`, …); None if nothing."""
        return self._study.attributes.get(name) if self._study else None

    @property
    def state(self) -> str:
        """RUNNING, COMPLETE, INTERRUPTED, FAILED, or CRASHED: it says RUNNING, and no process drives it."""
        state = self.attribute("state")
        if state in _ENDED_STATES:
            return str(state)
        return "RUNNING" if is_locked(self.folder) else "CRASHED"

    @property
    def why(self) -> str | None:
        """Why the search ended, in a sentence."""
        why = self.attribute("why")
        return None if why is None else str(why)

    @property
    def metric(self) -> str | None:
        metric = self.attribute("metric")
        return None if metric is None else str(metric)

    @property
    def mode(self) -> str:
        """max or min: which way of the metric is better."""
        mode = self.attribute("mode")
        if mode in ("max", "min"):
            return str(mode)
        return "min" if self._study and self._study.directions[:1] == [1] else "max"

    @cached_property
    def trials(self) -> list[Trial]:
        """Every trial that has started, by number."""
        return [self._by_number[number] for number in sorted(self._by_number)]

    @property
    def started(self) -> float | None:
        return _number(self.attribute("started"))

    @property
    def ended(self) -> float | None:
        """None while it runs; of a crashed run, the time of its last sign of life."""
        state = self.state
        if state == "RUNNING":
            return None
        return self._journal.time if state == "CRASHED" else _number(self.attribute("ended"))

    @property
    def counts(self) -> Counter[str]:
        """Number of trials in each state."""
        return Counter(trial.state for trial in self.trials)

    @property
    def best(self) -> Trial | None:
        """The COMPLETE trial with the best metric; while there is none, the best of those that got furthest."""
        return next(iter(self.top(1)), None)

    @property
    def provisional(self) -> bool:
        """No trial has reached the full budget yet, so `best` compares unfinished ones."""
        return self.counts["COMPLETE"] == 0

    def top(self, count: int) -> list[Trial]:
        """The best `count` trials: complete ones by their metric, then the others by epochs reached and score."""
        candidates = [trial for trial in self.trials if trial.state != "FAILED" and trial.best is not None]
        return sorted(candidates, key=self._rank)[:count]

    def _rank(self, trial: Trial) -> Rank:
        return rank(trial.number, trial.state, trial.epochs, trial.best or 0.0, self.mode)

    @property
    def paper(self) -> Trial | None:
        """The method's published setting; of a search over several methods or students that of the best trial's."""
        return self.paper_of(self.best)

    def paper_of(self, trial: Trial | None) -> Trial | None:
        """The published setting of the method that a trial names, else the first there is; with the same student."""
        papers = self._with_student_of(trial, "paper")
        method = None if trial is None else trial.hyperparameters.get("method")
        own = (paper for paper in papers if paper.hyperparameters.get("method") == method)
        return next(own, papers[0] if papers else None)

    @property
    def control(self) -> Trial | None:
        """The same student trained without the method; of a search over several students that of the best trial's."""
        return self.control_of(self.best)

    def control_of(self, trial: Trial | None) -> Trial | None:
        """The student of a trial trained without the method."""
        return next(iter(self._with_student_of(trial, "control")), None)

    def _with_student_of(self, trial: Trial | None, role: str) -> list[Trial]:
        """The trials of this role that have the student of `trial`; of none, all."""
        found = [other for other in self.trials if other.role == role]
        if trial is None:
            return found
        own = trial.hyperparameters.get("student")
        return [other for other in found if other.hyperparameters.get("student") == own]

    def gain(self, trial: Trial | None, over: Trial | None) -> float | None:
        """By how much `trial` is better than `over`; None unless both ran to the full budget."""
        if trial is None or over is None or trial.state != "COMPLETE" or over.state != "COMPLETE":
            return None
        if trial.best is None or over.best is None:
            return None
        return trial.best - over.best if self.mode == "max" else over.best - trial.best

    @property
    def searched(self) -> tuple[str, ...]:
        """The hyperparameters that vary in this search."""
        space = self.experiment.get("space")
        return (
            tuple(name for name, entry in space.items() if isinstance(entry, dict)) if isinstance(space, dict) else ()
        )

    def trial_folder(self, trial: Trial) -> Path:
        return self.folder / "trials" / f"{trial.number:04d}"

    def status(self) -> dict[str, Any]:
        """The document of `kdsearch status --json`; `confirmation` see `confirm_state.confirmation_state`."""
        return {
            "run": self.name,
            "state": self.state,
            "metric": self.metric,
            "trials": [trial.document() for trial in self.trials],
            "confirmation": confirmation_state(self),
        }

    def to_dataframe(self) -> pandas.DataFrame:
        """One row a trial; each hyperparameter is a column `hyperparameters.NAME`. Needs pandas."""
        try:
            import pandas
        except ImportError:
            raise UserError("to_dataframe() needs pandas: pip install pandas") from None
        rows = []
        for trial in self.trials:
            row = trial.document() | {"role": trial.role}
            setting = row.pop("hyperparameters")
            rows.append(row | {f"hyperparameters.{name}": value for name, value in setting.items()})
        return pandas.DataFrame(rows)


def _trial(record: Record, mode: str) -> Trial:
    attributes = record.attributes
    told = _number(attributes.get("epochs"))
    # A diverged trial is told the metric's worst value at the epoch it did not finish: no point of its curve.
    finished = [epoch for epoch in sorted(record.intermediate) if told is None or epoch <= told]
    curve = tuple(Point(epoch, *record.intermediate[epoch]) for epoch in finished)
    finite = [point.value for point in curve if math.isfinite(point.value)]
    best = (max if mode == "max" else min)(finite, default=None)
    if record.state == "COMPLETE" and record.values:
        best = record.values[0]
    setting = attributes.get("hyperparameters")
    error = attributes.get("error")
    failed = record.state == "FAIL" or (record.state == "PRUNED" and error is not None)
    gpus = attributes.get("gpu_ids")
    return Trial(
        number=record.number,
        state="FAILED" if failed else record.state,
        hyperparameters=setting if isinstance(setting, dict) else record.parameters,
        role=str(attributes.get("role") or "search"),
        epochs=int(told) if told is not None else max(finished, default=0),
        best=best,
        last=curve[-1].value if curve else None,
        seconds=_seconds(record, curve),
        started=record.started,
        ended=record.ended,
        node=None if attributes.get("node") is None else str(attributes["node"]),
        gpu_ids=tuple(str(gpu) for gpu in gpus) if isinstance(gpus, list) else (),
        error=None if error is None else str(error),
        curve=curve,
        images=int(images) if (images := _number(attributes.get("images"))) is not None else None,
    )


def _seconds(record: Record, curve: tuple[Point, ...]) -> float:
    """Training time as the trial told it; until then, the time from its start to its last report."""
    told = _number(record.attributes.get("seconds"))
    if told is not None:
        return told
    last = record.ended or (curve[-1].time if curve else None)
    return max(0.0, last - record.started) if last is not None and record.started is not None else 0.0


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None
