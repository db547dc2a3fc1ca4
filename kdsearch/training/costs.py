"""What a trained student costs on this machine, and how good weights are that come from elsewhere."""

from __future__ import annotations

import math
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

import torch

from kdsearch import models
from kdsearch.training.trainer import default_device, predictor

if TYPE_CHECKING:
    from torch import nn

    from kdsearch.data.base import DataSet
    from kdsearch.settings import NetworkSettings
    from kdsearch.tasks.base import Task


def student_costs(
    network: NetworkSettings,
    data: DataSet,
    task: Task,
    device: torch.device | None = None,
    most_parameters: float = math.inf,
) -> dict[str, Any]:
    """`parameters`; and of one image: `input` [C, H, W], `multiply_adds`, `latency` (see `models.latency`).

    `device`: None for the GPU if there is one. Of a network with more than `most_parameters` these are all.
    """
    module, size = _built(network, data, task, device)
    parameters = models.count_parameters(module)
    if parameters > most_parameters:
        return {"parameters": parameters}
    shape = (data.channels, *(size or data.size))
    example = torch.zeros(1, *shape, device=device or default_device())
    return {
        "parameters": parameters,
        "multiply_adds": models.multiply_adds(module, example),
        "input": list(shape),
        "latency": asdict(models.latency(module, example)) | {"batch": 1},
    }


def validation_metric(network: NetworkSettings, data: DataSet, task: Task) -> float:
    """The task's metric on validation of a network with weights, fed as these weights were trained."""
    module, size = _built(network, data, task)
    mean, std = models.normalisation(network, module) or (data.mean, data.std)
    predict = predictor(module, replace(data, mean=mean, std=std), size)
    return task.evaluate(predict, data.validation, default_device())[task.metric]


def _built(
    network: NetworkSettings, data: DataSet, task: Task, device: torch.device | None = None
) -> tuple[nn.Module, tuple[int, int] | None]:
    """The network on this machine's device, and the size to which images are resized for it."""
    module = task.build(network, data).to(device or default_device())
    return module, task.input_size(module, network, data)
