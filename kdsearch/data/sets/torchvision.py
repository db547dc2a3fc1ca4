"""torchvision's other classification sets by name: `torchvision:STL10`, or plainly `stl10`, `fashion_mnist`, …

What a set can do is read from the signature of its class; nothing is ever downloaded. Validation parts that come
without a labelled test part (ImageNet, Imagenette, Places365) are what the literature reports on: they become the
test part, and validation is cut from train.
"""

from __future__ import annotations

import ast
import importlib.util
import inspect
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdsearch.data.own import dataset_part
from kdsearch.data.pictures import DatasetItems, dataset_labels
from kdsearch.data.source import Source, existing_root, refuse_unused
from kdsearch.errors import BadData, UnknownName
from kdsearch.settings import AugmentationSettings

if TYPE_CHECKING:
    from kdsearch.data.source import Part
    from kdsearch.settings import DataSettings

TITLE = "a torchvision set such as stl10, svhn, mnist"
FAMILY = "torchvision"

# Names under which sets keep their parts; the first that a set knows is taken.
SPLITS = {"train": ("train", "trainval"), "validation": ("val", "valid", "validation"), "test": ("test",)}
# These verify the published md5 of each pickle before they open it.
VERIFIED = ("CIFAR10", "CIFAR100")
NOT_A_SET = ("VisionDataset", "ImageFolder", "DatasetFolder", "FakeData")


def member(name: str) -> str | None:
    """torchvision's title of a set, written as torchvision does or in lower case with or without underscores."""
    wanted = _plain(name.removeprefix(f"{FAMILY}:"))
    return next((title for title in _titles() if _plain(title) == wanted), None)


def load(settings: DataSettings) -> Source:
    """The parts that torchvision knows of the set `settings.name` in the folder `settings.root`."""
    refuse_unused(settings, "samples")
    title, usable = member(settings.name), _classes()
    if title not in usable:
        raise UnknownName("torchvision classification set", settings.name.removeprefix(f"{FAMILY}:"), usable)
    published = usable[title]
    root = existing_root(settings, f"the folder that was given to torchvision.datasets.{title} when it was downloaded")
    found = {name: dataset for name in SPLITS if (dataset := _open(published, root, name)) is not None}
    train = found.pop("train", None)
    if train is None:
        raise BadData(f"torchvision's {title} has no part to train on: give it as your own, file.py:function")
    first = dataset_part(train, f"{title} train", settings, threads=True)
    parts: dict[str, Part] = {
        name: dataset_part(dataset, f"{title} {name}", settings, first, threads=True)
        for name, dataset in found.items()
        if len(dataset) and dataset_labels(DatasetItems(dataset, f"{title} {name}")) is not None
    }
    if "test" not in parts and "validation" in parts:
        parts["test"] = parts.pop("validation")
    augmentation = AugmentationSettings(crop=min(first.shape[1:]) // 8)
    return Source(train=first, classes=_class_names(train, first), augmentation=augmentation, **parts)


def _plain(name: str) -> str:
    return name.lower().replace("_", "").replace("-", "")


def _titles() -> list[str]:
    """The sets that torchvision exports, read from its source: importing it takes seconds."""
    spec = importlib.util.find_spec("torchvision")
    if spec is None or spec.origin is None:
        return []
    source = (Path(spec.origin).parent / "datasets" / "__init__.py").read_text()
    exports = (
        ast.literal_eval(node.value)
        for node in ast.parse(source).body
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id == "__all__"
    )
    return list(next(exports, ()))


def _classes() -> dict[str, type[Any]]:
    """The sets that need no more than a folder, and that open no pickle whose content nobody checked."""
    from torchvision import datasets  # type: ignore[import-untyped]

    exported = {title: getattr(datasets, title) for title in _titles() if title not in NOT_A_SET}
    return {
        name: found
        for name, found in exported.items()
        if inspect.isclass(found)
        and _required(found) == {"root"}
        and (name in VERIFIED or not hasattr(sys.modules[found.__module__], "pickle"))
    }


def _required(published: type[Any]) -> set[str]:
    parameters = list(inspect.signature(published).parameters.values())
    variadic = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return {item.name for item in parameters if item.default is item.empty and item.kind not in variadic}


def _open(published: type[Any], root: Path, part: str) -> Any:
    """torchvision's data set of one part, or None where the set has no such part."""
    parameters = inspect.signature(published).parameters
    if "split" in parameters:
        names: tuple[Any, ...] = SPLITS[part]
        # Sets with names of their own (Places365: "train-standard") have their training part as the default.
        choices = [{"split": name} for name in (*names, parameters["split"].default)[: None if part == "train" else -1]]
    elif "train" in parameters or _takes_train(published):
        choices = [] if part == "validation" else [{"train": part == "train"}]
    else:
        choices = [{}] if part == "train" else []
    return next((found for choice in choices if (found := _try(published, root, choice)) is not None), None)


def _takes_train(published: type[Any]) -> bool:
    """Whether the set hands `train` on to a base class."""
    return any("train" in inspect.signature(base).parameters for base in published.__mro__[1:-1])


def _try(published: type[Any], root: Path, choice: dict[str, Any]) -> Any:
    title = published.__name__
    try:
        return published(root=str(root), **choice)
    except ImportError as error:
        raise BadData(f"torchvision's {title} needs a package that is not installed: {error}") from error
    except Exception as error:  # each set has its own way to say that files are missing
        if isinstance(error, ValueError) and "Unknown value" in str(error):
            return None  # torchvision's verify_str_arg: the set has no part of this name
        reason = str(error).partition("\n")[0]
        raise BadData(
            f"torchvision's {title} cannot be read from {root} ({type(error).__name__}: {reason}); "
            f"where there is a network, torchvision.datasets.{title}(root, download=True) fetches it"
        ) from error


def _class_names(train: Any, part: Part) -> tuple[str, ...]:
    """As torchvision has them, where they fit the labels; else the labels themselves."""
    count = int(part.targets.max()) + 1
    known = getattr(train, "classes", None) or getattr(train, "categories", None) or ()
    names = [name if isinstance(name, str) else ", ".join(map(str, name)) for name in known]
    return tuple(names) if len(set(names)) == count else tuple(map(str, range(count)))
