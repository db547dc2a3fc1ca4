"""A report in a real browser, at the width of a phone and of a desk. Pictures are kept in tests/screenshots/."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from kdsearch.results import Results
from kdsearch.results.report import report
from tests.browser import chromium, executable
from tests.report.searched_run import searched_run
from tests.report.test_report_states import confirmed_run, hostile_run
from tests.results.build_run import RunBuilder, sample_run

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.browser import Browser, Page

pytestmark = pytest.mark.skipif(executable() is None, reason="no Chromium here")

PHONE, DESK = 360, 1280

# Elements that stick out of the page; what lies in a box that scrolls by itself does not widen the page.
OUTSIDE = """[...document.querySelectorAll('body *')].filter(e => !e.closest('.table table') && visible(e)
    && (e.getBoundingClientRect().right > innerWidth + 0.5 || e.getBoundingClientRect().left < -0.5))
    .map(e => `${e.tagName} ${e.className.baseVal ?? e.className} ${e.textContent.slice(0, 40)}`)"""

# Words of a drawing that lie outside of it, where they are cut off.
CUT = """[...document.querySelectorAll('svg[role=img] text')].filter(visible).filter(e => {
    const word = e.getBoundingClientRect(), drawing = e.closest('svg').getBoundingClientRect();
    return word.left < drawing.left - 1 || word.right > drawing.right + 1
        || word.top < drawing.top - 1 || word.bottom > drawing.bottom + 1;
}).map(e => e.textContent)"""

# The smallest letters anywhere, in pixels as they are seen.
SMALLEST = """Math.min(...[...document.querySelectorAll('svg[role=img] text, p, td, li, pre')].filter(visible)
    .map(e => parseFloat(getComputedStyle(e).fontSize) * (e.ownerSVGElement
        ? e.ownerSVGElement.getBoundingClientRect().width / e.ownerSVGElement.viewBox.baseVal.width : 1)))"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as found:
        yield found


def opened(browser: Browser, folder: Path, width: int) -> Page:
    file = folder.with_suffix(".html")
    file.write_text(report(Results(folder)))
    page = browser.open(file.as_uri(), width=width, height=900)
    page.wait_for("document.readyState === 'complete'")
    page.evaluate("document.querySelectorAll('details').forEach(e => e.open = true)")
    return page


def assert_readable(page: Page, width: int) -> None:
    assert page.evaluate("document.documentElement.scrollWidth") == width
    assert page.evaluate(OUTSIDE) == []
    assert page.evaluate(CUT) == []
    assert page.errors == []
    assert page.evaluate("window.hit === undefined") is True


def whole(page: Page, name: str) -> None:
    """A picture of the page from top to bottom."""
    height = page.evaluate("document.documentElement.scrollHeight")
    width = page.evaluate("innerWidth")
    page.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
    page.screenshot(name)


@pytest.mark.parametrize("width", [PHONE, DESK])
def test_a_search_is_readable_on_a_phone_and_on_a_desk(browser: Browser, tmp_path: Path, width: int) -> None:
    confirmed_run(tmp_path / "my-run")
    page = opened(browser, tmp_path / "my-run", width)
    assert_readable(page, width)
    assert page.evaluate(SMALLEST) >= (10.5 if width == PHONE else 11)
    assert page.evaluate("all('svg[role=img]').length") == 2 + 1 + 1 + 4 + 1 + 1 + 1
    assert page.evaluate("all('svg[role=img]').every(e => e.getBoundingClientRect().height > 20)") is True
    assert page.evaluate("all('svg[role=img]').every(e => e.getAttribute('aria-label').length > 20)") is True
    whole(page, f"report-{width}")


@pytest.mark.parametrize("width", [PHONE, DESK])
def test_hostile_text_neither_acts_nor_widens_the_page(browser: Browser, tmp_path: Path, width: int) -> None:
    page = opened(browser, hostile_run(tmp_path / "my-run").folder, width)
    assert_readable(page, width)
    assert page.evaluate("document.querySelectorAll('img, iframe, body script:not([type])').length") == 0
    page.screenshot(f"report-hostile-{width}")


def test_a_run_that_has_hardly_begun_is_readable(browser: Browser, tmp_path: Path) -> None:
    for name, make in (("empty", RunBuilder), ("sample", sample_run)):
        page = opened(browser, make(tmp_path / name).folder, PHONE)
        assert_readable(page, PHONE)
        whole(page, f"report-{name}")


def test_on_paper_nothing_is_cut_off(browser: Browser, tmp_path: Path) -> None:
    searched_run(tmp_path / "my-run")
    page = opened(browser, tmp_path / "my-run", 720)  # what A4 leaves between its margins
    page.call("Emulation.setEmulatedMedia", media="print")
    assert page.evaluate("all('.table').filter(e => e.scrollWidth > e.clientWidth + 1).length") == 0
    assert page.evaluate(OUTSIDE.replace("!e.closest('.table table') && ", "")) == []
    pdf = page.call("Page.printToPDF", printBackground=True)["data"]
    assert len(pdf) > 10_000
    whole(page, "report-print")
