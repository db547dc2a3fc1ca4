"""`gpus_per_trial: auto`: trials measured side by side on a GPU of each kind in the pool, and remembered."""

from __future__ import annotations

import functools
import hashlib
import json
import math
from dataclasses import asdict, dataclass, replace
from importlib import metadata
from typing import TYPE_CHECKING, Any, cast

import ray

from kdsearch import __version__
from kdsearch.errors import InvalidSetting, SearchFailed
from kdsearch.files import write_atomic
from kdsearch.results.documents import read_json, to_json
from kdsearch.results.packing import KindDocument, LevelDocument, PackingDocument, in_words, level_in_words
from kdsearch.training.packing import CopyFailed, Level, Limit, Packing, alternatives, pack, share_of
from kdsearch.training.probe import far_from_its_end
from kdsearch.tuning.crew import ask_about_mps, ray_crew, whole_gpu
from kdsearch.tuning.objective import TrainerObjectives
from kdsearch.user_code import loaded_modules

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from kdsearch.experiment import Experiment
    from kdsearch.search_settings import ResourceSettings
    from kdsearch.settings import Scalar
    from kdsearch.training.probe import Described

    Tries = Sequence[Mapping[str, Scalar]]
    Announce = Callable[[str], None]

PACKINGS = ".packings"
KIND = "accelerator_type:"
"""How Ray begins the name of the resource that tells what GPUs a node has."""


@dataclass(frozen=True)
class Kind:
    """GPUs of one model in the pool."""

    name: str
    """As Ray calls it; empty where it does not know."""
    limit: Limit


def find_packing(
    resources: ResourceSettings,
    objectives: object,
    tries: Tries,
    storage: Path | None,
    announce: Announce,
    *,
    remember: bool = True,
) -> PackingDocument:
    """How many trials share a GPU: measured for `auto`, else what was asked for.

    Args:
        resources: as they were given, with `gpus_per_trial` auto or below 1.
        objectives: of the search, with a teacher that can be built.
        tries: settings that are tried beside the space.
        storage: the folder of runs, where measurements are remembered; None: they are not.
        announce: told in a sentence what is measured and found.
        remember: whether what is measured now is written there.

    Raises InvalidSetting when the most demanding setting does not fit on a whole GPU, and SearchFailed when it cannot
    be trained for another reason.
    """
    if resources.gpus_per_trial == "auto":
        found = _measured(objectives, tries, Memory(storage, write=remember), announce)
    else:
        share = resources.gpus
        found = PackingDocument(asked=share, gpus_per_trial=share, mps=ask_about_mps(share), kinds=[])
    announce(in_words(found))
    return found


def _measured(objectives: object, tries: Tries, memory: Memory, announce: Announce) -> PackingDocument:
    found = PackingDocument(asked="auto", gpus_per_trial=0.0, mps=None, kinds=[])
    if not isinstance(objectives, TrainerObjectives):
        return {**found, "gpus_per_trial": 1.0 if ray.cluster_resources().get("GPU", 0) >= 1 else 0.0}
    experiment = objectives.experiment
    known = kinds([node["Resources"] for node in ray.nodes() if node["Alive"]], experiment)
    if not known:
        return found
    for module in loaded_modules():  # workers know a person's file by no name
        ray.cloudpickle.register_pickle_by_value(module)
    shared = ray.put(replace(objectives, experiment=far_from_its_end(experiment)))
    documents = [_of_kind(kind, shared, objectives, tries, memory, announce) for kind in known]
    # One share for all, as trials go wherever there is room: what the kind that holds the fewest needs.
    copies = min(document["copies"] for document in documents)
    mps = all(document["mps"] for document in documents)
    return {**found, "gpus_per_trial": share_of(copies), "mps": mps, "kinds": documents}


def kinds(nodes: Sequence[Mapping[str, float]], experiment: Experiment) -> list[Kind]:
    """The kinds of GPU among the resources of these nodes, and how many trials could share one of each."""
    resources = experiment.resources
    grouped: dict[str, list[Mapping[str, float]]] = {}
    for node in nodes:
        if node.get("GPU", 0) >= 1 and node.get("CPU", 0) >= resources.cpus_per_trial:  # else no trial runs there
            name = next((key.removeprefix(KIND) for key in node if key.startswith(KIND)), "")
            grouped.setdefault(name, []).append(node)
    gpus = sum(int(node["GPU"]) for group in grouped.values() for node in group)
    together = _limit_of_trials(resources, experiment.search.trials, gpus)
    found = []
    for name, group in sorted(grouped.items()):
        fewest = min(int(node["CPU"] / resources.cpus_per_trial / node["GPU"] + 1e-9) for node in group)
        by_cpu = Limit(max(1, fewest), f"a node has CPUs for no more than {max(1, fewest)} a GPU")
        found.append(Kind(name, min(by_cpu, together, key=lambda limit: limit.copies)))
    return found


