"""A real browser for tests: Chromium without a window, driven over its own debugging pipe (no further package).

with chromium() as browser:
    page = browser.open("http://localhost:6006/")
    page.wait_for("document.title == 'TensorBoard'")
    assert "accuracy" in page.text()
    page.screenshot("name")            # tests/screenshots/name.png, git-ignored
    assert page.errors == []
"""

from __future__ import annotations

import base64
import json
import os
import select
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

SCREENSHOTS = Path(__file__).parent / "screenshots"

FLAGS = (
    "--headless",
    "--no-sandbox",  # root has none
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--hide-scrollbars",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--remote-debugging-pipe",
)

# Text and elements inside shadow roots are invisible to innerText and querySelector; these walk into them.
HELPERS = """
const elements = function* (root) {
    for (const element of root.querySelectorAll('*')) {
        yield element;
        if (element.shadowRoot) yield* elements(element.shadowRoot);
    }
};
const visible = element => element.getClientRects().length > 0;
const all = selector => [...elements(document)].filter(element => element.matches(selector) && visible(element));
const own = element => [...element.childNodes].filter(node => node.nodeType === Node.TEXT_NODE)
    .map(node => node.data.trim()).filter(Boolean).join(' ');
const texts = selector => all(selector).map(element => element.innerText.trim());
const text = () => [...elements(document)].filter(visible)
    .filter(element => !['SCRIPT', 'STYLE'].includes(element.tagName)).map(own).filter(Boolean).join('\\n');
"""


def executable() -> str | None:
    """The path of Chromium or Chrome, None where there is none."""
    for name in ("chromium", "chromium-browser", "google-chrome"):
        if found := shutil.which(name):
            return found
    return None


