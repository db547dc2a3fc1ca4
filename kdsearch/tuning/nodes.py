"""Before the first trial: all nodes of the pool run the driver's programs, and see and write what it does."""

from __future__ import annotations

import contextlib
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

from kdsearch.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from kdsearch.data.base import DataSet, Split
    from kdsearch.experiment import Experiment

PATIENCE = 300.0
"""Seconds in which a node must answer: it may have to unpack a job's files first."""
SETTLING = 5.0
"""Seconds until a file must be seen on another node: network file systems show it after a moment."""
FILES = "kdsearch's files"
"""A digest of them: two checkouts of one version need not be the same."""


class Answer(TypedDict):
    """What a node says of itself."""

    versions: dict[str, str]
    sees: bool
    """Whether it sees what the driver wrote into the storage."""
    refusal: str | None
    """Why it cannot write there."""
    missing: list[str]


@dataclass(frozen=True)
class Question:
    """What a node is asked."""

    probe: Path | None
    """A file that the driver wrote into the storage; None where the storage is no folder."""
    nonce: str
    """What it holds."""
    paths: Sequence[str]
    """Files and folders that a trial will read."""


def check_nodes(experiment: Experiment, storage: Path | None, data: DataSet | None) -> None:
    """Ask every node but the driver's own, each by a task that waits for no resource. Leaves no file behind.

    Args:
        experiment: with paths that hold from any folder.
        storage: the folder of runs, which all nodes must see and write; None where it is no folder.
        data: as loaded by the driver; its folder must be on all nodes when it is read while training.

    Raises UserError that names the nodes, for versions of Python, Ray or kdsearch (or files of kdsearch) that differ,
    storage that is not shared or not writable, and paths that are on the driver's node alone.
    """
    others = other_nodes()
    if not others:
        return
    with _probe(storage) as (probe, nonce):
        answers = ask(others, Question(probe, nonce, needed_paths(experiment, data)))
    judge(answers, own_versions(), storage)


def other_nodes() -> dict[str, str]:
    """The living nodes but the driver's own: how to call each, by its id."""
    import ray

    own = ray.get_runtime_context().get_node_id()
    alive = {node["NodeID"]: node["NodeManagerAddress"] for node in ray.nodes() if node["Alive"]}
    shared = list(alive.values())
    names = {key: host if shared.count(host) == 1 else f"{host} ({key[:8]})" for key, host in alive.items()}
    return {key: name for key, name in names.items() if key != own}


def needed_paths(experiment: Experiment, data: DataSet | None) -> list[str]:
    """The experiment's files and folders that the driver has and that trials read: a person's code, weights, data."""
    named = [experiment.method, experiment.data.name]
    for network in experiment.networks:
        named += [network.name, network.weights or ""]
    if data is not None and not all(_in_memory(split) for split in (data.train, data.validation, data.test)):
        named.append(experiment.data.root or "")
    files = [name.rpartition(":")[0] if ".py:" in name else name for name in named]
    return sorted({file for file in files if "/" in file and Path(file).exists()})


def _in_memory(split: Split) -> bool:
    """Whether the split travels whole, and is read from no file any more."""
    from kdsearch.data.dense.splits import DenseMemorySplit
    from kdsearch.data.restoration.source import ArrayPictures
    from kdsearch.data.restoration.splits import PictureSplit
    from kdsearch.data.splits import MemorySplit

    if isinstance(split, PictureSplit):
        return isinstance(split.part.pictures, ArrayPictures)
    return isinstance(split, MemorySplit | DenseMemorySplit)


@contextlib.contextmanager
def _probe(storage: Path | None) -> Iterator[tuple[Path | None, str]]:
    """A file in the storage that nobody else can know of; gone at the end, with the folders that were made for it."""
    nonce = secrets.token_hex(16)
    if storage is None:
        yield None, nonce
        return
    made = [folder for folder in (storage, *storage.parents) if not folder.exists()]
    probe = storage / f".probe-{nonce[:12]}"
    try:
        try:
            storage.mkdir(parents=True, exist_ok=True)
            probe.write_text(nonce)
        except OSError as error:
            raise UserError(f"the storage {storage} cannot be written: {error.strerror}") from None
        yield probe, nonce
    finally:
        for left in (probe, *storage.glob(f"{probe.name}-*")):  # also those of nodes that were lost meanwhile
            left.unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # another search may have begun there
            for folder in made:
                folder.rmdir()


