"""The sections of an experiment: plain, frozen, validated values; no torch, no ray, no file access.

Each section is one block of the experiment's YAML file. Packages take the section they need
(`data.load(DataSettings)`, `models.build(NetworkSettings)`), never the whole experiment.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal, NoReturn, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)

from kdsearch.wording import plain_types

T = TypeVar("T")

_LONGEST_TEXT = 1000


def one_value(value: Any) -> Any:
    """`value` if it is a number, a text, true or false that every reader of a run understands. Raises ValueError."""
    if not isinstance(value, bool | int | float | str):
        raise ValueError("must be one value: a number, a text, true or false")
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError("must be a finite number")
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        raise ValueError("is too large")
    if isinstance(value, str) and ("\0" in value or value != value.encode(errors="ignore").decode()):
        raise ValueError("must be text that a file can hold")
    if isinstance(value, str) and len(value) > _LONGEST_TEXT:
        raise ValueError(f"must be text of at most {_LONGEST_TEXT} characters")
    return value


class FrozenDict(dict[str, T]):
    """A dict that nobody changes."""

    def _refuse(self, *arguments: object, **keywords: object) -> NoReturn:
        raise TypeError("settings are frozen: make a new experiment")

    __setitem__ = __delitem__ = __ior__ = clear = pop = popitem = setdefault = update = _refuse

    def __reduce__(self) -> tuple[type[FrozenDict[T]], tuple[dict[str, T]]]:
        return type(self), (dict(self),)


Scalar = bool | int | float | str
Value = Annotated[Scalar, BeforeValidator(one_value)]
Positive = Annotated[float, Field(gt=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]


class Settings(BaseModel):
    """Base of all sections: immutable, and a key that does not exist is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _no_switch_for_a_number(cls, value: Any, info: ValidationInfo) -> Any:
        """Pydantic takes true for 1."""
        if isinstance(value, bool):
            kinds = set(plain_types(cls.model_fields[str(info.field_name)].annotation))
            if kinds & {int, float} and bool not in kinds:
                raise ValueError("must be a number")
        return value

    @field_validator("*", mode="after")
    @classmethod
    def _of_ordinary_size(cls, value: Any) -> Any:
        return one_value(value) if isinstance(value, int | float | str) else value


class NamedSettings(Settings):
    """A section that may be written as its name alone: `student: resnet8`."""

    @model_validator(mode="before")
    @classmethod
    def _from_name(cls, value: Any) -> Any:
        if not isinstance(value, str | Mapping | NamedSettings):
            raise ValueError("must be a name, or a section with a name")
        return {"name": value} if isinstance(value, str) else value


class DataSettings(NamedSettings):
    """Which data, and which part of its labels is known."""

    name: str = "digits"
    """Built-in set, torchvision set, `file.py:function` or `package.module:function`."""
    root: str | None = None
    """Folder of the files, for sets that are read from disk."""
    label_fraction: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Share of the training samples that is kept, drawn per class."""
    label_noise: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of the training labels that is replaced by another class, uniformly."""
    validation_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.2
    """Share of the training part that becomes validation, where the set ships none."""
    test_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.2
    """Share of the whole that becomes test, where the set ships none."""
    samples: Annotated[int, Field(ge=10)] | None = None
    """Number of training images, for sets that are drawn (shapes); None: the set's own choice."""
    image_size: Annotated[int, Field(ge=4)] | None = None
    """Side in pixels to which images of varying size are brought; None: the set's own choice."""
    scale: Literal[2, 3, 4] | None = None
    """Super-resolution: how many times larger the output is; None: 4."""
    patch_size: Annotated[int, Field(ge=8)] | None = None
    """Super-resolution: side in pixels of the high-resolution training patches; None: the set's own choice."""
    blur: Annotated[float, Field(ge=0, le=10)] | None = None
    """Super-resolution: σ in pixels of the Gaussian blur before down-sampling; None: the set's own choice."""
    noise: Annotated[float, Field(ge=0, le=100)] | None = None
    """Super-resolution: σ in grey levels of the noise on low-resolution images; None: none."""
    in_memory: bool | None = None
    """Hold the set as uint8 tensors; None: when it takes less than 4 GiB."""
    workers: Annotated[int, Field(ge=0)] = 2
    """Loader processes per trial, for sets that are streamed."""
    seed: Seed = 0
    """Seed of splits, label fraction and label noise; apart from the training seed."""


class NetworkSettings(NamedSettings):
    """A network to build: the student, or the teacher."""

    name: str = "resnet8"
    """Own family, timm name, `torchvision:NAME`, `file.py:function` or `package.module:function`."""
    weights: str | None = None
    """None: random; `pretrained`; a .safetensors / state-dict file; or the folder of an export."""
    stem: Literal["auto", "small", "large"] = "auto"
    """`small`: first convolution 3×3 stride 1 and no max-pool; `auto`: small for images up to 64 pixels."""
    input_size: Annotated[int, Field(ge=4)] | None = None
    """Side in pixels to which images are resized first; None: as they are, or 32 where they would vanish."""
    arguments: Annotated[Mapping[str, Value], AfterValidator(FrozenDict)] = FrozenDict()
    """Further keyword arguments of the function that builds the network."""


