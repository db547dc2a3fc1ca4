"""A real TensorBoard in a real browser: what a person sees of a run. Pictures are kept in tests/screenshots/."""

from __future__ import annotations

import io
import re
import time
from typing import TYPE_CHECKING

import pytest
from PIL import Image

from tests.browser import chromium, executable, tensorboard_page
from tests.results.tensorboard_run import TRIALS, best, write_run

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.browser import Browser, Page

pytestmark = [pytest.mark.slow, pytest.mark.skipif(executable() is None, reason="no Chromium here")]

TAGS = {
    "best": ["best/validation/accuracy"],
    "loss": ["loss/cross_entropy", "loss/swap", "loss/total"],
    "training": ["training/learning_rate", "training/seconds"],
    "validation": ["validation/accuracy"],
}
RUNS = [f"trials/{number:04d}" for number in range(len(TRIALS))]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as found:
        yield found


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    run = tmp_path_factory.mktemp("runs") / "ips-digits"
    write_run(run, pictures=True)
    with tensorboard_page(run) as address:
        yield address


def colors_drawn(page: Page, chart: str) -> dict[tuple[int, ...], int]:
    """How many pixels of a chart have each colour; its curves are painted on a canvas and no part of the document."""
    with Image.open(io.BytesIO(page.png(chart))) as picture:
        rgb = picture.convert("RGB")
        return {color: count for count, color in rgb.getcolors(rgb.width * rgb.height)}


def test_the_time_series_show_curve_and_best_value_of_each_trial(browser: Browser, url: str) -> None:
    page = browser.open(f"{url}#timeseries", height=1300)
    page.wait_for(f"text().includes('{RUNS[-1]}') && texts('scalar-card tb-data-table-content-row').length >= 9")
    page.wait_for("all('image-card img').length === 2 && all('image-card img').every(image => image.naturalWidth)")
    assert page.texts(".group-title") == ["Pinned", *TAGS]
    card = "all('scalar-card').find(card => card.querySelector('[title=\"best/validation/accuracy\"]'))"
    rows = page.evaluate(f"[...{card}.querySelectorAll('tb-data-table-content-row')].map(row => row.innerText)")
    shown = {run: (float(value), int(step)) for run, _, value, step, *_ in map(str.split, rows)}
    assert shown == {run: (pytest.approx(best(number), abs=1e-4), TRIALS[number][1]) for number, run in enumerate(RUNS)}
    dots = f"[...{card}.querySelectorAll('.row-circle span')].map(dot => getComputedStyle(dot).backgroundColor)"
    colors = {tuple(map(int, re.findall(r"\d+", color)[:3])) for color in page.evaluate(dots)}
    assert len(colors) == len(RUNS)
    deadline = time.monotonic() + 30
    while (drawn := colors_drawn(page, f"{card}.querySelector('line-chart')")) and time.monotonic() < deadline:
        if all(drawn.get(color, 0) > 30 for color in colors):
            break
    assert {color: drawn.get(color, 0) for color in colors if drawn.get(color, 0) <= 30} == {}
    page.screenshot("tensorboard-time-series")
    assert page.errors == []


def test_the_scalars_draw_a_line_per_trial_and_tag(browser: Browser, url: str) -> None:
    page = browser.open(f"{url}#scalars", height=1900)
    page.wait_for("texts('button.heading').length === 4")
    for closed in ("training", "validation"):
        page.click("button.heading", closed)
    tags = [tag for group in TAGS.values() for tag in group]
    page.wait_for(f"all('vz-line-chart2').length === {len(tags)}")
    # Each chart draws a run twice, as it is and smoothed; an empty curve has no path to speak of.
    drawn = "all('vz-line-chart2 path.line, path.line').filter(line => (line.getAttribute('d') || '').length > 50)"
    page.wait_for(f"{drawn}.length === {2 * len(RUNS) * len(tags)}")
    text = page.text().split("\n")
    assert [tag for tag in tags if tag not in text] == []
    assert [run for run in RUNS if run not in text] == []
    page.screenshot("tensorboard-scalars")
    assert page.errors == []


def test_the_hparams_table_shows_settings_and_best_value_of_every_trial(browser: Browser, url: str) -> None:
    page = browser.open(f"{url}#hparams")
    page.wait_for("texts('vaadin-grid-cell-content').length >= 32")
    cells = page.texts("vaadin-grid-cell-content")
    head, *rows = (cells[start : start + 8] for start in range(0, len(cells), 8))
    assert head == [
        "Trial ID", "Show Metrics", "alpha", "learning_rate", "nesterov", "patches", "temperature",
        "best validation/accuracy",
    ]  # fmt: skip
    assert [row[0] for row in rows] == ["0000", "0001", "0002"]
    for number, (hyperparameters, _, _) in enumerate(TRIALS):
        for name, cell in zip(head[2:7], rows[number][2:7], strict=True):
            value = hyperparameters[name]
            assert cell == str(value).lower() if isinstance(value, bool) else float(cell) == value
        assert float(rows[number][7]) == pytest.approx(best(number), abs=1e-5)
    page.screenshot("tensorboard-hparams")
    assert page.errors == []


def test_the_parallel_coordinates_draw_every_trial(browser: Browser, url: str) -> None:
    page = browser.open(f"{url}#hparams")
    page.wait_for("text().includes('best validation/accuracy')")
    page.click("[role=tab]", "PARALLEL COORDINATES")
    page.wait_for("all('g.foreground path').filter(line => line.getAttribute('d')).length === 3")
    page.screenshot("tensorboard-parallel-coordinates")
    assert page.errors == []


def test_the_pictures_of_the_best_are_shown(browser: Browser, url: str) -> None:
    page = browser.open(f"{url}#images")
    page.wait_for("all('img').length === 2 && all('img').every(image => image.naturalWidth > 400)")
    text = page.text().split("\n")
    assert "best/confusion_matrix" in text
    assert "best/predictions" in text
    page.screenshot("tensorboard-images")
    assert page.errors == []


def test_errors_of_a_page_are_seen(browser: Browser) -> None:
    script = "console.error('told', 1); setTimeout(() => { window.done = true; nothing.here })"
    page = browser.open(f"data:text/html,<script>{script}</script>")
    page.wait_for("window.done")
    assert any("told 1" in error for error in page.errors)
    assert any("nothing is not defined" in error for error in page.errors)
