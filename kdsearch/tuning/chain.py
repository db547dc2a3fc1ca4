"""A chain of searches: each generation's best student teaches the next, and two controls follow."""

from __future__ import annotations

import contextlib
import shutil
from typing import TYPE_CHECKING, Any, Protocol

from kdsearch import data as data_sets
from kdsearch import tasks
from kdsearch.chain import SCRATCH, Chain, Step, difference, plain
from kdsearch.errors import RunError, SearchFailed
from kdsearch.files import write_atomic
from kdsearch.results import Results, RunLock
from kdsearch.results.chain import (
    DOCUMENT,
    GIVEN,
    MEASURED,
    PENDING,
    is_measured,
    read_chain,
    with_measures,
    write_chain,
)
from kdsearch.results.documents import to_json
from kdsearch.results.export import METRICS
from kdsearch.results.storage import CHAIN, is_chain, storage_folder
from kdsearch.tuning.agenda import Agenda
from kdsearch.tuning.folder import BEST, TRIALS
from kdsearch.tuning.pool import pool
from kdsearch.tuning.run import resume, search

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

    from kdsearch.data.base import DataSet
    from kdsearch.experiment import Experiment
    from kdsearch.objective import Report
    from kdsearch.results.chain import Document
    from kdsearch.settings import NetworkSettings
    from kdsearch.tuning.trials import LiveTrial, Watcher

    class Display(Watcher, Protocol):
        """Someone who follows one search of the chain."""

        def announce(self, sentence: str) -> None: ...

    View = Callable[[Step, Experiment, Results | None], AbstractContextManager[Display]]


class Quiet:
    """A display that shows nothing."""

    def announce(self, sentence: str) -> None: ...

    def trial_started(self, trial: LiveTrial) -> None: ...

    def epoch_told(self, trial: LiveTrial, report: Report) -> None: ...

    def trial_ended(self, trial: LiveTrial, value: float | None) -> None: ...


def quietly(step: Step, experiment: Experiment, earlier: Results | None) -> AbstractContextManager[Display]:
    """The view that shows nothing."""
    return contextlib.nullcontext(Quiet())


def chain_folder(chain: Chain, storage: str | os.PathLike[str]) -> Path:
    """Where the chain lies, or will."""
    return storage_folder(str(storage)).resolve() / (chain.name or "chain")


def run_chain(
    chain: Chain,
    *,
    storage: str | os.PathLike[str] = "runs",
    view: View = quietly,
    announce: Callable[[str], None] = lambda sentence: None,
    verbose: bool = False,
) -> Document:
    """Search generation after generation, then the controls; or go on where an earlier start ended.

    What has ended is left alone, an interrupted search is resumed, the others follow. Ended by Ctrl-C, it returns what
    there is; its `state` is then INTERRUPTED.

    Args:
        chain: what to search.
        storage: the folder of runs; the chain's own folder in it has its name.
        view: makes the display of one search.
        announce: told in a sentence what goes on between the searches.
        verbose: let Ray speak.

    Returns:
        the chain's document, see `kdsearch.results.chain.read_chain`.

    Raises:
        UserError: something cannot be; of a new chain nothing was written.
        RunError: the folder holds a chain that was started otherwise, or another process drives it.
        SearchFailed: a generation left no student.
    """
    folder, steps = chain_folder(chain, storage), chain.steps()
    _check_same(folder, chain)
    to_search = [step for step in steps if not _is_done(folder, step)]
    with contextlib.ExitStack() as stack:
        begun = is_chain(folder)
        if begun:
            stack.enter_context(RunLock(folder))
        wait_for_ray = stack.enter_context(pool(chain.resources, verbose)) if to_search else None
        _rehearse(chain, to_search, announce)
        if wait_for_ray is not None:
            wait_for_ray()
        if not begun:
            stack.enter_context(_created(folder, chain, steps))
            stack.enter_context(RunLock(folder))
        document = write_chain(folder, read_chain(folder))
        for step in steps:
            if step in to_search and _searched(folder, step, steps, view, verbose).state == "INTERRUPTED":
                break
            document = _with_costs(document, folder, chain, step, announce)
            document = write_chain(folder, document)
    return write_chain(folder, document)  # the lock is off: as the chain stands, whoever reads the files


def resume_chain(
    folder: Path,
    *,
    view: View = quietly,
    announce: Callable[[str], None] = lambda sentence: None,
    verbose: bool = False,
) -> Document:
    """Go on with the chain in `folder`, from that folder alone."""
    chain = Chain.load(folder / CHAIN, name=folder.resolve().name)
    return run_chain(chain, storage=folder.resolve().parent, view=view, announce=announce, verbose=verbose)


def check(chain: Chain, announce: Callable[[str], None] = lambda sentence: None) -> None:
    """Build all generations' networks and losses on the chain's data. Raises UserError for what does not fit."""
    _rehearse(chain, chain.steps(), announce)


def _check_same(folder: Path, chain: Chain) -> None:
    """A chain goes on as it was begun, or not at all."""
    if not is_chain(folder):
        if folder.exists():
            raise RunError(f"{folder.name!r} exists in {folder.parent} and is no chain: choose another --name")
        return
    stored = Chain.load(folder / CHAIN, name=folder.name)
    change = difference(stored.resolved(), chain.resolved())
    if change is not None:
        key, old, new = change
        raise RunError(
            f"{key} = {new!r}: chain {folder.name!r} was begun with {old!r}; put that back to go on, or give the "
            "changed chain another --name"
        )


