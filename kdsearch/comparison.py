"""A comparison of methods: each searched with an equal budget, and every student trained at an equal cost.

Equal epochs would be unfair: a method that looks at each image five times an epoch has trained five times as long. So
the budget of a search is counted in images seen or in seconds of training, and the epochs of one training follow from
what an epoch of the method costs beside one of the reference's, which trains by labels alone.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import yaml

from kdsearch import tasks
from kdsearch.consent import refuse_code
from kdsearch.errors import InvalidSetting, UserError
from kdsearch.experiment import Experiment
from kdsearch.files import parse_yaml, read_yaml
from kdsearch.students import refuse_several

if TYPE_CHECKING:
    from collections.abc import Callable

    from kdsearch.settings import Scalar

    Load = Callable[[str, Mapping[str, Any]], Experiment]

Unit = Literal["images", "seconds"]

LIMITS: dict[Unit, str] = {"images": "images", "seconds": "training_time"}
"""The search setting that holds a budget of each unit."""
MANY_TRIALS = 10_000
"""More than any budget pays for: the number of trials ends no search of a comparison."""
MIXES: dict[str, Mapping[str, Scalar]] = {
    "cutmix": {"cutmix": 0.5},  # the probability of the authors' own training on CIFAR (Yun et al. 2019)
    "mixup": {"mixup": 1.0, "mixup_alpha": 1.0},  # α = 1 on CIFAR (Zhang et al. 2018)
}
"""Augmentations that are no method and yet a rival: an entry names one as METHOD+NAME."""

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}")


@dataclass(frozen=True)
class Entry:
    """One search of a comparison: a method, with what is held fixed, on one state of the labels."""

    name: str
    """As it was given: `ips`, `ips+cutmix`, `ips+cutout=4`."""
    run: str
    """Its folder in the comparison's."""
    experiment: Experiment
    """Its search; `training.epochs` are those of the reference until `equalised`."""

    @property
    def labels(self) -> tuple[float, float]:
        """Share of the labels that is kept, share of these that is false."""
        return self.experiment.data.label_fraction, self.experiment.data.label_noise


@dataclass(frozen=True)
class Comparison:
    """Methods to compare. Raises UserError for whatever does not fit."""

    name: str
    unit: Unit
    amount: float
    """The budget of each search, in `unit`."""
    seeds: int
    """Fresh seeds that decide among the best settings of each search; as many others report."""
    top: int
    """How many settings of each search these seeds decide among."""
    reference: str
    """The entry that the others are tested against, which trains by labels alone."""
    entries: tuple[Entry, ...]

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            why = "must be up to 100 letters, digits, '.', '_' and '-', the first no '.' or '-'; no path"
            raise InvalidSetting("--name", self.name, why)
        if self.seeds < 2:
            raise InvalidSetting("--seeds", self.seeds, "must be at least 2: one training shows no spread to judge by")
        if self.top < 1:
            raise InvalidSetting("--top", self.top, "must be at least 1, the best setting of each search")
        twice = {entry.run for entry in self.entries if sum(entry.run == other.run for other in self.entries) > 1}
        if twice:
            raise InvalidSetting("methods", min(twice), "stands twice")

    @classmethod
    def load(cls, path: str | Path, name: str, *, allow_code: bool = False) -> Comparison:
        """The comparison of a file that `to_yaml` gave. Raises UserError, also for code in it unless allowed."""
        content = read_yaml(Path(path))
        if not allow_code:
            for entry in content.get("entries") or ():
                refuse_code(entry.get("experiment") or {}, str(path))
        try:
            found = {key: content[key] for key in ("unit", "amount", "seeds", "top", "reference")}
            entries = tuple(
                Entry(entry["name"], entry["run"], Experiment(**entry["experiment"])) for entry in content["entries"]
            )
        except (KeyError, TypeError) as error:
            raise UserError(f"{path} is no whole comparison: {error}") from None
        return cls(name=name, entries=entries, **found)

    def document(self) -> dict[str, Any]:
        """All that decides the outcome, as its file holds it; seeds may be added later, so they are apart."""
        return {
            "methods": ", ".join(dict.fromkeys(entry.name for entry in self.entries)),
            "unit": self.unit,
            "amount": self.amount,
            "top": self.top,
            "reference": self.reference,
            "entries": [
                {"name": entry.name, "run": entry.run, "experiment": entry.experiment.model_dump(mode="json")}
                for entry in self.entries
            ],
        }

    def to_yaml(self) -> str:
        """The comparison as a file."""
        return yaml.safe_dump({"seeds": self.seeds, **self.document()}, sort_keys=False)

    def equalised(self, costs: Mapping[str, float]) -> Comparison:
        """With as many epochs for each entry as cost what the reference's do, and first rungs in proportion.

        Args:
            costs: what an epoch of an entry costs, by its name, where one of the reference costs 1.
        """
        return replace(
            self,
            entries=tuple(
                replace(entry, experiment=_with_epochs(entry.experiment, costs[entry.name])) for entry in self.entries
            ),
        )

    def image_costs(self) -> dict[str, float]:
        """What an epoch of each entry costs in images seen, where one of the reference costs 1."""
        forwards = {entry.name: entry.experiment.method_class.forwards for entry in self.entries}
        return {name: passes / forwards[self.reference] for name, passes in forwards.items()}


