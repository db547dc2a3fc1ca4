"""VGG19 with random weights, where torchvision keeps the published ones."""

from __future__ import annotations

from pathlib import Path

import torch


def write_random_vgg19(home: Path) -> None:
    """Write the file under the folder that `TORCH_HOME` is then set to; in half precision, which is read as well."""
    from torchvision.models import vgg19

    with torch.random.fork_rng():
        torch.manual_seed(0)
        features = vgg19(weights=None).features.state_dict()
    state = {f"features.{name}": tensor.half() for name, tensor in features.items()}
    (home / "hub" / "checkpoints").mkdir(parents=True)
    torch.save(state | {"classifier.0.bias": torch.zeros(4)}, home / "hub" / "checkpoints" / "vgg19-dcbb9e9d.pth")
