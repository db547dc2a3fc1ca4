"""Training images as a network sees them: augmented by what was drawn, resized, normalised."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from kdsearch.data.augmentation import color_jitter_, crop_and_flip, cutout_
from kdsearch.data.draws import draw_views
from kdsearch.data.preprocessing import normalise_, resize, to_unit

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from kdsearch.data.base import DataSet
    from kdsearch.data.draws import ViewDraws
    from kdsearch.settings import AugmentationSettings


class Views:
    """Cropped and flipped, jittered, resized, normalised, cut out: views of images, each by itself.

    Args:
        data: of whose images.
        augmentation: resolved; pixels in it are those of the data set's images.
        size: height and width of the network's input.
        device: where the views lie.
    """

    def __init__(
        self, data: DataSet, augmentation: AugmentationSettings, size: tuple[int, int], device: torch.device
    ) -> None:
        self._augmentation = augmentation
        self._size = size
        self._cutout = round((augmentation.cutout or 0) * min(size) / min(data.size))
        self._mean, self._std = (
            torch.tensor(values, dtype=torch.float32, device=device) for values in (data.mean, data.std)
        )

    def draw(self, views: int, random: np.random.Generator) -> NDArray[np.float32]:
        """What chance decides about so many views: a column of [10, V] is one."""
        return draw_views(self._augmentation, self._size, self._cutout, views, random)

    def of(self, images: torch.Tensor, draws: ViewDraws) -> torch.Tensor:
        """uint8 [V, C, H, W] on the device → normalised float [V, C, *size]."""
        settings = self._augmentation
        if settings.crop or settings.flip:
            images = crop_and_flip(images, draws.top, draws.left, draws.flip, settings.crop or 0)
        views = to_unit(images)
        if settings.color_jitter:
            views = color_jitter_(views, draws.brightness, draws.contrast, draws.saturation)
        views = normalise_(resize(views, self._size), self._mean, self._std)
        return cutout_(views, draws.box) if self._cutout else views