def compare(
    names: Sequence[str],
    load: Load,
    *,
    unit: Unit,
    amount: float,
    name: str | None = None,
    seeds: int = 5,
    top: int = 3,
    label_fractions: Sequence[float] = (),
    label_noises: Sequence[float] = (),
    controls: bool = True,
) -> Comparison:
    """The comparison of these entries, with the reference and, for classification, its CutMix and Mixup.

    Args:
        names: METHOD, METHOD+cutmix, METHOD+mixup or METHOD+NAME=VALUE with more of them, what follows being fixed.
        load: makes the experiment of a method, given dotted keys and their values.
        unit: of the budget.
        amount: of each search.
        name: of the comparison's folder; None: made from the data and the student.
        seeds: fresh seeds that decide, and as many that report.
        top: how many settings of each search the first seeds decide among.
        label_fractions: shares of the labels to compare at; none: that of `load`.
        label_noises: shares of false labels to compare at, each with each fraction.
        controls: add CutMix and Mixup; the reference is always there.

    Raises:
        UserError: an entry does not fit, or they are not of one task.
    """
    parsed = {text: _parsed(text) for text in names}
    if not parsed:
        raise UserError("name at least one method to compare")
    first = load(parsed[names[0]][0], {})
    reference = tasks.find(first.task).teacher_method
    rivals = [reference, *(f"{reference}+{mix}" for mix in MIXES if controls and first.task == "classification")]
    parsed |= {text: _parsed(text) for text in rivals}
    order = [reference, *(text for text in dict.fromkeys([*names, *rivals]) if text != reference)]
    states = list(product(label_fractions or (None,), label_noises or (None,)))
    entries = tuple(_entry(text, *parsed[text], load, state, len(states) > 1) for state in states for text in order)
    for entry in entries:
        if entry.experiment.task != first.task:
            task = entry.experiment.task
            raise InvalidSetting("methods", entry.name, f"is for task {task!r}, {names[0]} for {first.task!r}")
    limited = tuple(replace(entry, experiment=_limited(entry.experiment, unit, amount)) for entry in entries)
    title = name or f"compare-{_plain(first.data.name)}-{_plain(first.student.name)}"
    return Comparison(title, unit, amount, seeds, top, reference, limited)


def _parsed(text: str) -> tuple[str, dict[str, Scalar]]:
    """The method of an entry, and what is fixed in it."""
    head, slash, tail = text.rpartition("/")
    method, *parts = tail.split("+")
    fixed: dict[str, Scalar] = {}
    for part in parts:
        key, equals, value = part.partition("=")
        if equals and key:
            fixed[key] = _value(value, text)
        elif part in MIXES:
            fixed |= MIXES[part]
        else:
            raise InvalidSetting("methods", text, f"write METHOD+{'|+'.join(MIXES)} or METHOD+NAME=VALUE")
    return head + slash + method, fixed


def _value(value: str, text: str) -> Any:
    try:
        return parse_yaml(value)
    except ValueError as error:
        raise InvalidSetting("methods", text, f"{value!r} is not YAML: {error}") from None


def _entry(
    name: str,
    method: str,
    fixed: Mapping[str, Scalar],
    load: Load,
    state: tuple[float | None, float | None],
    several: bool,
) -> Entry:
    fraction, noise = state
    given = {"data.label_fraction": fraction, "data.label_noise": noise}
    keys = {f"space.{key}": value for key, value in fixed.items()}
    try:
        experiment = load(method, keys | {key: value for key, value in given.items() if value is not None})
    except UserError as error:
        raise UserError(f"{name}: {error}") from None
    refuse_several(experiment.students, experiment.search, "a comparison")
    experiment = experiment.anchored()
    data = experiment.data
    labels = f"labels{data.label_fraction:g}-noise{data.label_noise:g}-" if several else ""
    run = f"{labels}{_plain(name)}"
    return Entry(name, run, experiment.model_copy(update={"name": run}))


def _limited(experiment: Experiment, unit: Unit, amount: float) -> Experiment:
    """The search with this budget and no other."""
    budget = {"trials": MANY_TRIALS, "time": None, "gpu_hours": None, "images": None, "training_time": None}
    # Every search of a comparison is confirmed, in one way for all.
    search = experiment.search.model_dump() | budget | {"confirm": None, LIMITS[unit]: amount}
    content = experiment.model_dump(mode="json") | {"search": search}
    if experiment.teacher is not None and experiment.teacher.epochs is None:
        content["teacher"]["epochs"] = experiment.training.epochs  # the student's epochs are made to fit its method
    return Experiment(**content)


def _with_epochs(experiment: Experiment, cost: float) -> Experiment:
    epochs = max(1, round(experiment.training.epochs / cost))
    rung = min(epochs, max(1, round(experiment.search.grace_period / cost)))
    content = experiment.model_dump(mode="json")
    content["training"]["epochs"] = epochs
    content["search"]["grace_period"] = rung
    return Experiment(**content)


def _plain(text: str) -> str:
    """A name as a folder may have it: `my_net.py:build` → `my_net-build`, `ips+cutout=4` → `ips-cutout-4`."""
    name = Path(text).name.replace(".py:", "-")
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("._-") or "entry"