class TeacherSettings(NetworkSettings):
    """A teacher: weights as given, or trained once before the trials when there are none."""

    epochs: Annotated[int, Field(ge=1)] | None = None
    """Epochs of its training where it comes without weights; None: as many as the student's."""
    optimizer: Literal["sgd", "adam", "adamw"] = "sgd"
    learning_rate: Positive = 0.1
    weight_decay: Annotated[float, Field(ge=0)] = 5e-4
    cache: Annotated[Literal["auto", "off"], BeforeValidator(lambda given: "off" if given is False else given)] = "auto"
    """`auto`: outputs for images that are never augmented are computed once for all trials, if below 4 GiB."""
    cache_dtype: Literal["float32", "float16"] = "float32"
    cache_top_k: Annotated[int, Field(ge=1)] | None = None
    """Keep the k largest logits of an image; the other classes share the rest of the probability evenly. None: all."""
    cache_views: Annotated[int, Field(ge=1)] | None = None
    """Random augmentation: show every image in this many views, the same for all trials, and ask about each view once
    (classification). None: views are drawn anew in each epoch, and the teacher is asked at each step."""

    @model_validator(mode="after")
    def _views_are_kept(self) -> TeacherSettings:
        if self.cache == "off" and self.cache_views is not None:
            raise ValueError(f"cache_views = {self.cache_views} keeps outputs: it needs cache = auto, not off")
        return self


class AugmentationSettings(Settings):
    """Training-time augmentation, batched on the device. None: what the data set recommends."""

    crop: Annotated[int, Field(ge=0)] | None = None
    """Random crop after zero padding by this many pixels."""
    flip: bool | None = None
    """Horizontal flip with probability 1/2."""
    color_jitter: Annotated[float, Field(ge=0, le=1)] | None = None
    """Strength of random brightness, contrast and saturation, each from [1 - x, 1 + x]."""
    cutout: Annotated[int, Field(ge=0)] | None = None
    """Side in pixels of a square that is set to the mean (DeVries & Taylor 2017)."""
    cutmix: Fraction = 0.0
    """Probability that a sample is CutMixed (Yun et al. 2019), λ ~ Beta(1, 1)."""
    mixup: Fraction = 0.0
    """Probability that a sample is mixed up (Zhang et al. 2018), λ ~ Beta(mixup_alpha, mixup_alpha)."""
    mixup_alpha: Positive = 0.2

    @model_validator(mode="after")
    def _one_mix_a_sample(self) -> AugmentationSettings:
        if self.cutmix + self.mixup > 1:
            shares = f"{self.cutmix:g} + {self.mixup:g}"
            raise ValueError(f"cutmix + mixup = {shares} must not exceed 1, since a sample is mixed in one way")
        return self


class TrainingSettings(Settings):
    """How one student is trained."""

    epochs: Annotated[int, Field(ge=1)] = 27
    """The full budget; schedules follow it, whatever rung ends a trial, unless `search.restarts`."""
    batch_size: Annotated[int, Field(ge=2)] = 64
    optimizer: Literal["sgd", "adam", "adamw"] = "sgd"
    learning_rate: Positive = 0.05
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """SGD's momentum; Adam's first beta."""
    nesterov: bool = False
    weight_decay: Annotated[float, Field(ge=0)] = 5e-4
    schedule: Literal["cosine", "step", "constant", "plateau"] = "cosine"
    milestones: tuple[Fraction, ...] = (0.625, 0.75, 0.875)
    """`step`: shares of the budget after which the rate is divided (150/180/210 of 240 epochs)."""
    decay_factor: Annotated[float, Field(gt=0, lt=1)] = 0.1
    """`step` and `plateau`: the factor of one decay."""
    patience: Annotated[int, Field(ge=0)] = 2
    """`plateau`: epochs without improvement before a decay."""
    warmup: Fraction = 0.0
    """Share of the budget over which the rate rises linearly from 0."""
    gradient_clip: Positive | None = None
    """Largest norm of the gradient."""
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    """Autocast type; on a CPU fp32 is used whatever is asked."""
    channels_last: bool | None = None
    """Keep the channels of a pixel side by side in memory; None: on CPUs, where steps take 0.7 to 0.8 of the time. A
    network that this is not safe for on a CPU (`kdsearch.training.layout`) keeps a plane for each channel."""
    compile: bool = False
    """torch.compile the student."""
    averaging: bool = True
    """Score an exponential moving average of the weights; the export holds whichever validated better."""
    checkpoint_every: Annotated[int, Field(ge=1)] = 1
    """Epochs between two checkpoints; more where these take less than `checkpoint_seconds`."""
    checkpoint_seconds: Annotated[float, Field(ge=0)] = 2.0
    """Least time between two checkpoints: epochs of milliseconds would be outweighed by one each."""


class Range(Settings):
    """An interval to search."""

    low: float
    high: float
    log: bool = False
    step: Positive | None = None
    or_zero: bool = False
    """0 stands beside the interval and means that the term is off."""

    @model_validator(mode="after")
    def _is_an_interval(self) -> Range:
        if self.low >= self.high:
            raise ValueError(f"low = {self.low:g} must be below high = {self.high:g}")
        if self.log and self.low <= 0:
            raise ValueError(
                f"a log range cannot touch 0 (low = {self.low:g}); use or_zero: true to let the term be off"
            )
        if self.log and self.step is not None:
            raise ValueError("a log range takes no step")
        if self.step is not None and self.step > self.high - self.low:
            raise ValueError(f"step = {self.step:g} is wider than the range {self.low:g} to {self.high:g}")
        return self


class Choices(Settings):
    """A list of values to choose from."""

    choices: Annotated[tuple[Value, ...], Field(min_length=2)]

    @model_validator(mode="after")
    def _are_different(self) -> Choices:
        seen = set()
        for choice in self.choices:
            if (type(choice), choice) in seen:
                raise ValueError(f"the choice {choice!r} stands twice")
            seen.add((type(choice), choice))
        return self
