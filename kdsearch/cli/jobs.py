"""`kdsearch submit`, `jobs`, `logs` and `stop`: searches that go on when the laptop closes."""

from __future__ import annotations

import secrets
import shlex
import sys
import tempfile
import time
from contextlib import nullcontext
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kdsearch.cli.output import Column, Row, duration, print_json, safe, say
from kdsearch.cli.runs import AsJson
from kdsearch.cli.table import print_table
from kdsearch.errors import InvalidSetting, KDSearchError, UserError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from kdsearch.experiment import Experiment
    from kdsearch.tuning.jobs import Job

Address = Annotated[
    str | None,
    typer.Option("--address", help="The cluster, http://HEAD:8265; else RAY_API_SERVER_ADDRESS.", metavar="URL"),
]
JobName = Annotated[str, typer.Argument(help="Name of a job, see `kdsearch jobs`.", metavar="JOB")]

FILES = "--files="
"""Tells the first step of a job that files travelled with it, and the digest of their content."""

_STYLES = {"RUNNING": "cyan", "FAILED": "red"}
_SECONDS_BETWEEN_LOOKS = 0.5


def submit(
    context: typer.Context,
    arguments: Annotated[
        list[str],
        typer.Argument(help="A method or a space in YAML, and any option of `kdsearch search`.", metavar="SPACE …"),
    ],
    address: Address = None,
    name: Annotated[str | None, typer.Option("--name", help="Name of the run, and of the job.")] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Instead of a space name a run of the cluster, to go on with.")
    ] = False,
    storage: Annotated[
        str | None,
        typer.Option("--storage", help="Where the cluster keeps its runs; else its KDSEARCH_STORAGE.", metavar="PATH"),
    ] = None,
    along: Annotated[
        list[str] | None,
        typer.Option("--with", help="A file that those named need: it travels too.", metavar="FILE"),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check here, estimate, submit nothing.")] = False,
    as_json: AsJson = False,
) -> None:
    """Search on a Ray cluster, as a job that goes on when this machine is off.

    Your files that are named by a relative path travel with the job; absolute paths are the cluster's.
    """
    if storage is not None and "://" not in storage and not storage.startswith("/"):
        raise InvalidSetting("--storage", storage, "must be an absolute path on the cluster, or an address")
    if resume:
        if name is not None or dry_run or along:
            raise UserError("--resume goes on with a run as it was begun: leave out --name, --with and --dry-run")
        run = str(_parsed(context, "resume", arguments)["run"])
        _submit(run, ["resume", *arguments, "--address", "auto"], [], storage, address, as_json)
        return
    given = _parsed(context, "search", arguments)
    run = name or f"{Path(given['space'].partition(':')[0]).stem}-{secrets.token_hex(3)}"
    experiment = _experiment({**given, "name": run})
    if dry_run:
        _dry_run(experiment, as_json)
        return
    command = ["search", *arguments, "--name", run, "--address", "auto"]
    _submit(run, command, _files(experiment, given, along or []), storage, address, as_json)


def _parsed(context: typer.Context, name: str, arguments: Sequence[str]) -> Mapping[str, Any]:
    """The parameters of another command, which refuses what it does not know."""
    parent: Any = context.parent
    command = parent.command.get_command(parent, name)
    parsed: Mapping[str, Any] = command.make_context(name, list(arguments), parent=parent).params
    return parsed


def _experiment(given: Mapping[str, Any]) -> Experiment:
    from kdsearch.cli.search import experiment_of
    from kdsearch.experiment import read_settings

    experiment = experiment_of(given)
    for path in given["try_first"] or []:
        experiment.resolve(read_settings(path))
    return experiment


def _files(experiment: Experiment, given: Mapping[str, Any], along: Sequence[str]) -> list[str]:
    from kdsearch.cli.travel import travelling

    space = given["space"]
    typed = [*(given["try_first"] or []), *along]
    typed += [path for path in (given["hyperparameters"],) if path is not None]
    typed += [space] if Path(space).suffix in (".yaml", ".yml") or ("/" in space and ":" not in space) else []
    return travelling(experiment, typed)


def _dry_run(experiment: Experiment, as_json: bool) -> None:
    from kdsearch.cli.estimate import estimate, show_estimate

    found = estimate(experiment)
    print_json(asdict(found)) if as_json else show_estimate(experiment, found)


