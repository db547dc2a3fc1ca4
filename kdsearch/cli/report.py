"""`kdsearch report`: one page about a run."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from kdsearch.cli.output import print_json, say
from kdsearch.cli.runs import AsJson, RunName, Storage
from kdsearch.errors import RunError


class ReportFormat(StrEnum):
    """What a report is written in."""

    html = "html"
    md = "md"


def report(
    run: RunName,
    to: Annotated[
        Path | None,
        typer.Option(
            "--to",
            help="File to write; default: report.html in the run's folder, of a run at a URL here.",
            metavar="FILE",
        ),
    ] = None,
    form: Annotated[
        ReportFormat | None, typer.Option("--format", help="Default: md for a file that ends so, else html.")
    ] = None,
    storage: Storage = "runs",
    as_json: AsJson = False,
) -> None:
    """Write what a run found, and how sure it is, on one page that needs no network."""
    from kdsearch.files import write_atomic
    from kdsearch.results import Results, find_run
    from kdsearch.results.copies import home_of
    from kdsearch.results.report import report as written

    folder = find_run(run, storage)
    kind = form or (ReportFormat.md if to is not None and to.suffix.lower() == ".md" else ReportFormat.html)
    place = folder if home_of(folder) is None else Path()  # what is read of a run at a URL is a copy in a cache
    target = to.expanduser() if to is not None else place / f"report.{kind.value}"
    if target.is_dir():
        raise RunError(f"--to {str(target)!r} is a folder: name a file in it")
    content = written(Results(folder), kind.value).encode()
    try:
        write_atomic(target, content)
    except OSError as error:
        raise RunError(f"--to {str(target)!r} cannot be written: {error.strerror or error}") from None
    if as_json:
        print_json({"run": run, "to": str(target), "format": kind.value, "bytes": len(content)})
        return
    say(f"Written to {target} ({len(content):,} bytes).", wrap=False)