def ask(nodes: Mapping[str, str], question: Question) -> dict[str, Answer]:
    """The answer of each node, by the name in `nodes`; nodes that leave meanwhile are passed over.

    Raises UserError when a node that is there does not answer.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    task: Any = ray.remote(num_cpus=0, max_retries=1)(examination())
    running = {
        task.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False)).remote(
            node, question.probe and str(question.probe), question.nonce, list(question.paths), SETTLING
        ): node
        for node in nodes
    }
    _, late = ray.wait(list(running), num_returns=len(running), timeout=PATIENCE)
    if late:
        names = ", ".join(nodes[running[reference]] for reference in late)
        raise UserError(f"no answer within {PATIENCE:g} s from {names}: end Ray there, and start it again")
    answers = {}
    for reference, node in running.items():
        try:
            answers[nodes[node]] = ray.get(reference)
        except ray.exceptions.RayError as error:
            if node in other_nodes():
                cause = getattr(error, "cause", None) or error
                reason = str(cause).strip().splitlines()[0]
                raise UserError(f"node {nodes[node]} cannot run kdsearch: {reason}") from None
    return answers


def examination() -> Callable[[str, str | None, str, list[str], float], Answer]:
    """What runs on a node. Not at module level: so it travels by value to nodes whose kdsearch is another one."""

    files = FILES

    def examine(node: str, probe: str | None, nonce: str, paths: list[str], settling: float) -> Answer:
        import hashlib
        import importlib.util
        import os
        import platform
        import time
        from pathlib import Path

        import ray

        from kdsearch import __version__

        def sees(file: str) -> bool:
            deadline = time.monotonic() + settling
            while time.monotonic() < deadline:
                try:
                    return Path(file).read_text() == nonce
                except OSError:
                    time.sleep(0.1)
            return False

        def refusal(file: str) -> str | None:
            own = f"{file}-{node}"
            try:
                Path(own).write_text(nonce)
                os.unlink(own)
            except OSError as error:
                return error.strerror or str(error)
            return None

        digest = hashlib.sha256()
        found = importlib.util.find_spec("kdsearch")
        root = Path(str(found and found.origin)).parent
        for source in sorted(file for file in root.rglob("*.py") if file.is_file()):
            digest.update(f"{source.relative_to(root)}\n".encode() + source.read_bytes())
        visible = probe is None or sees(probe)
        return {
            "versions": {
                "Python": platform.python_version(),
                "Ray": ray.__version__,
                "kdsearch": __version__,
                files: digest.hexdigest()[:12],
            },
            "sees": visible,
            "refusal": refusal(probe) if probe is not None and visible else None,
            "missing": [path for path in paths if not os.path.exists(path)],
        }

    return examine


def own_versions() -> dict[str, str]:
    """The driver's, as a node tells its own."""
    return examination()("", None, "", [], 0.0)["versions"]


def judge(answers: Mapping[str, Answer], own: Mapping[str, str], storage: Path | None) -> None:
    """Raise UserError for the first kind of trouble, with all nodes that have it."""
    others = {name: _differing(answer["versions"], own) for name, answer in answers.items()}
    if any(others.values()):
        here = {what: own[what] for difference in others.values() for what in difference}
        told = [f"{name} has {_listed(found)}" for name, found in others.items() if found]
        raise UserError(f"the nodes of the pool differ: the driver has {_listed(here)}, {', '.join(told)}; "
                        "install the same on all of them")  # fmt: skip
    blind = [name for name, answer in answers.items() if not answer["sees"]]
    if blind:
        raise UserError(
            f"storage {str(storage)!r} is not the same folder on all nodes: what the driver writes there is not seen "
            f"from {', '.join(blind)}; mount a shared file system on all nodes and give its path"
        )
    refused = [f"{name} ({answer['refusal']})" for name, answer in answers.items() if answer["refusal"]]
    if refused:
        raise UserError(f"storage {str(storage)!r} cannot be written from {', '.join(refused)}; mend its rights")
    missing = [f"  {name}: {', '.join(answer['missing'])}" for name, answer in answers.items() if answer["missing"]]
    if missing:
        raise UserError("\n".join(["paths of the experiment are not on all nodes; missing are", *missing]))


def _differing(found: Mapping[str, str], own: Mapping[str, str]) -> dict[str, str]:
    """What differs; the files of another version differ anyway."""
    wrong = {what: version for what, version in found.items() if version != own[what]}
    return {what: version for what, version in wrong.items() if what != FILES or "kdsearch" not in wrong}


def _listed(versions: Mapping[str, str]) -> str:
    return ", ".join(f"{what} {version}" for what, version in versions.items())
