"""Networks: built by name, given weights, tapped for features.

What stands here is loaded on first use: reading a name from the command line needs no torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kdsearch.models.builder import build as build
    from kdsearch.models.chain import remaining as remaining
    from kdsearch.models.cost import count_parameters as count_parameters
    from kdsearch.models.cost import multiply_adds as multiply_adds
    from kdsearch.models.exported import from_export as from_export
    from kdsearch.models.names import parse_network as parse_network
    from kdsearch.models.sizes import resolve_size as resolve_size
    from kdsearch.models.speed import latency as latency
    from kdsearch.models.stages import Stage as Stage
    from kdsearch.models.stages import find_stages as find_stages
    from kdsearch.models.taps import Taps as Taps
    from kdsearch.models.weights import load_weights as load_weights
    from kdsearch.models.weights import normalisation as normalisation

_HOME = {
    "build": "builder",
    "remaining": "chain",
    "count_parameters": "cost",
    "multiply_adds": "cost",
    "from_export": "exported",
    "latency": "speed",
    "parse_network": "names",
    "resolve_size": "sizes",
    "Stage": "stages",
    "find_stages": "stages",
    "Taps": "taps",
    "load_weights": "weights",
    "normalisation": "weights",
}
__all__ = list(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
