"""Where features may be tapped: found by watching one forward pass, whatever the network's family."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Collection
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Literal

from torch import nn

from kdsearch.errors import UserError
from kdsearch.models.trace import Call, first_tensor, trace

if TYPE_CHECKING:
    import torch

MOST_STAGES = 4

# Equal blocks of one resolution are the network itself when they hold at least this share of the parameters:
# transformers over constant tokens hold nearly all in them, the last resolution of a residual network three quarters.
_ONE_RESOLUTION = 0.8

Layout = Literal["BCHW", "BHWC", "BNC"]


@dataclass(frozen=True)
class Stage:
    """A place of a network whose output is worth tapping."""

    name: str
    """Dotted name of the sub-module."""
    channels: int
    size: tuple[int, int]
    """Height and width of the feature; for tokens their number (class token included) and 1."""
    layout: Layout = "BCHW"
    """How the network itself lays the feature out."""
    overwritten: bool = False
    """The network writes over the feature later in the same forward pass: a tap must copy it."""

    @property
    def is_tokens(self) -> bool:
        return self.layout == "BNC"

    def normalise(self, feature: torch.Tensor) -> torch.Tensor:
        """As the network gives it → [B, C, H, W]; tokens [B, N, C] → [B, C, N, 1]."""
        if self.layout == "BNC":
            return feature.transpose(1, 2).unsqueeze(-1)
        return feature.permute(0, 3, 1, 2) if self.layout == "BHWC" else feature

    def restore(self, feature: torch.Tensor) -> torch.Tensor:
        """[B, C, H, W] → as the network gives it: the inverse of `normalise`."""
        if self.layout == "BNC":
            return feature.squeeze(-1).transpose(1, 2)
        return feature.permute(0, 2, 3, 1) if self.layout == "BHWC" else feature


def find_stages(module: nn.Module, example: torch.Tensor) -> tuple[Stage, ...]:
    """One to four places to tap, shallow to deep; the last is what the network pools.

    Networks that shrink their maps or thin out their tokens (convolutional, Swin, MViT) give the last output of each
    resolution, without a resolution that only the stem's one convolution has, and the deepest four of the rest.
    Networks of one resolution (ViT, MLP-Mixer, ConvMixer) give four evenly spaced blocks.

    Args:
        module: the network; left as it was.
        example: images [B, C, H, W] as the network takes them; only the shape matters.

    Raises UserError when the network has no feature maps or tokens.
    """
    root = trace(module, example)
    finder = _Finder(root, example)
    groups = finder.groups()
    blocks = finder.blocks()
    if blocks and finder.are_the_network(blocks, groups):
        chosen = _evenly_spaced(blocks)
    else:
        groups = _without_bare_stem(groups)[-MOST_STAGES:]
        chosen = [call for call in map(finder.last, groups) if call is not None]
    if not chosen:
        raise UserError(f"no features to tap: {type(module).__name__} yields neither feature maps nor tokens")
    return tuple(finder.stage(call) for call in chosen)


def units(root: Call, example: torch.Tensor, chosen: Collection[str] = ()) -> list[Call]:
    """The calls that follow one another on the way through the network.

    A module is opened, and its parts stand in its place, when it takes or gives no feature, shrinks the feature to
    less than half a side (containers of many layers), ends in the global pooling, or holds a `chosen` one.
    """
    found: list[Call] = []
    for call in root.children:
        closed = call.name in chosen or not call.children
        holds_chosen = not closed and any(inner.name in chosen for inner in call.walk())
        if not closed and (holds_chosen or _shrinks_much(call, example) or _pools(call.children[-1], example)):
            found.extend(units(call, example, chosen))
        else:
            found.append(call)
    return found


class _Finder:
    """The calls of one forward pass, and what can be said of them."""

    def __init__(self, root: Call, example: torch.Tensor) -> None:
        self.root = root
        self.example = example
        self.times = Counter(call.name for call in root.walk())
        self.parameters = {call.name: sum(p.numel() for p in call.module.parameters()) for call in root.walk()}

    def groups(self) -> list[list[Call]]:
        """The units up to the global pooling, parted where the area halves or doubles; only those with parameters."""
        groups: list[list[Call]] = []
        first = 0
        for call in units(self.root, self.example):
            area = _area(call.output, self.example)
            if area is None:
                continue
            if _pools(call, self.example):
                break
            if not groups or not first < 2 * area < 4 * first:
                groups.append([])
                first = area
            groups[-1].append(call)
        return [group for group in groups if self._weight(group)]

    def last(self, group: list[Call]) -> Call | None:
        """The last of the group that runs once a pass: a hook on one that runs twice would not know which it sees."""
        return next((call for call in reversed(group) if self.times[call.name] == 1), None)

    def blocks(self) -> list[Call]:
        """The weightiest sequence of equal parts that keep their feature's shape: the blocks of a transformer."""
        sequences: dict[tuple[int, type, torch.Size], list[Call]] = defaultdict(list)
        for parent in self.root.walk():
            for call in parent.children:
                given, feature = call.given, _feature(call.output, self.example)
                if given is None or feature is None or given.shape != feature.shape:
                    continue
                if self.times[call.name] == 1 and self.parameters[call.name]:
                    sequences[id(parent), type(call.module), feature.shape].append(call)
        repeated = [calls for calls in sequences.values() if len(calls) > 1]
        return max(repeated, key=self._weight, default=[])

    def are_the_network(self, blocks: list[Call], groups: list[list[Call]]) -> bool:
        """Whether the blocks, all of one resolution, hold nearly all parameters, or there is no other resolution."""
        return len(groups) <= 1 or self._weight(blocks) >= _ONE_RESOLUTION * sum(map(self._weight, groups))

    def stage(self, call: Call) -> Stage:
        feature = _feature(call.output, self.example)
        assert feature is not None
        layout = _layout(feature, self.example)
        stage = Stage(call.name, 0, (0, 0), layout, overwritten=feature._version != call.version)
        _, channels, height, width = stage.normalise(feature).shape
        return Stage(call.name, channels, (height, width), layout, stage.overwritten)

    def _weight(self, calls: list[Call]) -> int:
        return sum(self.parameters[name] for name in {call.name for call in calls})


