"""The commands that read runs: ls, status, best, export."""

from __future__ import annotations

import shutil
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from kdsearch.cli.confirmed import show_confirmed
from kdsearch.cli.options import AllowCode
from kdsearch.cli.output import Column, Row, ends, print_json, say, score
from kdsearch.cli.table import print_table
from kdsearch.errors import KDSearchError, RunError, UserError
from kdsearch.results import Results, Trial, export_run, find_run, list_runs
from kdsearch.results.card import hyperparameters_yaml
from kdsearch.results.confirm_state import CONFIRMED, confirmation_state
from kdsearch.results.documents import read_json
from kdsearch.results.export import BEST, METRICS
from kdsearch.results.progress import progress
from kdsearch.results.storage import find_chain, find_comparison, run_name
from kdsearch.results.students import student_rows

Storage = Annotated[
    str,
    typer.Option(
        "--storage",
        envvar="KDSEARCH_STORAGE",
        help="Folder, or URL (s3://, gs://), in which the runs lie.",
        metavar="PATH",
    ),
]
RunName = Annotated[str, typer.Argument(help="Name of a run in the storage, or its folder.", metavar="RUN")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document and nothing else.")]

_STATE_STYLES = {"RUNNING": "cyan", "CRASHED": "red", "FAILED": "red", "DAMAGED": "red"}


def ls(storage: Storage = "runs", as_json: AsJson = False) -> None:
    """List the runs, the newest last."""
    found = sorted((_summary(folder) for folder in list_runs(storage)), key=lambda run: run["started"] or 0)
    if as_json:
        print_json({"storage": storage, "runs": found})
        return
    if not found:
        say(f"No runs in {storage!r} yet. Start one: kdsearch search ips")
        return
    columns = [
        Column("run"),
        Column("state"),
        Column("method", spare=1),
        Column("student", spare=4),
        Column("data", spare=3),
        Column("trials", right=True),
        Column("best", right=True),
        Column("metric", spare=2),
        Column("started", spare=5),
    ]
    if confirmed := any(run["confirmation"] for run in found):
        columns[-2:-2] = [Column("confirmed", right=True), Column("95 % interval", right=True, spare=6)]
    print_table(columns, [_summary_row(run, confirmed) for run in found])
    for run in found:
        if run["error"]:
            say(f"{run['run']}: {run['error']}", "red")


def _summary(folder: Path) -> dict[str, Any]:
    try:
        results = Results(folder)
    except KDSearchError as error:
        empty = dict.fromkeys(
            ("method", "task", "student", "data", "metric", "mode", "best", "started", "ended", "confirmation")
        )
        nothing = dict.fromkeys(("planned", "trials", "running", "complete", "pruned", "failed"), 0)
        return {"run": run_name(folder), "state": "DAMAGED", **empty, **nothing, "error": str(error)}
    from kdsearch.cli.views import name_of, names_of_students

    counts = results.counts
    best = results.best
    return {
        "run": run_name(folder),
        "state": results.state,
        **{key: name_of(results.experiment.get(key)) for key in ("method", "task", "data")},
        "student": names_of_students(results.experiment),
        "metric": results.metric,
        "mode": results.mode,
        "best": best.best if best else None,
        "started": results.started,
        "ended": results.ended,
        "confirmation": confirmation_state(results),
        "planned": progress(results).budget.trials,
        "trials": len(results.trials),
        **{state.lower(): counts[state] for state in ("RUNNING", "COMPLETE", "PRUNED", "FAILED")},
        "error": None,
    }


def _summary_row(run: dict[str, Any], confirmed: bool) -> Row:
    trials = f"{run['trials'] - run['running']}/{run['planned']}" if run["planned"] else str(run["trials"])
    cells = [run["run"], run["state"].lower(), *(run[key] or "" for key in ("method", "student", "data"))]
    cells += [trials, score(run["best"]), *(_confirmed(run["confirmation"]) if confirmed else ())]
    cells += [run["metric"] or "", _when(run["started"])]
    return Row(cells, _STATE_STYLES.get(run["state"], ""))


def _confirmed(confirmation: dict[str, Any] | None) -> tuple[str, str]:
    """The winner's mean on test and its interval; or how far the confirmation is."""
    if confirmation is None:
        return "", ""
    if confirmation["state"] != CONFIRMED or confirmation["test"] is None:
        return confirmation["state"].lower(), ""
    return score(confirmation["test"]["mean"]), ends(confirmation["test"])


def _when(timestamp: float | None) -> str:
    try:
        return "" if timestamp is None else datetime.fromtimestamp(timestamp).strftime("%Y-%m-%d %H:%M")
    except (ValueError, OverflowError, OSError):
        return ""


def status(
    run: RunName,
    everything: Annotated[bool, typer.Option("--all", help="Show every trial.")] = False,
    storage: Storage = "runs",
    as_json: AsJson = False,
) -> None:
    """Show where a run stands: progress, the best so far, its trials; of a chain or comparison, its table so far."""
    comparison = find_comparison(run, storage)
    if comparison is not None:
        _comparison_status(comparison, as_json)
        return
    chain = find_chain(run, storage)
    if chain is not None:
        _chain_status(chain, as_json)
        return
    results = Results(find_run(run, storage))
    if as_json:
        print_json(results.status())
        return
    from kdsearch.cli.views import show_status

    show_status(results, everything=everything)


def _chain_status(folder: Path, as_json: bool) -> None:
    from kdsearch.cli.chain import show_chain
    from kdsearch.results.chain import read_chain

    document = read_chain(folder)
    print_json(document) if as_json else show_chain(document)


def _comparison_status(folder: Path, as_json: bool) -> None:
    from kdsearch.cli.compare import show_comparison
    from kdsearch.results.compare import read_comparison

    document = read_comparison(folder)
    print_json(document) if as_json else show_comparison(document)


def best(
    run: RunName,
    top: Annotated[int, typer.Option("--top", min=1, help="How many trials to show.")] = 5,
    as_yaml: Annotated[bool, typer.Option("--yaml", help="Print the best hyperparameters as a file.")] = False,
    storage: Storage = "runs",
    as_json: AsJson = False,
) -> None:
    """Show the best trials of a run, beside the paper's setting and the undistilled control."""
    if as_yaml and as_json:
        raise UserError("--yaml and --json are two formats: give one of them")
    results = Results(find_run(run, storage))
    if as_json:
        print_json(best_document(results, top))
        return
    found = results.best
    if found is None:
        raise RunError(f"run {results.name!r} has no result yet: {_why_nothing(results)}")
    if as_yaml:
        value = f"{results.metric or 'score'} {score(found.best)} on validation"
        method, setting = _of_one_method(results, found)
        comments = [
            f"Hyperparameters of trial {found.number} of run {results.name}: {value}.",
            f"Train with them: kdsearch train {method} --hyperparameters best.yaml",
        ]
        typer.echo(hyperparameters_yaml(setting, comments), nl=False)
        return
    from kdsearch.cli.views import show_best, show_classes, show_headline, show_next

    show_headline(results)
    say()
    show_best(results, top)
    show_confirmed(results)
    say()
    metrics = results.folder / BEST / METRICS
    if metrics.is_file():
        show_classes(read_json(metrics))
    show_next(results)


def _of_one_method(results: Results, trial: Trial) -> tuple[str, dict[str, Any]]:
    """The method of a trial, and its setting as that method's own."""
    from kdsearch.auto import AUTO, METHOD, gathered

    method, setting = str(results.experiment.get("method")), trial.hyperparameters
    if method != AUTO:
        return method, setting
    return str(setting[METHOD]), {METHOD: setting[METHOD], **gathered(str(setting[METHOD]), setting)}


def best_document(results: Results, top: int) -> dict[str, Any]:
    """The document of `kdsearch best --json`."""
    found, paper, control = results.best, results.paper, results.control
    return {
        "run": results.name,
        "state": results.state,
        "metric": results.metric,
        "mode": results.mode,
        "provisional": results.provisional,
        "best": found and found.document(),
        "gain_over_paper": results.gain(found, paper),
        "gain_over_control": results.gain(found, control),
        "paper": paper and paper.document(),
        "control": control and control.document(),
        "confirmation": confirmation_state(results),
        "top": [trial.document() for trial in results.top(top)],
        "students": student_rows(results),
    }


def _why_nothing(results: Results) -> str:
    failed = [trial for trial in results.trials if trial.state == "FAILED"]
    if failed and len(failed) == len(results.trials):
        return f"all its {len(failed)} trials failed, the first with: {failed[0].error or 'no reason noted'}"
    return "no trial has finished an epoch"


class ExportFormat(StrEnum):
    """What an export holds: the weights always, and a program for other runtimes where one is asked for."""

    safetensors = "safetensors"
    torch_export = "torch_export"
    onnx = "onnx"


def export(
    run: RunName,
    to: Annotated[Path, typer.Option("--to", help="New folder to export to.", metavar="DIR")],
    form: Annotated[
        ExportFormat, typer.Option("--format", help="What to write besides the weights, for use without kdsearch.")
    ] = ExportFormat.safetensors,
    allow_code: AllowCode = False,
    storage: Storage = "runs",
    as_json: AsJson = False,
) -> None:
    """Copy the best student of a run, its hyperparameters, metrics and model card to a new folder."""
    source = find_run(run, storage, weights=True)
    folder = export_run(source, to)
    if form is not ExportFormat.safetensors:
        _deploy(source, folder, form, allow_code)
    facts = read_json(folder / METRICS)
    if as_json:
        files = sorted(file.name for file in folder.iterdir())
        keys = ("task", "method", "metric", "mode", "value", "search")
        print_json({"to": str(to), "files": files, **{key: facts.get(key) for key in keys}})
        return
    say(f"{facts['metric']} {score(facts['value'])} on validation, exported to {to}", "bold green")
    for file in sorted(folder.iterdir()):
        say(f"  {file.name:24} {file.stat().st_size:>12,} bytes")
    say("Next:", "dim")
    say(f"  kdsearch evaluate {to} --split test", wrap=False)


def _deploy(run: Path, folder: Path, form: ExportFormat, allow_code: bool) -> None:
    """Add the program; where that fails the whole export goes, so that the command can be given again."""
    from kdsearch.training.deployment import deploy

    try:
        deploy(folder, form.value, run=run, allow_code=allow_code)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
