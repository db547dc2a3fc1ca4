"""What is taken home of a run: hyperparameters, weights, metrics and a model card, in one folder."""

from __future__ import annotations

import os
import re
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kdsearch.errors import BadWeights, RunError
from kdsearch.files import write_atomic
from kdsearch.results.card import PER_CLASS, header, hyperparameters_yaml, model_card
from kdsearch.results.documents import plain, read_json, to_json
from kdsearch.results.results import Results, Trial
from kdsearch.results.storage import run_name
from kdsearch.results.students import student_rows

BEST = "best"
WEIGHTS = "student.safetensors"
METRICS = "metrics.json"
HYPERPARAMETERS = "hyperparameters.yaml"
CARD = "README.md"
TRIAL_FACTS = "facts.json"

_PLACE = re.compile(r"(/|~|file:|[A-Za-z]:[\\/])")


def write_export(
    folder: str | Path,
    *,
    weights: Path | bytes | Mapping[str, Any],
    facts: Mapping[str, Any],
    hyperparameters: Mapping[str, Any],
) -> None:
    """Write an export into `folder`, whole or not at all; one that is there already is replaced.

    It is made beside and renamed into place. A crash in the very moment of replacing leaves no `folder`; what was
    and what was to be then both lie beside it, under hidden names.

    Args:
        folder: where to, usually `best` of a run.
        weights: the student's state dict: safetensors (file or bytes), or names to torch or numpy tensors.
        facts: the content of metrics.json. The root of the data set and the folders of absolute paths are left out.
        hyperparameters: the flat setting, as `--hyperparameters` takes it.

    Raises BadWeights when the weights are no complete safetensors file, RunError when `facts` is not complete.
    """
    folder = Path(folder)
    document = _without_places(plain({**facts, "hyperparameters": hyperparameters}))
    document.setdefault("test_readings", [])
    try:
        texts = {
            METRICS: to_json(document),
            HYPERPARAMETERS: hyperparameters_yaml(hyperparameters, header(document)),
            CARD: model_card(document),
        }
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise RunError(f"the facts of the export to {folder} are not complete: {_complaint(error)}") from error
    content = _safetensors(weights)
    new = _neighbour(folder, "new")
    try:
        new.mkdir(parents=True)
        write_atomic(new / WEIGHTS, content)
        for name, text in texts.items():
            write_atomic(new / name, text.encode())
        _replace(folder, new)
    finally:
        shutil.rmtree(new, ignore_errors=True)


def export_run(run: str | Path, to: str | Path) -> Path:
    """Export the best student of the run in folder `run` to the new folder `to`; its path.

    Taken from the run's `best`, or, where the search has not come to write it, from the best trial's own folder.
    Pictures that lie beside the weights come along. Raises `RunError` when `to` holds anything, or there is nothing
    to export yet.
    """
    target = Path(to).expanduser().resolve()
    if target.exists() and not (target.is_dir() and not any(target.iterdir())):
        raise RunError(f"{str(to)!r} exists and is not empty: name a new folder")
    weights, facts = _best_of(Path(run))
    hyperparameters = facts.get("hyperparameters")
    if not isinstance(hyperparameters, dict):
        raise RunError(f"the best student of {run} comes without its hyperparameters")
    try:
        write_export(target, weights=weights, facts=facts, hyperparameters=hyperparameters)
        for picture in weights.parent.glob("*.png"):
            write_atomic(target / picture.name, picture.read_bytes())
    except OSError as error:
        raise RunError(f"{str(to)!r} cannot be written: {error.strerror or error}") from None
    return target


def _best_of(run: Path) -> tuple[Path, dict[str, Any]]:
    """Weights and facts of the run's best student."""
    best = run / BEST
    if (best / WEIGHTS).is_file() and (best / METRICS).is_file():
        return best / WEIGHTS, read_json(best / METRICS)
    results = Results(run)
    trial = results.best
    if trial is None:
        raise RunError(f"run {results.name!r} has no student to export yet: no trial has finished an epoch")
    kept = results.trial_folder(trial) / BEST
    if not ((kept / WEIGHTS).is_file() and (kept / TRIAL_FACTS).is_file()):
        raise RunError(
            f"the weights of trial {trial.number}, the best of run {results.name!r}, are not on disk; "
            f"train it anew: kdsearch train {results.experiment.get('method')} --hyperparameters best.yaml, "
            f"with best.yaml from kdsearch best {results.name} --yaml"
        )
    facts = read_json(kept / TRIAL_FACTS)
    named = {name: value for name, value in trial.hyperparameters.items() if name == "student"}
    facts["hyperparameters"] = named | facts["hyperparameters"]
    return kept / WEIGHTS, facts | {"search": search_facts(results, trial)}


