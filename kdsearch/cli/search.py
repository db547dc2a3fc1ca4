"""`kdsearch search`: from a line to the best student."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kdsearch.cli import options
from kdsearch.cli.budget import parse_budget, parse_latency, parse_parameters
from kdsearch.cli.output import print_json, say
from kdsearch.cli.runs import AsJson, RunName, Storage
from kdsearch.errors import InvalidSetting

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from kdsearch.experiment import Experiment


def search(
    context: typer.Context,
    space: options.Space,
    data: options.Data = None,
    data_root: options.DataRoot = None,
    student: options.Students = None,
    teacher: options.Teacher = None,
    task: options.Task = None,
    trials: Annotated[int | None, typer.Option("--trials", help="Number of trials.")] = None,
    max_epochs: options.MaxEpochs = None,
    budget: Annotated[
        str | None, typer.Option("--budget", help="Trials, wall time, GPU hours, images: 64trials,2h,40gpuh.")
    ] = None,
    max_parameters: Annotated[
        str | None,
        typer.Option("--max-params", help="Leave out students with more parameters: 1000000, 1e6, 500k, 1.5M."),
    ] = None,
    max_latency: Annotated[
        str | None,
        typer.Option(
            "--max-latency",
            help="Leave out students that are slower: 5ms, 800us, 0.1s for one image, the median of forward passes on "
            "one CPU thread of this machine.",
        ),
    ] = None,
    sampler: Annotated[str | None, typer.Option("--sampler", help="tpe, random, grid, gp, cmaes or qmc.")] = None,
    scheduler: Annotated[str | None, typer.Option("--scheduler", help="asha, hyperband, median or none.")] = None,
    label_fraction: options.LabelFraction = None,
    label_noise: options.LabelNoise = None,
    gpus_per_trial: Annotated[
        str | None,
        typer.Option("--gpus-per-trial", help="GPUs of a trial, below 1 a share of one; auto: measured.", metavar="N"),
    ] = None,
    cpus_per_trial: Annotated[float | None, typer.Option("--cpus-per-trial", help="CPUs of a trial.")] = None,
    max_concurrent: Annotated[int | None, typer.Option("--max-concurrent", help="Trials at a time.")] = None,
    max_gpus: Annotated[
        int | None, typer.Option("--max-gpus", help="GPUs that all trials together hold at a time.")
    ] = None,
    address: Annotated[str | None, typer.Option("--address", help="Ray cluster to join: auto or HOST:PORT.")] = None,
    study: Annotated[str | None, typer.Option("--study", help="Database URL that mirrors the study.")] = None,
    name: Annotated[str | None, typer.Option("--name", help="Name of the run.")] = None,
    seed: options.Seed = None,
    assignments: options.Set = None,
    hyperparameters: options.Hyperparameters = None,
    try_first: Annotated[
        list[str] | None, typer.Option("--try", help="YAML file of a setting to try first.", metavar="FILE")
    ] = None,
    warm_start: Annotated[
        str | None, typer.Option("--warm-start", help="Run whose trials the sampler learns from.", metavar="RUN")
    ] = None,
    confirm: Annotated[
        bool, typer.Option("--confirm", help="Confirm what was found at the end, out of the budget.")
    ] = False,
    confirm_top: Annotated[
        int | None,
        typer.Option("--confirm-top", help="Best settings to confirm, in place of 3; implies --confirm.", metavar="K"),
    ] = None,
    confirm_seeds: Annotated[
        int | None,
        typer.Option("--confirm-seeds", help="Fresh seeds that decide, in place of 5; implies --confirm.", metavar="N"),
    ] = None,
    storage: Storage = "runs",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check everything, estimate, write nothing.")] = False,
    allow_code: options.AllowCode = False,
    as_json: AsJson = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Show what Ray has to say.")] = False,
) -> None:
    """Search the hyperparameters of a distillation method and take home the best student.

    With --confirm a part of --budget is kept for what `kdsearch confirm` does, which then follows.
    """
    from kdsearch.cli.ending import Shown, print_end, show_end
    from kdsearch.experiment import read_settings
    from kdsearch.results import find_run
    from kdsearch.tuning import search as run_search

    experiment = experiment_of(context.params)
    tries = [read_settings(path) for path in try_first or []]
    if dry_run:
        _dry_run(experiment, storage, tries, as_json)
        return
    with Shown(experiment, quiet=as_json) as shown:
        results = run_search(
            experiment,
            storage=storage,
            tries=tries,
            warm_start=find_run(warm_start, storage) if warm_start else None,
            watchers=shown.watchers,
            announce=shown.announce,
            confirming=shown.confirming,
            verbose=verbose,
        )
    print_end(results) if as_json else show_end(results)


def experiment_of(given: Mapping[str, Any]) -> Experiment:
    """The experiment of a command line of `search`: its parameters by name, as `submit` has them too."""
    flags: dict[str, Any] = {
        "task": given["task"],
        "name": given["name"],
        "seed": given["seed"],
        "data.name": given["data"],
        "data.root": given["data_root"],
        "data.label_fraction": given["label_fraction"],
        "data.label_noise": given["label_noise"],
        "training.epochs": given["max_epochs"],
        "search.trials": given["trials"],
        "search.max_parameters": parse_parameters(given["max_parameters"]),
        "search.max_latency": parse_latency(given["max_latency"]),
        "search.sampler": given["sampler"],
        "search.scheduler": given["scheduler"],
        "search.study": given["study"],
        "resources.gpus_per_trial": given["gpus_per_trial"],
        "resources.cpus_per_trial": given["cpus_per_trial"],
        "resources.max_concurrent": given["max_concurrent"],
        "resources.max_gpus": given["max_gpus"],
        "resources.address": given["address"],
    }
    budget = parse_budget(given["budget"]) if given["budget"] else {}
    flags |= {f"search.{key}": value for key, value in budget.items()}
    flags["search.confirm"] = _confirm(given)
    return options.load_experiment(
        given["space"],
        flags,
        given["student"],
        given["teacher"],
        given["assignments"],
        given["hyperparameters"],
        allow_code=given["allow_code"],
    )


def _confirm(given: Mapping[str, Any]) -> dict[str, Any] | None:
    """What is to be confirmed: what a file says of it, and what the command line says; None where that says nothing."""
    from kdsearch.spaces import read_space

    asked = {name: given[f"confirm_{name}"] for name in ("top", "seeds") if given[f"confirm_{name}"] is not None}
    if not asked and not given["confirm"]:
        return None
    section = read_space(given["space"]).get("search")
    inside = section.get("confirm") if isinstance(section, dict) else None
    return {**inside, **asked} if isinstance(inside, dict) else asked


def _dry_run(experiment: Experiment, storage: str, tries: Sequence[Mapping[str, Any]], as_json: bool) -> None:
    from kdsearch.cli.estimate import estimate, show_estimate

    found = estimate(experiment, None if "://" in storage else Path(storage).expanduser(), tries)
    print_json(asdict(found)) if as_json else show_estimate(experiment, found)


def resume(
    run: RunName,
    trials: Annotated[int, typer.Option("--trials", min=0, help="Trials to add to those it was started with.")] = 0,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Run failed trials again, but for those that diverged.")
    ] = False,
    address: Annotated[
        str | None, typer.Option("--address", help="Ray cluster to go on with: auto, HOST:PORT, or local for none.")
    ] = None,
    storage: Storage = "runs",
    allow_code: options.AllowCode = False,
    as_json: AsJson = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Show what Ray has to say.")] = False,
) -> None:
    """Go on with a search, a chain or a comparison from its folder alone, or add trials to a search."""
    from kdsearch.cli.ending import Shown, print_end, show_end
    from kdsearch.experiment import Experiment
    from kdsearch.results import Results, find_run
    from kdsearch.results.storage import find_chain, find_comparison, is_chain, is_comparison
    from kdsearch.tuning import resume as resume_search

    comparison = find_comparison(run, storage)
    if comparison is not None:
        if address is not None:
            raise InvalidSetting("--address", address, "is for a search or a chain; a comparison stays where it began")
        _resume_comparison(comparison, trials, retry_failed, allow_code, as_json, verbose)
        return
    chain = find_chain(run, storage)
    if chain is not None:
        if retry_failed:
            raise InvalidSetting("--retry-failed", chain.name, "is a chain; name one of its searches")
        _resume_chain(chain, trials, address, allow_code, as_json, verbose)
        return
    folder = find_run(run, storage)
    if trials and is_chain(folder.parent):
        raise InvalidSetting("--trials", trials, "would change a teacher whose students may be trained already")
    if trials and is_comparison(folder.parent):
        raise InvalidSetting("--trials", trials, "would give this search more than those it is compared with")
    moved = {} if address is None else {"resources.address": address}
    experiment = Experiment.load(str(folder / "experiment.yaml"), moved, allow_code=allow_code)
    experiment = experiment.with_trials(experiment.search.trials + trials)
    with Shown(experiment, Results(folder), quiet=as_json) as shown:
        results = resume_search(
            folder,
            more_trials=trials,
            retry_failed=retry_failed,
            address=address,
            watchers=shown.watchers,
            announce=shown.announce,
            confirming=shown.confirming,
            allow_code=allow_code,
            verbose=verbose,
        )
    print_end(results) if as_json else show_end(results)


def _resume_chain(
    folder: Path, trials: int, address: str | None, allow_code: bool, as_json: bool, verbose: bool
) -> None:
    from kdsearch.cli.chain import displayed, drive
    from kdsearch.tuning.chain import quietly, resume_chain

    if trials:
        raise InvalidSetting("--trials", trials, "is for a search; a chain goes on as it was begun")
    drive(
        lambda: resume_chain(
            folder,
            address=address,
            view=quietly if as_json else displayed,
            announce=_nothing if as_json else say,
            allow_code=allow_code,
            verbose=verbose,
        ),
        folder,
        as_json=as_json,
    )


def _resume_comparison(
    folder: Path, trials: int, retry_failed: bool, allow_code: bool, as_json: bool, verbose: bool
) -> None:
    from kdsearch.cli.compare import confirming, drive, searching
    from kdsearch.tuning.compare import confirming_quietly, quietly, resume_comparison

    if trials:
        raise InvalidSetting("--trials", trials, "is for a search; the budget of a comparison is the same for all")
    if retry_failed:
        raise InvalidSetting("--retry-failed", folder.name, "is a comparison; name one of its searches")
    drive(
        lambda: resume_comparison(
            folder,
            view=quietly if as_json else searching,
            confirming=confirming_quietly if as_json else confirming,
            announce=_nothing if as_json else say,
            allow_code=allow_code,
            verbose=verbose,
        ),
        folder,
        as_json=as_json,
    )


def _nothing(sentence: str) -> None:
    """Say nothing."""
