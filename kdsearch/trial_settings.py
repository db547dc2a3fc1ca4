"""A flat setting of one method, put where it belongs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import BaseModel, ValidationError

from kdsearch.errors import UnknownName
from kdsearch.settings import AugmentationSettings, Scalar, TrainingSettings
from kdsearch.space import hyperparameters_of
from kdsearch.wording import explained

if TYPE_CHECKING:
    from kdsearch.methods.base import Method

Model = TypeVar("Model", bound=BaseModel)


@dataclass(frozen=True)
class TrialSettings:
    """One trial's hyperparameters by section."""

    method: Any
    """An instance of the method's `Hyperparameters`."""
    training: TrainingSettings
    augmentation: AugmentationSettings


def trial_settings(
    method: type[Method], training: TrainingSettings, augmentation: AugmentationSettings, setting: Mapping[str, Scalar]
) -> TrialSettings:
    """The sections with what a setting says of them. Raises UnknownName or InvalidSetting for what does not fit."""
    known = hyperparameters_of(method)
    parts: dict[str, dict[str, Scalar]] = {"method": {}, "training": {}, "augmentation": {}}
    for name, value in setting.items():
        if name not in known:
            raise UnknownName(f"hyperparameter of method {method.name!r}", name, known)
        parts[known[name].section][name] = known[name].value(value, name)
    return TrialSettings(
        method=_built(method.Hyperparameters, parts["method"], method.name),
        training=_built(TrainingSettings, training.model_dump() | parts["training"], "training"),
        augmentation=_built(AugmentationSettings, augmentation.model_dump() | parts["augmentation"], "augmentation"),
    )


def with_paper(training: TrainingSettings, method: type[Method], optimizer: Scalar | None) -> TrainingSettings:
    """The training section, with the paper's values for what it leaves out, where the optimiser is the paper's."""
    given = training.model_dump(include=training.model_fields_set)
    paper = dict(method.paper_training)
    chosen = optimizer or given.get("optimizer") or paper.get("optimizer")
    return _built(TrainingSettings, given if chosen != paper.get("optimizer") else paper | given, "training")


def _built(model: type[Model], values: Mapping[str, Any], where: str) -> Model:
    """An instance of the model. Raises UserError with `where` in front of the names."""
    try:
        return model(**values)
    except ValidationError as error:
        raise explained(error, model, (where,)) from None
