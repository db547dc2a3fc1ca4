"""A chain of searches: each generation's best student teaches the next, and two controls follow."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from kdsearch import data as data_sets
from kdsearch import tasks
from kdsearch.chain import SCRATCH, Chain, Step, plain
from kdsearch.consent import code_of
from kdsearch.errors import RunError
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
from kdsearch.results.storage import CHAIN, is_chain, storage_folder
from kdsearch.tuning.agenda import Agenda
from kdsearch.tuning.folder import BEST
from kdsearch.tuning.pool import pool
from kdsearch.tuning.series import Quiet, check_same, created, is_searched, searched

if TYPE_CHECKING:
    import os
    from collections.abc import Callable
    from contextlib import AbstractContextManager
    from pathlib import Path

    from kdsearch.data.base import DataSet
    from kdsearch.experiment import Experiment
    from kdsearch.results.chain import Document
    from kdsearch.settings import NetworkSettings
    from kdsearch.tuning.series import Display

    View = Callable[[Step, Experiment, Results | None], AbstractContextManager[Display]]


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
            files = {CHAIN: chain.to_yaml(), DOCUMENT: to_json(_plan(chain, steps))}
            stack.enter_context(created(folder, files, [step.name for step in steps]))
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
    address: str | None = None,
    view: View = quietly,
    announce: Callable[[str], None] = lambda sentence: None,
    allow_code: bool = False,
    verbose: bool = False,
) -> Document:
    """Go on with the chain in `folder`, from that folder alone, on the cluster at `address` where one is given.

    Code that the chain names is refused unless `allow_code`.
    """
    folder = folder.resolve()
    chain = Chain.load(folder / CHAIN, name=folder.name, address=address, allow_code=allow_code)
    if address is not None:
        with RunLock(folder):
            write_atomic(folder / CHAIN, chain.to_yaml().encode())
    return run_chain(chain, storage=folder.parent, view=view, announce=announce, verbose=verbose)


def check(chain: Chain, announce: Callable[[str], None] = lambda sentence: None) -> None:
    """Build all generations' networks and losses on the chain's data. Raises UserError for what does not fit."""
    _rehearse(chain, chain.steps(), announce)


def _check_same(folder: Path, chain: Chain) -> None:
    """A chain goes on as it was begun, or not at all."""
    if not is_chain(folder):
        if folder.exists():
            raise RunError(f"{folder.name!r} exists in {folder.parent} and is no chain: choose another --name")
        return
    stored = Chain.load(folder / CHAIN, name=folder.name, named=code_of(chain.resolved()))
    check_same("chain", folder.name, stored.resolved(), chain.resolved())


def _is_done(folder: Path, step: Step) -> bool:
    return step.experiment is None or is_searched(folder / step.name)


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
    teacher = next((other for other in steps if other.name == step.teacher), None)
    weights = None if teacher is None else _network(folder, teacher).weights
    experiment = step.taught_by(weights) if weights is not None else step.experiment
    assert experiment is not None, "a generation that is given is not searched"
    return searched(
        folder / step.name,
        experiment,
        lambda earlier: view(step, experiment, earlier),
        tries=step.tries,
        verbose=verbose,
    )


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