def _limit_of_trials(resources: ResourceSettings, trials: int, gpus: int) -> Limit:
    """As many as it takes to have all trials that may run at a time on the GPUs."""
    at_a_time = min(trials, resources.max_concurrent or trials)
    allowed = max(1, min(gpus, resources.max_gpus or gpus))
    copies = math.ceil(at_a_time / allowed)
    return Limit(copies, f"{at_a_time} trials at a time are {copies} a GPU")


def _of_kind(
    kind: Kind, shared: Any, objectives: TrainerObjectives, tries: Tries, memory: Memory, announce: Announce
) -> KindDocument:
    """The measurement on one GPU of this kind, or what an earlier search found on such a one."""
    experiment, called = objectives.experiment, kind.name or "GPU"
    name = functools.partial(fingerprint, objectives, tries, kind.limit)

    def known(gpu: Described) -> Packing | None:
        found = memory.recall(gpu, name(gpu))
        if found is None:
            announce(f"measuring how many trials can share a {gpu.name}")
        return found

    def told(level: Level) -> None:
        announce(f"{called}: {level_in_words(_document(level))}")

    cpus = experiment.resources.cpus_per_trial
    with whole_gpu(kind.name and KIND + kind.name, cpus * kind.limit.copies, announce) as group:
        start = functools.partial(ray_crew, group, shared, cpus)
        try:
            packing = pack(start, experiment, tries, kind.limit, known=known, told=told)
        except CopyFailed as failure:
            raise _refusal(failure, experiment, tries, called) from None
    memory.remember(name(packing.device), packing)
    return document_of(packing)


def _refusal(failure: CopyFailed, experiment: Experiment, tries: Tries, gpu: str) -> Exception:
    if not failure.out_of_memory:
        return SearchFailed(f"a trial could not be measured: {failure}")
    largest = {name: values[-1] for name, values in alternatives(experiment, tries).items()}
    named = ", ".join(f"{name} = {value}" for name, value in largest.items() if isinstance(value, int | str))
    what = f"the most demanding setting of the space ({named})" if named else "a trial"
    return InvalidSetting(
        "resources.gpus_per_trial", "auto", f"{what} does not fit on a whole {gpu}: lower what it asks for"
    )


def fingerprint(objectives: TrainerObjectives, tries: Tries, limit: Limit, device: Described) -> str:
    """Everything that what is measured depends on, as a short name: where it is equal, nothing is measured again."""
    experiment, data = objectives.experiment, objectives.data
    content = experiment.model_dump(mode="json", exclude={"name", "seed", "search", "resources"})
    content["training"].pop("epochs", None)
    for network in (content["student"], content["teacher"] or {}):
        network.pop("weights", None)
    known = {
        "experiment": content,
        "values": alternatives(experiment, tries),
        "data": [len(data.train), len(data.validation), data.size, data.channels, len(data.classes)],
        "device": asdict(device),
        "limit": limit.copies,
        "cpus": experiment.resources.cpus_per_trial,
        "versions": [__version__, metadata.version("torch")],
        "code": sorted(module.__name__ for module in loaded_modules()),  # their names hold a digest of the files
    }
    return hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()[:16]


class Memory:
    """What was measured before, in a folder of the storage; without one nothing is remembered."""

    def __init__(self, storage: Path | None, *, write: bool = True) -> None:
        self._folder = None if storage is None else storage / PACKINGS
        self._write = write

    def recall(self, device: Described, name: str) -> Packing | None:
        """What was found under this name, which stands for the device too."""
        if self._folder is None or not (self._folder / f"{name}.json").is_file():
            return None
        known = cast("KindDocument", read_json(self._folder / f"{name}.json"))
        levels = tuple(Level(**level) for level in known["levels"])
        return Packing(device, known["setting"], levels, known["copies"], known["why"], known["measured"])

    def remember(self, name: str, packing: Packing) -> None:
        """Keep what was found under this name."""
        if self._folder is not None and self._write:
            self._folder.mkdir(parents=True, exist_ok=True)
            write_atomic(self._folder / f"{name}.json", to_json(document_of(packing)).encode())


def document_of(packing: Packing) -> KindDocument:
    """What was found, as `packing.json` has it."""
    return KindDocument(
        gpu=packing.device.name,
        total_memory=packing.device.total_memory,
        mps=packing.device.mps,
        setting=dict(packing.setting),
        levels=[_document(level) for level in packing.levels],
        copies=packing.copies,
        why=packing.why,
        measured=packing.measured,
    )


def _document(level: Level) -> LevelDocument:
    return LevelDocument(copies=level.copies, memory=level.memory, rate=level.rate, failure=level.failure)
