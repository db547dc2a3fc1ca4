"""`kdsearch search`: from a line to the best student."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from kdsearch.cli import options
from kdsearch.cli.budget import parse_budget
from kdsearch.cli.output import say
from kdsearch.cli.runs import RunName, Storage
from kdsearch.errors import InvalidSetting

if TYPE_CHECKING:
    from pathlib import Path

    from kdsearch.experiment import Experiment
    from kdsearch.results import Results


def search(
    space: options.Space,
    data: options.Data = None,
    data_root: options.DataRoot = None,
    student: options.Student = None,
    teacher: options.Teacher = None,
    task: options.Task = None,
    trials: Annotated[int | None, typer.Option("--trials", help="Number of trials.")] = None,
    max_epochs: options.MaxEpochs = None,
    budget: Annotated[
        str | None, typer.Option("--budget", help="Trials, wall time, GPU hours: 64trials,2h,40gpuh.")
    ] = None,
    sampler: Annotated[str | None, typer.Option("--sampler", help="tpe, random, grid, gp, cmaes or qmc.")] = None,
    scheduler: Annotated[str | None, typer.Option("--scheduler", help="asha, hyperband, median or none.")] = None,
    label_fraction: options.LabelFraction = None,
    label_noise: options.LabelNoise = None,
    gpus_per_trial: Annotated[
        float | None, typer.Option("--gpus-per-trial", help="GPUs of a trial, below 1 a share of one.")
    ] = None,
    cpus_per_trial: Annotated[float | None, typer.Option("--cpus-per-trial", help="CPUs of a trial.")] = None,
    max_concurrent: Annotated[int | None, typer.Option("--max-concurrent", help="Trials at a time.")] = None,
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
    storage: Storage = "runs",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check everything, estimate, write nothing.")] = False,
    allow_code: options.AllowCode = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Show what Ray has to say.")] = False,
) -> None:
    """Search the hyperparameters of a distillation method and take home the best student."""
    flags: dict[str, Any] = {
        "task": task,
        "name": name,
        "seed": seed,
        "data.name": data,
        "data.root": data_root,
        "data.label_fraction": label_fraction,
        "data.label_noise": label_noise,
        "training.epochs": max_epochs,
        "search.trials": trials,
        "search.sampler": sampler,
        "search.scheduler": scheduler,
        "search.study": study,
        "resources.gpus_per_trial": gpus_per_trial,
        "resources.cpus_per_trial": cpus_per_trial,
        "resources.max_concurrent": max_concurrent,
        "resources.address": address,
    }
    flags |= {f"search.{key}": value for key, value in (parse_budget(budget) if budget else {}).items()}
    experiment = options.load_experiment(
        space, flags, student, teacher, assignments, hyperparameters, allow_code=allow_code
    )
    if dry_run:
        _dry_run(experiment)
        return
    show_end(_search(experiment, storage, try_first or [], warm_start, verbose))


def _search(
    experiment: Experiment, storage: str, try_first: list[str], warm_start: str | None, verbose: bool
) -> Results:
    from kdsearch.cli.display import Display
    from kdsearch.experiment import read_settings
    from kdsearch.results import find_run
    from kdsearch.tuning import search as run_search

    with Display(experiment) as display:
        return run_search(
            experiment,
            storage=storage,
            tries=[read_settings(path) for path in try_first],
            warm_start=find_run(warm_start, storage) if warm_start else None,
            watchers=[display],
            announce=display.announce,
            verbose=verbose,
        )


def show_end(results: Results) -> None:
    """The end of a search: what was found, how it compares, what to type next."""
    from kdsearch.cli.views import show_best, show_classes, show_failures, show_headline, show_next, typed
    from kdsearch.consent import names_code
    from kdsearch.results.documents import read_json
    from kdsearch.results.export import BEST, METRICS

    show_headline(results)
    say()
    show_best(results, top=5)
    show_failures(results)
    metrics = results.folder / BEST / METRICS
    if metrics.is_file():
        say()
        show_classes(read_json(metrics))
    say()
    if results.state == "INTERRUPTED":
        flag = " --allow-code" if names_code(results.experiment) else ""
        say(f"Go on with:  kdsearch resume {typed(results)}{flag}", "bold", wrap=False)
    else:
        show_next(results)


def _dry_run(experiment: Experiment) -> None:
    from kdsearch.cli.estimate import estimate, show_estimate

    show_estimate(experiment, estimate(experiment))


def resume(
    run: RunName,
    trials: Annotated[int, typer.Option("--trials", min=0, help="Trials to add to those it was started with.")] = 0,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Run failed trials again, but for those that diverged.")
    ] = False,
    storage: Storage = "runs",
    allow_code: options.AllowCode = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Show what Ray has to say.")] = False,
) -> None:
    """Go on with a search or a chain that was interrupted, from its folder alone, or add trials to a search."""
    from kdsearch.cli.display import Display
    from kdsearch.experiment import Experiment
    from kdsearch.results import Results, find_run
    from kdsearch.results.storage import find_chain, is_chain
    from kdsearch.tuning import resume as resume_search

    chain = find_chain(run, storage)
    if chain is not None:
        if retry_failed:
            raise InvalidSetting("--retry-failed", chain.name, "is a chain; name one of its searches")
        _resume_chain(chain, trials, verbose)
        return
    folder = find_run(run, storage)
    if trials and is_chain(folder.parent):
        raise InvalidSetting("--trials", trials, "would change a teacher whose students may be trained already")
    experiment = Experiment.load(str(folder / "experiment.yaml"), allow_code=allow_code)
    experiment = experiment.with_trials(experiment.search.trials + trials)
    with Display(experiment, Results(folder)) as display:
        results = resume_search(
            folder,
            more_trials=trials,
            retry_failed=retry_failed,
            watchers=[display],
            announce=display.announce,
            allow_code=allow_code,
            verbose=verbose,
        )
    show_end(results)


def _resume_chain(folder: Path, trials: int, verbose: bool) -> None:
    from kdsearch.cli.chain import displayed, drive
    from kdsearch.tuning.chain import resume_chain

    if trials:
        raise InvalidSetting("--trials", trials, "is for a search; a chain goes on as it was begun")
    drive(lambda: resume_chain(folder, view=displayed, announce=say, verbose=verbose), folder)