def _is_done(folder: Path, step: Step) -> bool:
    run = folder / step.name
    if step.experiment is None:
        return True
    return (run / BEST / METRICS).is_file() and Results(run).state == "COMPLETE"


def _rehearse(chain: Chain, steps: list[Step], announce: Callable[[str], None]) -> None:
    """Mistakes of a later generation show before the first one trains for hours."""
    experiments = [step.experiment for step in steps if step.experiment is not None and step.kind == "generation"]
    if not experiments:
        return
    from kdsearch.training.rehearsal import rehearse

    announce("checking data and networks of all generations")
    data = _data(chain)
    for experiment in experiments:
        rehearse(experiment, data)


def _data(chain: Chain) -> DataSet:
    assert chain.data is not None, "set when the chain was checked"
    return data_sets.load(chain.data, chain.task)


@contextlib.contextmanager
def _created(folder: Path, chain: Chain, steps: list[Step]) -> Iterator[None]:
    """A new chain's folder with what it will do; gone again when it fails before its first trial."""
    beside = folder.with_name(f".{folder.name}.new")
    shutil.rmtree(beside, ignore_errors=True)
    try:
        beside.mkdir(parents=True)
        write_atomic(beside / CHAIN, chain.to_yaml().encode())
        write_atomic(beside / DOCUMENT, to_json(_plan(chain, steps)).encode())
        beside.rename(folder)
    except OSError as error:
        raise RunError(f"{folder} cannot be made: {error.strerror}") from None
    try:
        yield
    except BaseException:
        if not any((folder / step.name / TRIALS).exists() for step in steps):
            shutil.rmtree(folder, ignore_errors=True)
        raise


def _plan(chain: Chain, steps: list[Step]) -> Document:
    """The chain's document before anything was done."""
    task = tasks.find(chain.task)
    return {
        "chain": chain.name,
        "task": chain.task,
        "metric": task.metric,
        "mode": task.mode,
        "seed": chain.seed,
        "data": chain.data and chain.data.name,
        "rows": [_planned(step) for step in steps],
    }


def _planned(step: Step) -> dict[str, Any]:
    experiment = step.experiment
    return {
        "name": step.name,
        "kind": step.kind,
        "student": plain(step.student),
        "arguments": dict(step.student.arguments),
        "method": None if experiment is None else experiment.method,
        "teacher": None if step.name == SCRATCH else step.teacher,  # with every weight 0 it says nothing
        "trials": 0 if experiment is None else Agenda(experiment, step.tries).trials,
        "state": GIVEN if experiment is None else PENDING,
        "weights": step.student.weights if experiment is None else None,
    }


def _searched(folder: Path, step: Step, steps: list[Step], view: View, verbose: bool) -> Results:
    """The step's search, begun or gone on with. Raises SearchFailed when it left no student."""
    run = folder / step.name
    if run.exists() and not (run / TRIALS).exists():  # ended from outside before its first trial
        with RunLock(run):
            shutil.rmtree(run)
    teacher = next((other for other in steps if other.name == step.teacher), None)
    weights = None if teacher is None else _network(folder, teacher).weights
    experiment = step.taught_by(weights) if weights is not None else step.experiment
    assert experiment is not None, "a generation that is given is not searched"
    try:
        if run.exists():
            with view(step, experiment, Results(run)) as display:
                results = resume(run, watchers=[display], announce=display.announce, allow_code=True, verbose=verbose)
        else:
            with view(step, experiment, None) as display:
                results = search(
                    experiment,
                    storage=folder,
                    tries=step.tries,
                    watchers=[display],
                    announce=display.announce,
                    verbose=verbose,
                )
    except SearchFailed as error:
        raise SearchFailed(f"{folder.name}/{step.name}: {error}") from None
    if results.state == "COMPLETE" and not _is_done(folder, step):
        raise SearchFailed(
            f"{folder.name}/{step.name} ended ({results.why}) before any trial had trained to the full budget, so it "
            "has no student to go on with: give it a larger budget"
        )
    return results


def _network(folder: Path, step: Step) -> NetworkSettings:
    """The student of a step that is done, with its weights."""
    if step.experiment is None:
        return step.student
    return step.student.model_copy(update={"weights": str(folder / step.name / BEST)})


def _with_costs(
    document: Document, folder: Path, chain: Chain, step: Step, announce: Callable[[str], None]
) -> Document:
    """The document with what the step's student costs: measured once for all steps that train the same network."""
    rows = {row["name"]: row for row in document["rows"]}
    if is_measured(rows[step.name]):
        return document
    for twin in chain.steps():
        if is_measured(rows[twin.name]) and _architecture(twin) == _architecture(step):
            return with_measures(document, step.name, {name: rows[twin.name][name] for name in MEASURED})
    announce(f"measuring {step.name}")
    return with_measures(document, step.name, _measured(chain, _network(folder, step), step))


def _architecture(step: Step) -> NetworkSettings:
    return step.student.model_copy(update={"weights": None})


def _measured(chain: Chain, network: NetworkSettings, step: Step) -> dict[str, Any]:
    """What the student costs on this machine; of weights that were given, also how good they are."""
    from kdsearch.training.costs import student_costs, validation_metric

    data, task = _data(chain), tasks.find(chain.task)
    costs = student_costs(network, data, task)
    if step.experiment is not None:
        return costs
    return costs | {"value": validation_metric(network, data, task), "seconds": 0.0}