def _submit(
    run: str, arguments: Sequence[str], files: Sequence[str], storage: str | None, address: str | None, as_json: bool
) -> None:
    from kdsearch.cli.travel import pack
    from kdsearch.tuning.jobs import Jobs

    with tempfile.TemporaryDirectory(prefix="kdsearch-") if files else nullcontext() as scratch:
        folder = Path(scratch) if scratch is not None else None
        landing = ["exec", "python", "-m", "kdsearch.cli.landing"]
        if folder is not None:
            landing.append(f"{FILES}{pack(files, folder)}")
        job = Jobs(address).submit(
            shlex.join([*landing, *arguments]),
            name=run.replace("/", "-"),
            run=run,
            folder=folder,
            environment={} if storage is None else {"KDSEARCH_STORAGE": storage},
        )
    if as_json:
        print_json({**job.document(), "files": list(files)})
        return
    say(f"Submitted as job {job.name}.", "bold")
    if files:
        say(f"With it travelled {', '.join(files)}.")
    at = f" --address {shlex.quote(address)}" if address else ""
    say("Next:", "dim")
    for verb, purpose in (("logs {} -f", "follow it"), ("stop {}", "end it; it can be resumed"), ("jobs", "see all")):
        say(f"  {f'kdsearch {verb.format(job.name)}{at}':60} # {purpose}", wrap=False)


def jobs(address: Address = None, as_json: AsJson = False) -> None:
    """List the jobs of a cluster, the newest last."""
    from kdsearch.tuning.jobs import Jobs

    cluster = Jobs(address)
    found = cluster.all()
    if as_json:
        print_json({"address": cluster.address, "jobs": [job.document() for job in found]})
        return
    if not found:
        say(f"No jobs at {cluster.address} yet. Submit one: kdsearch submit kd")
        return
    columns = [Column("job"), Column("state"), Column("run"), Column("took", right=True), Column("begun", spare=2)]
    print_table([*columns, Column("command", spare=3)], [_row(job) for job in found])


def _row(job: Job) -> Row:
    begun = "" if job.started is None else datetime.fromtimestamp(job.started).strftime("%Y-%m-%d %H:%M")
    took = "" if job.started is None else duration((job.ended or time.time()) - job.started)
    return Row([job.name, job.state.lower(), job.run or "", took, begun, job.command], _STYLES.get(job.state, ""))


def logs(
    job: JobName,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the job ends.")] = False,
    address: Address = None,
    as_json: AsJson = False,
) -> None:
    """Show what a job prints. With -f the exit code is 1 where the job failed."""
    from kdsearch.tuning.jobs import Jobs

    cluster = Jobs(address)
    if follow and not as_json:
        found = cluster.follow(job, _write)
    else:
        found = cluster.follow(job, lambda text: None) if follow else cluster.find(job)
        text = cluster.logs(job)
        print_json({**found.document(), "logs": text}) if as_json else _write(text)
    if follow and found.state == "FAILED":
        raise KDSearchError(f"job {job} failed: {_reason(found)}")


def _write(text: str) -> None:
    """Lines as they came, or parts of them; control characters are made visible."""
    sys.stdout.write("\n".join(safe(line.expandtabs()) for line in text.split("\n")))
    sys.stdout.flush()


def _reason(job: Job) -> str:
    """Ray's reason, without the end of the logs, which it quotes."""
    return safe((job.message or "no reason is known").splitlines()[0].partition(", last available logs")[0])


def stop(
    job: JobName,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Wait until it has ended.")] = True,
    address: Address = None,
    as_json: AsJson = False,
) -> None:
    """End a job cleanly: running epochs end, checkpoints are written, and the run can be resumed."""
    from kdsearch.tuning.jobs import GRACE_SECONDS, Jobs

    cluster = Jobs(address)
    found = cluster.stop(job)
    already = found.over
    if not already and not as_json:
        say(f"{job} ends after the running epochs, at the latest in {duration(GRACE_SECONDS)}")
    while wait and not found.over:
        time.sleep(_SECONDS_BETWEEN_LOOKS)
        found = cluster.find(job)
    if as_json:
        print_json({**found.document(), "was_over": already})
        return
    if found.over:
        say(f"{job} {'had ended before' if already else 'has ended'}: {found.state.lower()}")
    if found.run is not None and not already:
        say(f"Go on with:  kdsearch submit --resume {found.run}", "bold", wrap=False)
