"""The students that a search chooses among: what each costs, as a run's folder keeps it, and what each reached."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypedDict, cast

from kdsearch.files import write_atomic
from kdsearch.results.documents import read_json, to_json
from kdsearch.results.figures import score
from kdsearch.results.front import Point, on_front

if TYPE_CHECKING:
    from pathlib import Path

    from kdsearch.results.results import Results

DOCUMENT = "students.json"

TITLES = ("student", "", "parameters", "multiply-adds", "latency", "front")
"""Of the table; the second is the metric's."""


class MeasuredStudent(TypedDict):
    """What one student costs."""

    student: str
    """As settings name it."""
    name: str
    """The same for people, without folders."""
    parameters: int
    multiply_adds: int | None
    """Of one image; None: not measured, as of a student that is too large."""
    latency: float | None
    """Seconds for one image; None: not measured."""
    refused: str | None
    """Why it is not among those that are trained."""


class StudentsDocument(TypedDict):
    """The whole file."""

    max_parameters: int | None
    max_latency: float | None
    """Seconds."""
    device: str
    """On which latency was measured."""
    threads: int
    students: list[MeasuredStudent]


def write_students(folder: Path, document: StudentsDocument) -> None:
    """Put it into a run's folder."""
    write_atomic(folder / DOCUMENT, to_json(document).encode())


def read_students(folder: Path) -> StudentsDocument | None:
    """What a run's folder says of its students; None where it has one student and no limits."""
    if not (folder / DOCUMENT).is_file():
        return None
    return cast("StudentsDocument", read_json(folder / DOCUMENT))


def student_rows(results: Results) -> list[dict[str, Any]] | None:
    """A row for each student of a search: its best value at the end of the budget and its trial (None: no trial of it
    came so far), its costs, whether it is on the front, and why it was refused if it was; None as `read_students`.
    """
    document = read_students(results.folder)
    if document is None:
        return None
    rows = [_row(results, measured) for measured in document["students"]]
    points = [Point(row["value"], row["parameters"], row["latency"] or 0.0) for row in rows]
    return [row | {"front": front} for row, front in zip(rows, on_front(points, results.mode), strict=True)]


def _row(results: Results, measured: MeasuredStudent) -> dict[str, Any]:
    """A student that was refused has no trials, hence no value, and takes no part in the front."""
    trained = measured["refused"] is None
    own = [
        trial
        for trial in results.trials
        if trained and trial.hyperparameters.get("student", measured["student"]) == measured["student"]
    ]
    ended = [trial for trial in own if trial.state == "COMPLETE" and trial.best is not None]
    best = next((trial for trial in results.top(len(results.trials)) if trial in ended), None)
    return {
        **measured,
        "value": None if best is None else best.best,
        "trial": None if best is None else best.number,
        "trials": len(own),
    }


def cells(row: Mapping[str, Any]) -> list[str]:
    """A row as the table shows it, under `TITLES`."""
    return [
        row["name"],
        score(row["value"]),
        f"{row['parameters']:,}",
        "–" if row["multiply_adds"] is None else f"{row['multiply_adds']:,}",
        milliseconds(row["latency"]),
        "left out" if row["refused"] else "yes" if row["front"] else "no",
    ]


def milliseconds(seconds: float | None) -> str:
    """Three significant digits."""
    return "–" if seconds is None else f"{1000 * seconds:.3g} ms"


EXPLANATION = (
    "Value: the best at the end of the budget. Latency: one image, the median of forward passes on one thread of the "
    "CPU where the search was started. On the front: no other student is at least as good in value, parameters and "
    "latency and better in one of them."
)


def card_section(rows: Sequence[Mapping[str, Any]], metric: str) -> str:
    """The table for a model card."""
    titles = [title or metric for title in TITLES]
    lines = [titles, ["---"] * len(titles), *([cell.replace("|", "\\|") for cell in cells(row)] for row in rows)]
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return f"## The students of the search\n\n{table}\n\n{EXPLANATION}"
