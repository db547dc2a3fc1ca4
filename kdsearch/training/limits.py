"""What students cost before they are trained, and which of them are within the limits."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

from kdsearch import tasks
from kdsearch.errors import UserError
from kdsearch.models.names import PRETRAINED
from kdsearch.results.students import MeasuredStudent, StudentsDocument, milliseconds
from kdsearch.students import anchored, label, naming, text_of
from kdsearch.training.costs import student_costs

if TYPE_CHECKING:
    from collections.abc import Callable

    from kdsearch.data.base import DataSet
    from kdsearch.experiment import Experiment
    from kdsearch.search_settings import SearchSettings
    from kdsearch.settings import NetworkSettings

DEVICE, THREADS = "cpu", 1
"""Where latency is measured: the same on a machine with GPUs and without, and nothing is taken of GPUs of trials."""


def within_limits(
    experiment: Experiment, data: DataSet, announce: Callable[[str], None]
) -> tuple[Experiment, StudentsDocument | None]:
    """The experiment with those students alone that are within its limits, and what each costs.

    A single student without limits is not measured. `announce` is told of each that is left out, with its figure.
    Raises UserError where none is left, and where one cannot be built.
    """
    search, named = experiment.search, experiment.students
    if not named and search.max_parameters is None and search.max_latency is None:
        return experiment, None
    announce("measuring the size and the latency of each student" if named else "measuring the student")
    networks = dict(zip(named or (text_of(experiment.student),), experiment.networks, strict=False))
    measured = {name: _measured(name, network, experiment, data) for name, network in networks.items()}
    document = StudentsDocument(
        max_parameters=search.max_parameters,
        max_latency=search.max_latency,
        device=DEVICE,
        threads=THREADS,
        students=list(measured.values()),
    )
    kept = [name for name, student in measured.items() if student["refused"] is None]
    why = [f"{student['name']} {student['refused']}" for student in measured.values() if student["refused"]]
    if not kept:
        raise UserError(f"no student is within the limits: {'; '.join(why)}")
    for reason in why:
        announce(f"left out: {reason}")
    return (experiment.with_students(*kept) if named else experiment), document


def _measured(name: str, network: NetworkSettings, experiment: Experiment, data: DataSet) -> MeasuredStudent:
    search, task = experiment.search, tasks.find(experiment.task)
    # Published weights need not be fetched to count them; a file's may decide what the network is.
    plain = network.model_copy(update={"weights": None}) if network.weights == PRETRAINED else network
    try:
        costs = student_costs(plain, data, task, torch.device(DEVICE), search.max_parameters or math.inf)
    except UserError as error:
        raise naming(name, error) from None
    seconds = costs["latency"]["seconds"] if "latency" in costs else None
    return MeasuredStudent(
        student=anchored(name),  # as the settings of trials will have it
        name=label(name),
        parameters=costs["parameters"],
        multiply_adds=costs.get("multiply_adds"),
        latency=seconds,
        refused=_refusal(costs["parameters"], seconds, search),
    )


def _refusal(parameters: int, latency: float | None, search: SearchSettings) -> str | None:
    if search.max_parameters is not None and parameters > search.max_parameters:
        return f"has {parameters:,} parameters, more than the limit of {search.max_parameters:,}"
    if search.max_latency is not None and latency is not None and latency > search.max_latency:
        limit = milliseconds(search.max_latency)
        return f"takes {milliseconds(latency)} for an image on one CPU thread, more than the limit of {limit}"
    return None
