"""Distance between pictures as VGG19 sees them. Its weights are taken from disk and never downloaded."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch.nn import functional

from kdsearch.errors import BadWeights
from kdsearch.models.weights import fit, read_state

if TYPE_CHECKING:
    from torch import nn

# The file under which torchvision keeps VGG19's ImageNet weights.
VGG19 = "vgg19-dcbb9e9d.pth"
# Layers of VGG19 up to its last convolution, conv5_4, without the activation that follows it.
_LAYERS = 35
# Mean and standard deviation that the weights were trained with.
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def vgg19_file() -> Path:
    """Where torchvision keeps VGG19's weights (`TORCH_HOME` moves it)."""
    return Path(torch.hub.get_dir()) / "checkpoints" / VGG19


class Perceptual:
    """mean(|f(a) − f(b)|) with f = conv5_4 of VGG19 before its activation, pictures [B, 3, H, W] in [0, 1].

    Layer and distance are those of ESRGAN (Wang et al., ECCV workshops 2018, arXiv 1809.00219). No gradient flows into
    VGG19, nor into the second picture. Not a module: it is neither trained nor saved with a student. Raises BadWeights
    where torchvision's file is missing or damaged.
    """

    def __init__(self) -> None:
        file = vgg19_file()
        if not file.is_file():
            raise BadWeights(
                f"perceptual_weight needs VGG19's weights, and there is no {str(file)!r}: hold perceptual_weight at 0, "
                'or fetch them where there is a network, by python -c "import torchvision; '
                "torchvision.models.vgg19(weights='DEFAULT')\""
            )
        self._network = _features()
        state = {name.removeprefix("features."): tensor for name, tensor in read_state(file).items()}
        fit(self._network, {name: state[name] for name in self._network.state_dict() if name in state}, str(file))

    def __call__(self, pictures: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
        """A scalar, 0 for equal pictures."""
        self._network.to(pictures.device)
        with torch.no_grad():
            wanted = self._network(_normalised(truth))
        return functional.l1_loss(self._network(_normalised(pictures)).float(), wanted.float())


def _features() -> nn.Sequential:
    from torchvision.models import vgg19  # type: ignore[import-untyped]

    with torch.device("meta"):  # no time is spent on random weights that are replaced at once
        layers: nn.Sequential = vgg19(weights=None).features[:_LAYERS]
    return layers.to_empty(device="cpu").eval().requires_grad_(False)


def _normalised(pictures: torch.Tensor) -> torch.Tensor:
    mean, std = (torch.tensor(values, device=pictures.device).view(-1, 1, 1) for values in (_MEAN, _STD))
    return (pictures - mean) / std