def _pools(call: Call, example: torch.Tensor) -> bool:
    """Whether this is the network's global pooling: no parameters, and one position left."""
    if _area(call.output, example) != 1 or isinstance(call.module, nn.MaxPool2d) or _has_parameters(call.module):
        return False
    given = _area(call.given, example)
    return given is not None and (given > 1 or "Adaptive" in type(call.module).__name__)


def _has_parameters(module: nn.Module) -> bool:
    return next(module.parameters(), None) is not None


def _feature(value: object, example: torch.Tensor) -> torch.Tensor | None:
    """The feature maps or tokens of an output, if it holds any: 3 or 4 axes, the batch first."""
    tensor = first_tensor(value)
    if tensor is None or tensor.ndim not in (3, 4) or tensor.shape[0] != example.shape[0]:
        return None
    return tensor


def _layout(feature: torch.Tensor, example: torch.Tensor) -> Layout:
    """Channels first, unless read so the map is less like the image in its proportions."""
    if feature.ndim == 3:
        return "BNC"
    proportion = example.shape[2] / example.shape[3]
    _, first, second, third = feature.shape

    def unlikeness(height: int, width: int) -> float:
        return abs(math.log(height / width / proportion))

    return "BHWC" if unlikeness(first, second) < unlikeness(second, third) else "BCHW"


def _area(value: object, example: torch.Tensor) -> int | None:
    """Positions of a feature: pixels or tokens."""
    feature = _feature(value, example)
    if feature is None or 0 in feature.shape:
        return None
    layout = _layout(feature, example)
    return feature.shape[1] if layout == "BNC" else feature.numel() // (feature.shape[0] * _channels(feature, layout))


def _channels(feature: torch.Tensor, layout: Layout) -> int:
    return feature.shape[1 if layout == "BCHW" else -1]


def _shrinks_much(call: Call, example: torch.Tensor) -> bool:
    given, left = _area(call.given, example), _area(call.output, example)
    # One halving of a side of 2n + 1 leaves n, so a part that halves once leaves at least this.
    return given is None or left is None or given > (2 * math.sqrt(left) + 1) ** 2


def _without_bare_stem(groups: list[list[Call]]) -> list[list[Call]]:
    """Without the first resolution where that has the stem's one convolution only and three others remain."""
    if len(groups) <= 3:
        return groups
    parameters = {id(weight): weight for call in groups[0] for weight in call.module.parameters()}
    layers = sum(weight.ndim > 1 for weight in parameters.values())
    return groups[1:] if layers <= 1 else groups


def _evenly_spaced(calls: list[Call]) -> list[Call]:
    """At most four of the calls, the last among them."""
    count = min(MOST_STAGES, len(calls))
    marks = [round(index * len(calls) / count) for index in range(count + 1)]
    return [calls[end - 1] for _, end in pairwise(marks)]
