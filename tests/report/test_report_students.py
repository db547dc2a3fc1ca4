"""A report of a search among several students: its table and its drawings are those of the run."""

from __future__ import annotations

from pathlib import Path

import pytest

from kdsearch.results import Results
from kdsearch.results.report import report
from kdsearch.results.students import DOCUMENT, MeasuredStudent, StudentsDocument, write_students
from tests.browser import chromium, executable
from tests.report.page_reader import Page, places
from tests.report.test_report_browser import DESK, PHONE, assert_readable, opened, whole
from tests.results.build_run import START
from tests.students.test_students import add, run_of

MEASURED = {"resnet20": (270_000, 0.004), "resnet14": (175_000, 0.003), "resnet8": (78_000, 0.001)}


def folder_of(folder: Path) -> Path:
    """resnet14 is beaten by resnet8 in all three; resnet110 was too large."""
    run = run_of(folder, *MEASURED)
    for student, value in (("resnet20", 0.9), ("resnet14", 0.6), ("resnet8", 0.8), ("resnet20", 0.7)):
        add(run, value, student=student, learning_rate=0.1)
    known = [
        MeasuredStudent(student=name, name=name, parameters=size, multiply_adds=None, latency=latency, refused=None)
        for name, (size, latency) in MEASURED.items()
    ]
    why = "has 1,700,000 parameters, more than the limit of 1,000,000"
    refused = MeasuredStudent(
        student="resnet110", name="resnet110", parameters=1_700_000, multiply_adds=None, latency=None, refused=why
    )
    document = StudentsDocument(
        max_parameters=1_000_000, max_latency=None, device="cpu", threads=1, students=[*known, refused]
    )
    write_students(run.folder, document)
    run.describe(ended=START + 3600)
    return run.folder


def test_the_students_stand_in_a_table_and_in_drawings_over_size_and_latency(tmp_path: Path) -> None:
    page = Page(report(Results(folder_of(tmp_path / "run"))))
    head, *rows = page.table("The students of the search")
    assert head == ["student", "accuracy", "parameters", "multiply-adds", "latency", "front"]
    assert [[row[0], row[1], row[4], row[5]] for row in rows] == [
        ["resnet20", "0.9000", "4 ms", "yes"],
        ["resnet14", "0.6000", "3 ms", "no"],
        ["resnet8", "0.8000", "1 ms", "yes"],
        ["resnet110", "–", "–", "left out"],
    ]
    assert "resnet110: has 1,700,000 parameters" in page.section("Which student").text
    for title, costs in (("over parameters", (270_000, 78_000, 175_000)), ("over milliseconds", (4, 1, 3))):
        drawing = page.drawing("3 students", title)
        front, other = places(drawing, "complete"), places(drawing, "stopped")
        assert front == [pytest.approx((costs[0], 0.9), rel=0.01), pytest.approx((costs[1], 0.8), rel=0.01)]
        assert other == [pytest.approx((costs[2], 0.6), rel=0.01)]
    assert [row["name"] for row in page.data["students"]] == ["resnet20", "resnet14", "resnet8", "resnet110"]


def test_a_search_with_one_student_or_with_a_damaged_list_has_no_such_section(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "run")
    (folder / DOCUMENT).write_text('{"students": [{}]}')
    assert "Which student" not in report(Results(folder))
    (folder / DOCUMENT).unlink()
    assert "Which student" not in report(Results(folder))


@pytest.mark.skipif(executable() is None, reason="no Chromium here")
@pytest.mark.parametrize("width", [PHONE, DESK])
def test_it_is_readable_on_a_phone_and_on_a_desk(tmp_path: Path, width: int) -> None:
    folder = folder_of(tmp_path / "run")
    with chromium() as browser:
        page = opened(browser, folder, width)
        assert_readable(page, width)
        whole(page, f"report-students-{width}")