class Page:
    """One tab."""

    def __init__(self, browser: Browser, session: str) -> None:
        self._browser = browser
        self._session = session

    @property
    def errors(self) -> list[str]:
        """What the page wrote to the console as errors, uncaught exceptions and failed requests so far."""
        self._browser.drain()
        return self._browser.errors.get(self._session, [])

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """A command of the DevTools protocol, and its answer."""
        return self._browser.call(method, self._session, **parameters)

    def goto(self, url: str) -> None:
        answer = self.call("Page.navigate", url=url)
        assert "errorText" not in answer, f"{url}: {answer['errorText']}"

    def evaluate(self, expression: str) -> Any:
        """The JSON value of a JavaScript expression; `all`, `texts` and `text` of HELPERS may be used in it."""
        answer = self.call(
            "Runtime.evaluate",
            expression=f"(async () => {{ {HELPERS}; return ({expression}); }})()",
            awaitPromise=True,
            returnByValue=True,
        )
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def text(self) -> str:
        """All text that is displayed, that of shadow roots included, one element a line."""
        return str(self.evaluate("text()"))

    def texts(self, selector: str) -> list[str]:
        """The text of each displayed element that matches a CSS selector, inside shadow roots too."""
        return list(self.evaluate(f"texts({json.dumps(selector)})"))

    def wait_for(self, expression: str, seconds: float = 30) -> Any:
        """Wait until an expression is true and return its value; fails with a screenshot and the page's text."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            with suppress(AssertionError):  # The page is between two documents.
                if value := self.evaluate(expression):
                    return value
            time.sleep(0.1)
        picture = self.screenshot("failure")
        raise AssertionError(f"{expression} was not true within {seconds:g} s; see {picture}; shown:\n{self.text()}")

    def click(self, selector: str, label: str = "") -> None:
        """Wait for the first displayed element that matches and contains `label`, and click it."""
        wanted = f"all({json.dumps(selector)}).find(e => e.innerText.includes({json.dumps(label)}))"
        self.wait_for(f"{wanted} !== undefined")
        self.evaluate(f"{wanted}.click()")

    def png(self, element: str | None = None) -> bytes:
        """What is seen, as a PNG file; `element` is a JavaScript expression of the one element to show."""
        clip = {}
        if element is not None:
            box = self.evaluate(f"(({element}).scrollIntoViewIfNeeded(), ({element}).getBoundingClientRect().toJSON())")
            clip = {"clip": {name: box[name] for name in ("x", "y", "width", "height")} | {"scale": 1}}
        return base64.b64decode(self.call("Page.captureScreenshot", format="png", **clip)["data"])

    def screenshot(self, name: str) -> Path:
        """Write what is seen to tests/screenshots/`name`.png."""
        SCREENSHOTS.mkdir(exist_ok=True)
        path = SCREENSHOTS / f"{name}.png"
        path.write_bytes(self.png())
        return path


class Browser:
    """A running Chromium: JSON messages, each ended by a zero byte, over a pipe in and a pipe out."""

    def __init__(self, commands: int, answers: int) -> None:
        self._commands = commands
        self._answers = answers
        self._rest = b""
        self._count = 0
        self._replies: dict[int, dict[str, Any]] = {}
        self.errors: dict[str, list[str]] = {}

    def open(self, url: str, width: int = 1600, height: int = 1000) -> Page:
        """A new tab that shows `url`; sizes in pixels."""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        page = Page(self, session)
        for domain in ("Page", "Runtime", "Log"):
            page.call(f"{domain}.enable")
        page.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        page.goto(url)
        return page

    def call(self, method: str, session: str | None = None, **parameters: Any) -> dict[str, Any]:
        self._count += 1
        message: dict[str, Any] = {"id": self._count, "method": method, "params": parameters}
        if session is not None:
            message["sessionId"] = session
        os.write(self._commands, json.dumps(message).encode() + b"\0")
        deadline = time.monotonic() + 60
        while self._count not in self._replies:
            assert time.monotonic() < deadline, f"Chromium did not answer {method} within 60 s"
            self.drain(1.0)
        reply = self._replies.pop(self._count)
        assert "error" not in reply, f"{method}: {reply['error']['message']}"
        return dict(reply["result"])

    def drain(self, seconds: float = 0.0) -> None:
        """Take up what Chromium has sent, waiting up to `seconds` for the first of it."""
        while select.select([self._answers], [], [], seconds)[0]:
            data = os.read(self._answers, 1 << 20)
            assert data, "Chromium has ended"
            *messages, self._rest = (self._rest + data).split(b"\0")
            for message in messages:
                self._take(json.loads(message))
            seconds = 0.0

    def _take(self, message: dict[str, Any]) -> None:
        if "id" in message:
            self._replies[message["id"]] = message
        elif error := _error(message["method"], message["params"]):
            self.errors.setdefault(message["sessionId"], []).append(error)


def _error(method: str, event: dict[str, Any]) -> str | None:
    """The text of an event that tells of an error on the page."""
    if method == "Runtime.exceptionThrown":
        details = event["exceptionDetails"]
        return str(details.get("exception", {}).get("description", details["text"]))
    if method == "Runtime.consoleAPICalled" and event["type"] in ("error", "assert"):
        return " ".join(str(part.get("value", part.get("description", ""))) for part in event["args"])
    if method == "Log.entryAdded" and event["entry"]["level"] == "error":
        return f"{event['entry']['text']} {event['entry'].get('url', '')}".strip()
    return None


@contextmanager
def chromium() -> Iterator[Browser]:
    """A browser of its own, with an empty profile, ended when the block ends."""
    found = executable()
    assert found is not None, "no Chromium here: apt-get install chromium"
    read_commands, write_commands = os.pipe()
    read_answers, write_answers = os.pipe()
    with tempfile.TemporaryDirectory(prefix="chromium-", ignore_cleanup_errors=True) as profile:
        # The pipe is expected at descriptors 3 and 4, which only a shell can promise.
        command = shlex.join([found, *FLAGS, f"--user-data-dir={profile}", "about:blank"])
        process = subprocess.Popen(
            ["bash", "-c", f"exec {command} 3<&{read_commands} 4>&{write_answers}"],
            pass_fds=(read_commands, write_answers),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(read_commands)
        os.close(write_answers)
        try:
            browser = Browser(write_commands, read_answers)
            yield browser
            with suppress(AssertionError, OSError):
                browser.call("Browser.close")
        finally:
            os.close(write_commands)  # Chromium ends when the pipe does.
            os.close(read_answers)
            _end(process)


@contextmanager
def tensorboard_page(logdir: Path, *arguments: str) -> Iterator[str]:
    """The address of a real TensorBoard over `logdir` (a run's folder), ended when the block ends.

    It has found every run then, but may still be reading: wait for what you look at.
    """
    runs = {str(path.parent.relative_to(logdir)) for path in logdir.rglob("*tfevents*")}
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", str(logdir), "--reload_interval", "1"]
    command += ["--host", "127.0.0.1", "--port", str(port), *arguments]
    url = f"http://127.0.0.1:{port}/"
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
        try:
            deadline = time.monotonic() + 60
            while not _lists(url, runs):
                if process.poll() is not None or time.monotonic() > deadline:
                    log.seek(0)
                    raise AssertionError(f"TensorBoard did not start:\n{log.read().decode(errors='replace')}")
                time.sleep(0.2)
            yield url
        finally:
            _end(process)


def get_json(url: str, body: Any = None) -> Any:
    """The JSON document at `url`; with a body it is posted."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.loads(answer.read())


def _lists(url: str, runs: set[str]) -> bool:
    try:
        return runs <= set(get_json(f"{url}data/runs"))
    except (urllib.error.URLError, ConnectionError, TimeoutError):
        return False


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
