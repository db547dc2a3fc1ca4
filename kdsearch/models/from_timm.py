"""Networks of timm, by name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import timm
from timm.models import PretrainedCfg

from kdsearch.errors import BadWeights, InvalidSetting, UnknownName

if TYPE_CHECKING:
    from torch import nn

    from kdsearch.models.sources import Normalisation
    from kdsearch.settings import Scalar

# Names of the literature that timm has under another.
_ALIASES = {"mobilenetv2": "mobilenetv2_100"}

_HINT = "(or torchvision:NAME, path/file.py:function, or the folder of an export written with a /)"


class TimmSource:
    """One of timm's networks; a tag (`resnet50.a1_in1k`) says which of its published weights are meant."""

    def __init__(self, name: str, also: Iterable[str] = ()) -> None:
        """`also`: further names that exist, for the nearest one in an error."""
        self.name = _ALIASES.get(name, name)
        architecture, _, tag = self.name.partition(".")
        if not timm.is_model(architecture):
            raise UnknownName("network", name, {*also, *_ALIASES, *timm.list_models()}, _HINT)
        if tag and self.name not in timm.list_pretrained(f"{architecture}.*"):
            raise UnknownName("pretrained network", name, timm.list_pretrained(f"{architecture}.*"))
        self.config = timm.get_pretrained_cfg(self.name) or PretrainedCfg()
        self.any_size = not self.config.fixed_input_size

    def build(
        self, *, outputs: int, channels: int, size: tuple[int, int], arguments: Mapping[str, Scalar]
    ) -> nn.Module:
        return self._create(outputs, channels, size, arguments, pretrained=False)

    def pretrained(
        self, *, outputs: int, channels: int, size: tuple[int, int], arguments: Mapping[str, Scalar]
    ) -> nn.Module:
        if not self.config.has_weights:
            raise BadWeights(f"timm publishes no pretrained weights for {self.name}")
        try:
            return self._create(outputs, channels, size, arguments, pretrained=True)
        except Exception as error:  # network, cache, file or fit: the library has no common error for them
            why = " ".join(str(error).split()) or type(error).__name__
            raise BadWeights(
                f"the pretrained weights of {self.name} cannot be had: {why[:300]}; a local file can be given instead"
            ) from error

    def normalisation(self) -> Normalisation | None:
        if not self.config.mean or not self.config.std:
            return None
        return tuple(self.config.mean), tuple(self.config.std)

    def _create(
        self, outputs: int, channels: int, size: tuple[int, int], arguments: Mapping[str, Scalar], *, pretrained: bool
    ) -> nn.Module:
        given: dict[str, Any] = {"num_classes": outputs, "in_chans": channels}
        if self.config.fixed_input_size:
            given["img_size"] = size
        try:
            return timm.create_model(self.name, pretrained=pretrained, **(given | dict(arguments)))
        except TypeError as error:
            if arguments and "argument" in str(error):
                raise InvalidSetting(
                    "arguments", dict(arguments), f"{self.name} does not take them ({error})"
                ) from error
            raise
