"""A finite number of random views of each training image, the same in every training: a teacher is asked about each
of them once for a whole search, as it is of images that are never augmented."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from kdsearch.data.randomness import stream

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from kdsearch.data.views import Views
    from kdsearch.settings import AugmentationSettings


@dataclass(frozen=True)
class ViewBank:
    """V views of each of N images; view v of image i is in row i·V + v."""

    views: int
    """V."""
    augmentation: AugmentationSettings
    """What they are views under: resolved, and one that mixes no images."""
    seed: int
    """Of the data, not of a training: trainings share the views."""

    def draw(self, views: Views, images: int) -> NDArray[np.float32]:
        """What chance decides about every row [10, N·V]; the views themselves are made when they are shown."""
        return views.draw(images * self.views, stream(self.seed, "views"))

    def rows(self, images: int, epoch: int, seed: int) -> NDArray[np.int64]:
        """The row that each image shows in an epoch, int64 [N].

        An image goes through its views in turn, beginning with one that the training's seed draws: within V epochs no
        view comes twice, so a training of at most V epochs sees as much as one whose views are drawn anew.
        """
        first = stream(seed, "first view").integers(self.views, size=images)
        return np.arange(images) * self.views + (first + epoch) % self.views
