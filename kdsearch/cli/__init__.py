"""The command line: commands parse, call and print; nothing else prints."""

from __future__ import annotations

import os
import signal
import sys

import typer

from kdsearch.cli.chain import chain
from kdsearch.cli.compare import compare
from kdsearch.cli.confirm import confirm
from kdsearch.cli.evaluate import evaluate
from kdsearch.cli.jobs import jobs, logs, stop, submit
from kdsearch.cli.methods import methods
from kdsearch.cli.output import console, safe
from kdsearch.cli.report import report
from kdsearch.cli.runs import best, export, ls, status
from kdsearch.cli.search import resume, search
from kdsearch.cli.train import train
from kdsearch.errors import KDSearchError

app = typer.Typer(
    name="kdsearch",
    help="Hyperparameter search for knowledge distillation in computer vision, on Ray Tune.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for command in (search, chain, compare, resume, confirm, ls, status, best, export, report, train, evaluate, methods):
    app.command()(command)
for of_jobs in (jobs, logs, stop):
    app.command()(of_jobs)
# The options of `search` pass through `submit`, which has that command check them.
app.command(context_settings={"ignore_unknown_options": True})(submit)


def main() -> None:
    """The console script `kdsearch`: errors that are a person's to mend become one sentence and an exit code.

    SIGTERM ends what it does as Ctrl-C would: Python ends at once by default, and processes of Ray's would stay.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        app()
    except KDSearchError as error:
        message = "\n".join(safe(line) for line in str(error).splitlines())
        console(stderr=True).print(f"error: {message}", soft_wrap=True)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        console(stderr=True).print("interrupted")
        sys.exit(130)
    except BrokenPipeError:
        # The reader (`head`, `less`) has left; Python would complain once more when it closes standard output.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
