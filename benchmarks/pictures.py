"""Makes the pictures of the README from a real search: `python benchmarks/pictures.py FOLDER`.

A search of `ips` runs in a pseudo-terminal whose screens are kept; its last screen but one of the live display, its
end, and TensorBoard's page on its run become benchmarks/pictures/*.png. Needs pyte (a terminal emulator) and Chromium.
"""

from __future__ import annotations

import fcntl
import html
import os
import pty
import select
import struct
import sys
import tempfile
import termios
import time
from pathlib import Path

import pyte

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))
from tests.browser import chromium, tensorboard_page  # noqa: E402

COLUMNS, LINES = 118, 36
PICTURES = ROOT / "benchmarks" / "pictures"
COLORS = {
    "default": "#d8dee9",
    "green": "#8fd18f",
    "red": "#e57373",
    "cyan": "#7fd3e0",
    "yellow": "#e6cf7a",
    "brown": "#e6cf7a",
}


def watch(command: list[str], moment: float) -> tuple[str, str]:
    """Run the command in a terminal; its screen at the moment (seconds after the first trial), and at the end."""
    screen = pyte.Screen(COLUMNS, LINES)
    stream = pyte.ByteStream(screen)
    process, terminal = pty.fork()
    if process == 0:
        os.environ.update(TERM="xterm-256color", COLUMNS=str(COLUMNS), LINES=str(LINES))
        os.execvp(command[0], command)
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", LINES, COLUMNS, 0, 0))
    first_trial, during = None, ""
    while True:
        if select.select([terminal], [], [], 0.2)[0]:
            try:
                data = os.read(terminal, 65536)
            except OSError:
                break
            stream.feed(data)
        if first_trial is None and any("trial 0" in line for line in screen.display):
            first_trial = time.monotonic()
        if not during and first_trial is not None and time.monotonic() - first_trial > moment:
            during = as_html(screen)
    os.waitpid(process, 0)
    return during, as_html(screen)


def as_html(screen: pyte.Screen) -> str:
    """The lines of a screen that hold anything, coloured."""
    last = max((number for number, line in enumerate(screen.display) if line.strip()), default=0)
    lines = []
    for row in range(last + 1):
        cells = [screen.buffer[row][column] for column in range(COLUMNS)]
        lines.append("".join(_cell(cell) for cell in cells).rstrip())
    return "\n".join(lines)


def _cell(cell: pyte.screens.Char) -> str:
    text = html.escape(cell.data)
    style = f"color:{COLORS.get(cell.fg, '#d8dee9')}" + (";font-weight:bold" if cell.bold else "")
    return text if cell.data == " " else f'<span style="{style}">{text}</span>'


def page(title: str, *screens: str) -> str:
    shown = "<hr>".join(f"<pre>{screen}</pre>" for screen in screens)
    return f"""<!doctype html><meta charset="utf-8"><style>
    body {{ margin: 0; background: #1f2430; display: inline-block; padding: 18px 24px }}
    pre {{ font: 14px/1.35 'DejaVu Sans Mono', monospace; margin: 0; color: #d8dee9 }}
    hr {{ border: 0; border-top: 1px dashed #4c566a; margin: 14px 0 }}
    </style><body><pre style="color:#88c0d0">$ {html.escape(title)}</pre><br>{shown}</body>"""


def main() -> None:
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else tempfile.mkdtemp())
    os.chdir(folder)
    command = [str(Path(sys.executable).with_name("kdsearch")), "search", "ips", "--name", "ips-digits-resnet8-1"]
    during, end = watch(command, moment=20)
    (folder / "terminal.html").write_text(page("kdsearch search ips", during, end))
    with chromium() as browser:
        shown = browser.open(f"file://{folder / 'terminal.html'}", width=1120, height=900)
        shown.wait_for("document.body !== null && document.querySelectorAll('pre').length > 2")
        (PICTURES / "terminal.png").write_bytes(shown.png("document.body"))
        with tensorboard_page(folder / "runs" / "ips-digits-resnet8-1") as url:
            board = browser.open(f"{url}#timeseries", width=1500, height=950)
            board.wait_for("text().includes('best/')  || text().includes('confusion_matrix')", 60)
            time.sleep(8)
            (PICTURES / "tensorboard.png").write_bytes(board.png())
            table = browser.open(f"{url}#hparams", width=1500, height=800)
            table.wait_for("text().includes('swap_probability')", 60)
            time.sleep(4)
            (PICTURES / "hparams.png").write_bytes(table.png())


main()
