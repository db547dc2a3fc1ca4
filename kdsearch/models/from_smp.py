"""Networks of segmentation-models-pytorch, `smp:ARCHITECTURE:ENCODER`, one answer a pixel."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import segmentation_models_pytorch as smp  # type: ignore[import-untyped]
from huggingface_hub import hf_hub_download
from huggingface_hub.errors import LocalEntryNotFoundError
from safetensors.torch import load_file
from segmentation_models_pytorch.encoders import encoders  # type: ignore[import-untyped]

from kdsearch.errors import BadWeights, InvalidSetting, UnknownName
from kdsearch.models.names import SMP

if TYPE_CHECKING:
    from torch import nn

    from kdsearch.models.sources import Normalisation
    from kdsearch.settings import Scalar

TIMM = "tu-"
"""Begins the names of encoders that smp takes from timm."""
IMAGENET = "imagenet"


class SMPSource:
    """One architecture (`unet`, `fpn`, `deeplabv3plus`, …) on one encoder (`resnet34`, `mobilenet_v2`, `tu-NAME`, …).

    Pretrained are the weights of the encoder that smp publishes for ImageNet; the decoder and the head stay random.
    """

    any_size = False  # a small stem would not fit the decoder

    def __init__(self, name: str) -> None:
        """`name` is what follows `smp:`. Raises UnknownName for an architecture or an encoder that there is not."""
        architecture, _, encoder = name.partition(":")
        if architecture.lower() not in smp.MODEL_ARCHITECTURES_MAPPING:
            known, hint = list(smp.MODEL_ARCHITECTURES_MAPPING), f"as in {SMP}unet:resnet34"
            raise UnknownName("architecture of segmentation-models-pytorch", architecture, known, hint)
        if encoder not in encoders and not _is_timm(encoder):
            hint = f"as in {SMP}unet:resnet34, or {TIMM}NAME for one of timm"
            raise UnknownName("encoder of segmentation-models-pytorch", encoder, encoders, hint)
        self.name = f"{SMP}{name}"
        self.architecture = architecture.lower()
        self.encoder = encoder

    def build(
        self, *, outputs: int, channels: int, size: tuple[int, int], arguments: Mapping[str, Scalar]
    ) -> nn.Module:
        """The network with random weights. Raises InvalidSetting for a size that its strides do not divide."""
        network: Any = self._create(outputs, channels, arguments)
        stride = network.encoder.output_stride
        if network.requires_divisible_input_shape and any(side % stride for side in size):
            sides = " or ".join(str(side) for side in sorted({_near(max(size), stride), _near(min(size), stride)}))
            raise InvalidSetting(
                "data.image_size",
                f"{size[0]}×{size[1]}",
                f"{self.name} takes images whose sides are multiples of {stride}, such as {sides}",
            )
        return network  # type: ignore[no-any-return]

    def pretrained(
        self, *, outputs: int, channels: int, size: tuple[int, int], arguments: Mapping[str, Scalar]
    ) -> nn.Module:
        """The same with the encoder's published weights, which must lie in the local cache of Hugging Face's hub."""
        weights = self._cached("model.safetensors")
        network: Any = self.build(outputs=outputs, channels=3, size=size, arguments=arguments)
        try:
            network.encoder.load_state_dict(load_file(weights))
            network.encoder.set_in_channels(channels, pretrained=True)
        except Exception as error:  # a truncated file or other tensors: there is no common error for them
            raise BadWeights(
                f"the pretrained weights of {self.name} in {str(weights)!r} cannot be used: "
                f"{' '.join(str(error).split())[:300]}"
            ) from error
        return network  # type: ignore[no-any-return]

    def normalisation(self) -> Normalisation | None:
        """As the encoder's weights on ImageNet were trained with."""
        config = json.loads(self._cached("config.json").read_text())
        scale = float(max(config.get("input_range", (0, 1))))  # some were trained on images in 0..255
        mean, std = (tuple(value / scale for value in config[key]) for key in ("mean", "std"))
        return mean, std

    def _create(self, outputs: int, channels: int, arguments: Mapping[str, Scalar]) -> Any:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)
                return smp.create_model(
                    self.architecture, self.encoder, None, in_channels=channels, classes=outputs, **arguments
                )
        except (TypeError, ValueError, KeyError) as error:
            why = " ".join(str(error).split())[:300]
            if arguments:
                raise InvalidSetting("arguments", dict(arguments), f"{self.name} does not take them ({why})") from error
            raise InvalidSetting(
                "name", self.name, f"this architecture cannot be built on this encoder: {why}"
            ) from error

    def _cached(self, file: str) -> Path:
        published = encoders.get(self.encoder, {}).get("pretrained_settings", {}).get(IMAGENET)
        if published is None:
            raise BadWeights(f"segmentation-models-pytorch publishes no ImageNet weights for {self.encoder}")
        place, revision = published["repo_id"], published["revision"]
        try:
            return Path(hf_hub_download(place, filename=file, revision=revision, local_files_only=True))
        except LocalEntryNotFoundError as error:
            raise BadWeights(
                f"the pretrained weights of {self.encoder} are not on this machine: where there is a network, "
                f"`hf download {place} --revision {revision}` fetches them"
            ) from error


def _is_timm(encoder: str) -> bool:
    import timm

    return encoder.startswith(TIMM) and timm.is_model(encoder.removeprefix(TIMM).partition(".")[0])


def _near(side: int, stride: int) -> int:
    """The nearest multiple, at least one stride."""
    return max(1, round(side / stride)) * stride