def search_facts(results: Results, trial: Trial) -> dict[str, Any]:
    """The `search` block of metrics.json: which search found this trial, what it cost and what it brought."""
    started, ended = results.started, results.ended or time.time()
    found = {
        "run": run_name(results.folder),
        "trial": trial.number,
        "trials": len(results.trials),
        "seconds": None if started is None else ended - started,
        "gpu_hours": results.attribute("gpu_hours"),
        "gain_over_paper": results.gain(trial, results.paper_of(trial)),
        "gain_over_control": results.gain(trial, results.control_of(trial)),
    }
    rows = student_rows(results)
    return found if rows is None else found | {"students": rows}


def add_test_reading(folder: str | Path, metrics: Mapping[str, float]) -> int:
    """Note in an export's metrics.json and card that the test split was read; how often it was read by now."""
    path = Path(folder) / METRICS
    document = read_json(path)
    readings = document.setdefault("test_readings", [])
    if not isinstance(readings, list):
        raise RunError(f"{path}: test_readings must be a list")
    card = path.with_name(CARD)
    ours = card.is_file() and card.read_text() == _card(document)  # one that a person has changed stays as it is
    readings.append({"time": time.time(), "metrics": dict(metrics)})
    write_atomic(path, to_json(document).encode())
    if ours:
        write_atomic(card, model_card(document).encode())
    return len(readings)


def _card(document: Mapping[str, Any]) -> str | None:
    """The card of what a metrics.json holds, which may be less than a card needs."""
    try:
        return model_card(document)
    except (KeyError, TypeError, ValueError, AttributeError):
        return None


def _safetensors(weights: Path | bytes | Mapping[str, Any]) -> bytes:
    """The weights as a complete safetensors file."""
    from safetensors import SafetensorError, deserialize

    if isinstance(weights, Mapping):
        return _serialize(weights)
    try:
        content = weights if isinstance(weights, bytes) else weights.read_bytes()
        deserialize(content)  # type: ignore[no-untyped-call]
    except OSError as error:
        raise BadWeights(f"{weights!s} cannot be read: {error.strerror or error}") from None
    except SafetensorError as error:
        name = "the weights" if isinstance(weights, bytes) else str(weights)
        raise BadWeights(f"{name}: not a complete safetensors file ({error})") from None
    return content


def _serialize(tensors: Mapping[str, Any]) -> bytes:
    if all(type(tensor).__module__.startswith("numpy") for tensor in tensors.values()):
        from safetensors.numpy import save as save_arrays

        return save_arrays(dict(tensors))
    from safetensors.torch import save

    # Cloned one by one: tensors that share memory (tied weights) cannot be stored as they are.
    return save({name: tensor.detach().cpu().clone().contiguous() for name, tensor in tensors.items()})


def _without_places(document: dict[str, Any]) -> dict[str, Any]:
    """Without the data's root and with absolute paths cut to their last part: an export is given to others."""
    if isinstance(document.get("data"), dict):
        document["data"].pop("root", None)
    by_data = ("classes", PER_CLASS, "validation", "test_readings")  # what the data names is no path
    return {name: value if name.startswith(by_data) else portable(value) for name, value in document.items()}


def portable(value: Any) -> Any:
    """A document with the absolute paths in it cut to their last part."""
    if isinstance(value, str) and _PLACE.match(value):
        return re.split(r"[\\/]", value.rstrip("\\/"))[-1]
    if isinstance(value, dict):
        return {name: portable(entry) for name, entry in value.items()}
    return [portable(entry) for entry in value] if isinstance(value, list) else value


def _replace(folder: Path, new: Path) -> None:
    """Put the content of `new` in the place of `folder`."""
    if new.parent == folder:
        for file in new.iterdir():
            file.rename(folder / file.name)
        _sync(folder)
        return
    old = _neighbour(folder, "old")
    if folder.exists():
        folder.rename(old)
    try:
        new.rename(folder)
    except BaseException:
        if old.exists():
            old.rename(folder)
        raise
    shutil.rmtree(old, ignore_errors=True)
    _sync(folder.parent)


def _neighbour(folder: Path, what: str) -> Path:
    """A hidden folder of this process's own beside `folder`, on the same disk; what a dead process left is cleared.

    Of a folder that exists and is empty it lies inside: that one may be mounted, or be where the person stands.
    """
    name = f".{folder.name}.{os.getpid()}.{what}"
    empty = folder.is_dir() and not any(folder.iterdir())
    path = folder / name if empty else folder.with_name(name)
    shutil.rmtree(path, ignore_errors=True)
    return path


def _sync(folder: Path) -> None:
    """Make a rename in `folder` survive a loss of power."""
    file = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)


def _complaint(error: Exception) -> str:
    return f"{error} is missing" if isinstance(error, KeyError) else str(error)
