"""CIFAR-10: 32×32 colour images of 10 classes, 50,000 to train on and 10,000 to test."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kdsearch.data import cifar

if TYPE_CHECKING:
    from kdsearch.data.source import Source
    from kdsearch.settings import DataSettings


def load(settings: DataSettings) -> Source:
    """The published archive, unpacked in `settings.root`."""
    return cifar.load(settings, "CIFAR10")
