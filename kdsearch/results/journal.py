"""Optuna's journal file, read without Optuna, and only what was added since the last look.

One JSON line is one operation. The codes, the fields and the rules (a finished trial changes no more, an operation on
a trial or study that is not there is void) are those of `optuna.storages.JournalStorage`, Optuna 5. Each line of ours
also carries `time`, seconds since the epoch. The last line may be torn by a crash or still be written: it waits.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, BinaryIO

from kdsearch.errors import RunError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Operation = dict[str, Any]

_STATES = ("RUNNING", "COMPLETE", "PRUNED", "FAIL", "WAITING")  # in the order of optuna.trial.TrialState
_FINISHED = ("COMPLETE", "PRUNED", "FAIL")
_MALFORMED = (KeyError, TypeError, ValueError, IndexError, AttributeError)


@dataclass(eq=False)
class Record:
    """A trial as the journal tells it; compared by identity, changed in place as lines arrive."""

    number: int
    state: str
    """One of Optuna's: RUNNING, COMPLETE, PRUNED, FAIL, WAITING."""
    values: list[float] | None = None
    attributes: dict[str, Any] = field(default_factory=dict)
    intermediate: dict[int, tuple[float, float | None]] = field(default_factory=dict)
    """Step → value and the time it was written, in seconds since the epoch."""
    started: float | None = None
    ended: float | None = None
    internal: dict[str, tuple[float, str]] = field(default_factory=dict)
    """Parameter → Optuna's internal value and its distribution as JSON."""

    @property
    def parameters(self) -> dict[str, Any]:
        """The values that Optuna suggested, as it shows them."""
        return {name: _external(value, distribution) for name, (value, distribution) in self.internal.items()}


@dataclass(eq=False)
class Study:
    """One study of the journal; a run's journal holds one."""

    name: str
    directions: list[int]
    """Optuna's StudyDirection: 1 minimises, 2 maximises."""
    attributes: dict[str, Any] = field(default_factory=dict)
    trials: list[Record] = field(default_factory=list)


