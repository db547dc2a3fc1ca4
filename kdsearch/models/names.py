"""How a network is written on the command line."""

from __future__ import annotations

TORCHVISION = "torchvision:"
"""Begins the names of torchvision's networks."""

SMP = "smp:"
"""Begins the names of segmentation-models-pytorch's networks, `smp:ARCHITECTURE:ENCODER`."""

SWINIR = "swinir"
"""The published transformer for super-resolution."""

PRETRAINED = "pretrained"
"""The weights that timm or torchvision publish for a network."""


def parse_network(text: str) -> dict[str, str]:
    """`NAME`, `NAME:pretrained` or `NAME:FILE` → the fields `name` and `weights` of NetworkSettings.

    A name may hold a colon itself: `torchvision:resnet18`, `my_net.py:build`, `package.module:build`. What follows
    the name's own colon, or the only one, is taken for weights when it is `pretrained` or holds a `/` or a `.`, as
    files and folders do (`./best` for a folder beside).

    >>> parse_network("resnet101:weights.safetensors")
    {'name': 'resnet101', 'weights': 'weights.safetensors'}
    """
    name, colon, weights = text.rpartition(":")
    if colon and (weights == PRETRAINED or "/" in weights or "." in weights):
        return {"name": name, "weights": weights}
    return {"name": text}
