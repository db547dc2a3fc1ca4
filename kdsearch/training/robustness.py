"""How a classifier fares beyond its clean split: corrupted images, attacks, and how much its confidence is worth."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.nn import functional

from kdsearch.data.corruptions import CORRUPTIONS, SEVERITIES, corrupt
from kdsearch.data.preprocessing import to_unit
from kdsearch.data.randomness import torch_seed
from kdsearch.data.splits import evaluation_batches
from kdsearch.errors import BadData

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from kdsearch.data.base import Split

    Pair = tuple[torch.Tensor, torch.Tensor]

Network = Callable[[torch.Tensor], torch.Tensor]
"""Images float [B, C, H, W] in [0, 1] → logits [B, K], differentiable, in eval mode."""

BATCH = 256
BINS = 15
PGD_STEPS = 10


def corruption_accuracy(network: Network, split: Split, device: torch.device, seed: int = 0) -> dict[str, list[float]]:
    """Accuracy under each of the 15 corruptions at severities 1 to 5.

    Raises BadData for images that have neither 1 nor 3 channels.
    """
    (image,) = split.fetch([torch.tensor([0])])
    if image.shape[1] not in (1, 3):
        raise BadData(f"the images have {image.shape[1]} channels, and the corruptions are for 1 or 3")
    found: dict[str, list[float]] = {}
    for name in CORRUPTIONS:
        found[name] = []
        for severity in SEVERITIES:
            batches = enumerate(evaluation_batches(split, BATCH, device))
            corrupted = ((corrupt(images, name, severity, seed, place), labels) for place, (images, labels) in batches)
            found[name].append(_accuracy(network, corrupted, len(split)))
    return found


def published_accuracy(network: Network, root: Path, device: torch.device) -> dict[str, list[float]]:
    """Accuracy on the published files of CIFAR-10-C or CIFAR-100-C, at severities 1 to 5.

    Args:
        root: the folder with `labels.npy` [5N] and one `NAME.npy` uint8 [5N, 32, 32, 3] for each corruption, severity
            after severity. What else lies there is passed over.

    Raises BadData when a file is missing or has another shape.
    """
    labels = torch.from_numpy(_read(root / "labels.npy", None).astype(np.int64))
    each = len(labels) // len(SEVERITIES)
    files = {name: _read(root / f"{name}.npy", len(labels)) for name in CORRUPTIONS}
    parts = [slice(place * each, (place + 1) * each) for place in range(len(SEVERITIES))]
    return {
        name: [_accuracy(network, _stored(images[part], labels[part], device), each) for part in parts]
        for name, images in files.items()
    }


def fgsm_accuracy(network: Network, split: Split, device: torch.device, epsilon: float) -> float:
    """Accuracy after one step of ε along the sign of the gradient (Goodfellow et al., ICLR 2015), in [0, 1]."""
    attacked = ((_fgsm(network, images, labels, epsilon), labels) for images, labels in _units(split, device))
    return _accuracy_of_units(network, attacked, len(split))


def pgd_accuracy(network: Network, split: Split, device: torch.device, epsilon: float, seed: int = 0) -> float:
    """Accuracy after projected gradient descent (Madry et al., ICLR 2018): 10 steps of ε/4 from a random start.

    The ball is that of the largest norm with radius ε, cut to [0, 1].
    """
    generator = torch.Generator(device)
    generator.manual_seed(torch_seed(seed, "pgd"))
    attacked = ((_pgd(network, images, labels, epsilon, generator), labels) for images, labels in _units(split, device))
    return _accuracy_of_units(network, attacked, len(split))


def calibration(network: Network, split: Split, device: torch.device) -> dict[str, float]:
    """How far confidence is from accuracy, and what one temperature would mend (Guo et al., ICML 2017).

    `ece`, the expected calibration error over 15 bins; `temperature`, which minimises the cross-entropy of the split;
    `ece_after`: with temperatures that each half of the split was given by the other half, so that none was fitted to
    the images it is judged by; `loss`, the mean cross-entropy.
    """
    with torch.no_grad():
        answers = [(network(images).float(), labels) for images, labels in _units(split, device)]
    logits, labels = (torch.cat(parts).cpu() for parts in zip(*answers, strict=True))
    halves = torch.arange(len(labels)) % 2 == 0
    scaled = torch.empty_like(logits)
    for half in (halves, ~halves):
        scaled[half] = logits[half] / temperature(logits[~half], labels[~half])
    return {
        "ece": expected_calibration_error(logits, labels),
        "ece_after": expected_calibration_error(scaled, labels),
        "temperature": temperature(logits, labels),
        "loss": float(functional.cross_entropy(logits, labels)),
    }


def temperature(logits: torch.Tensor, labels: torch.Tensor) -> float:
    """T in [0.05, 20] with the least cross-entropy of logits [N, K] / T; 1 without any."""
    if not len(labels):
        return 1.0
    from scipy.optimize import minimize_scalar  # type: ignore[import-untyped]

    def loss(log_temperature: float) -> float:
        return float(functional.cross_entropy(logits.double() / np.exp(log_temperature), labels))

    return float(np.exp(minimize_scalar(loss, bounds=(np.log(0.05), np.log(20)), method="bounded").x))


def expected_calibration_error(logits: torch.Tensor, labels: torch.Tensor) -> float:
    """The mean distance between confidence and accuracy over 15 bins of equal width, weighted by their images."""
    confidence, guessed = logits.double().softmax(1).max(1)
    right = (guessed == labels).double()
    place = (confidence * BINS).ceil().long().clamp(1, BINS) - 1  # a bin holds its upper end
    apart = torch.zeros(BINS, dtype=torch.float64).index_add(0, place, confidence - right)
    return float(apart.abs().sum() / len(labels))


def summary(accuracies: dict[str, list[float]]) -> dict[str, Any]:
    """The accuracies of corruptions with their means: over all of them, and at each severity."""
    table = np.array(list(accuracies.values()))
    return {"mean": float(table.mean()), "by_severity": table.mean(0).tolist(), "by_corruption": accuracies}


def _units(split: Split, device: torch.device) -> Iterator[Pair]:
    """Images float in [0, 1] and labels of the whole split."""
    for images, labels in evaluation_batches(split, BATCH, device):
        yield to_unit(images), labels


def _fgsm(network: Network, images: torch.Tensor, labels: torch.Tensor, epsilon: float) -> torch.Tensor:
    return (images + epsilon * _uphill(network, images, labels)).clamp(0, 1)


def _pgd(
    network: Network, images: torch.Tensor, labels: torch.Tensor, epsilon: float, generator: torch.Generator
) -> torch.Tensor:
    start = torch.rand(images.shape, generator=generator, device=images.device) * 2 - 1
    moved = (images + epsilon * start).clamp(0, 1)
    for _ in range(PGD_STEPS):
        moved = moved + epsilon / 4 * _uphill(network, moved, labels)
        moved = torch.clamp(torch.minimum(torch.maximum(moved, images - epsilon), images + epsilon), 0, 1)
    return moved


def _uphill(network: Network, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """The sign of the gradient of the cross-entropy in the images."""
    images = images.detach().requires_grad_(True)
    with torch.enable_grad():
        loss = functional.cross_entropy(network(images).float(), labels, reduction="sum")
        (gradient,) = torch.autograd.grad(loss, images)
    return gradient.sign()


@torch.no_grad()
def _accuracy_of_units(network: Network, batches: Iterator[Pair], samples: int) -> float:
    right = sum(int((network(images).argmax(1) == labels).sum()) for images, labels in batches)
    return right / samples


def _accuracy(network: Network, batches: Iterator[Pair], samples: int) -> float:
    """Of images uint8."""
    return _accuracy_of_units(network, ((to_unit(images), labels) for images, labels in batches), samples)


def _stored(images: Any, labels: torch.Tensor, device: torch.device) -> Iterator[Pair]:
    """Batches of images [N, H, W, C] on disk."""
    for first in range(0, len(labels), BATCH):
        batch = torch.from_numpy(np.array(images[first : first + BATCH])).permute(0, 3, 1, 2)
        yield batch.to(device), labels[first : first + BATCH].to(device)


def _read(file: Path, count: int | None) -> Any:
    """A file of the published sets, mapped into memory."""
    try:
        array = np.load(file, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise BadData(
            f"{file} cannot be read ({error}): give the folder of the unpacked CIFAR-10-C or -100-C"
        ) from None
    wanted = (1, array.shape[:1]) if count is None else (4, (count, 32, 32, 3))
    if (array.ndim, array.shape[:1] if count is None else array.shape) != wanted or len(array) % len(SEVERITIES):
        raise BadData(
            f"{file} has shape {list(array.shape)}, and 5 severities of labels or of images 32×32×3 belong there"
        )
    return array