class Journal:
    """The studies in a journal file; `refresh` takes in what was added."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._forget()

    def _forget(self) -> None:
        self.lines = 0
        """Complete lines taken in so far."""
        self.time: float | None = None
        """When the last of them was written."""
        self._offset = 0
        self._inode: int | None = None
        self._studies: dict[int, Study] = {}
        self._studies_ever = 0
        self._trials: list[tuple[int, Record]] = []  # by Optuna's trial id, which counts over all studies

    def study(self, name: str) -> Study | None:
        """The study of that name, else the first one, else None."""
        studies = list(self._studies.values())
        return next((study for study in studies if study.name == name), studies[0] if studies else None)

    def refresh(self) -> set[Record]:
        """Read what was added; the trials that it changed. A file that is not there yet is empty.

        Raises `RunError` for a line that is no journal operation and is not the last one.
        """
        try:
            file = self.path.open("rb")
        except FileNotFoundError:
            return set()
        with file:
            now = os.fstat(file.fileno())
            if now.st_ino != self._inode or now.st_size < self._offset:
                self._forget()  # another file stands in its place
                self._inode = now.st_ino
            file.seek(self._offset)
            return self._read(file)

    def _read(self, file: BinaryIO) -> set[Record]:
        changed = set()
        torn = False
        for line in file:
            if torn:
                raise self._unreadable()
            if not line.endswith(b"\n"):
                break
            operation = _parse(line)
            if operation is None:
                torn = True
                continue
            try:
                record = self._apply(operation)
            except _MALFORMED as error:
                raise self._unreadable() from error
            if record is not None:
                changed.add(record)
            self._offset += len(line)
            self.lines += 1
        return changed

    def _unreadable(self) -> RunError:
        return RunError(
            f"{self.path}: line {self.lines + 1} is no entry of an Optuna journal; the file is damaged there"
        )

    def _apply(self, operation: Operation) -> Record | None:
        code = operation["op_code"]
        if not isinstance(code, int):
            raise TypeError(code)
        self.time = _number(operation.get("time"), self.time)
        on_study: dict[int, Callable[[Operation], Record | None]] = {
            0: self._create_study,
            1: self._delete_study,
            2: self._set_study_attribute,
            4: self._create_trial,
        }
        if code in on_study:
            return on_study[code](operation)
        change = _TRIAL_OPERATIONS.get(code)
        if change is None:
            return None
        number = operation["trial_id"]
        if not 0 <= number < len(self._trials):
            return None
        study, record = self._trials[number]
        if record.state in _FINISHED:
            return None
        change(record, operation)
        return record if study in self._studies else None

    def _create_study(self, operation: Operation) -> None:
        name = str(operation["study_name"])
        if all(study.name != name for study in self._studies.values()):
            directions = [int(direction) for direction in operation["directions"]]
            self._studies[self._studies_ever] = Study(name, directions)
            self._studies_ever += 1

    def _delete_study(self, operation: Operation) -> None:
        self._studies.pop(operation["study_id"], None)

    def _set_study_attribute(self, operation: Operation) -> None:
        study = self._studies.get(operation["study_id"])
        if study is not None:
            study.attributes.update(operation["user_attr"])

    def _create_trial(self, operation: Operation) -> Record | None:
        study = self._studies.get(operation["study_id"])
        if study is None:
            return None
        distributions = operation.get("distributions", {})
        written = _number(operation.get("time"), None)
        values = operation.get("values") or [operation.get("value")]
        record = Record(
            number=len(study.trials),
            state=_STATES[operation.get("state", 0)],
            values=None if None in values else [float(value) for value in values],
            attributes=dict(operation.get("user_attrs", {})),
            intermediate={
                int(step): (float(value), written) for step, value in operation.get("intermediate_values", {}).items()
            },
            started=_timestamp(operation.get("datetime_start")),
            ended=_timestamp(operation.get("datetime_complete")),
            internal={name: (value, distributions[name]) for name, value in operation.get("params", {}).items()},
        )
        study.trials.append(record)
        self._trials.append((operation["study_id"], record))
        return record


def _set_parameter(record: Record, operation: Operation) -> None:
    record.internal[operation["param_name"]] = (operation["param_value_internal"], operation["distribution"])


def _set_state(record: Record, operation: Operation) -> None:
    state = _STATES[operation["state"]]
    if state == "RUNNING" and record.state != "RUNNING":
        record.started = _timestamp(operation.get("datetime_start"))
    if state in _FINISHED:
        record.ended = _timestamp(operation.get("datetime_complete"))
    record.state = state
    if operation["values"] is not None:
        record.values = [float(value) for value in operation["values"]]


def _set_intermediate(record: Record, operation: Operation) -> None:
    value = float(operation["intermediate_value"])
    record.intermediate[int(operation["step"])] = (value, _number(operation.get("time"), None))


def _set_attribute(record: Record, operation: Operation) -> None:
    record.attributes.update(operation["user_attr"])


_TRIAL_OPERATIONS: dict[int, Callable[[Record, Operation], None]] = {
    5: _set_parameter,
    6: _set_state,
    7: _set_intermediate,
    8: _set_attribute,
}


def _parse(line: bytes) -> Operation | None:
    try:
        operation = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return operation if isinstance(operation, dict) else None


def _number(value: Any, otherwise: float | None) -> float | None:
    return float(value) if isinstance(value, int | float) else otherwise


def _timestamp(text: str | None) -> float | None:
    return None if text is None else datetime.fromisoformat(text).timestamp()


def _external(value: float, distribution: str) -> Any:
    """Optuna's internal value of a parameter as it is shown: an index into the choices, a whole number, or itself."""
    described = json.loads(distribution)
    if described["name"] == "CategoricalDistribution":
        return described["attributes"]["choices"][int(value)]
    return int(value) if described["name"].startswith("Int") else value
