"""Data sets with three splits, and batches augmented on the device.

    data = load(DataSettings(name="digits"))
    augmentation = resolve(AugmentationSettings(cutmix=0.5), data.augmentation)
    batches = Batches(data, Batching(64, augmentation, seed=0, device=device))

`Batches` is in `kdsearch.data.batches`, evaluation in `kdsearch.data.splits`.

A set is one module of `kdsearch.data.sets` with a function `load(settings)`; other packages add theirs through the
entry-point group `kdsearch.datasets`; a person's own is `file.py:function` or `package.module:function`. Importing
this package imports neither torch nor any data set.
"""

from __future__ import annotations

from kdsearch.data.base import Batch, Batching, DataSet, Facts, Split
from kdsearch.data.finding import names
from kdsearch.data.loading import facts, load, resolve

__all__ = ["Batch", "Batching", "DataSet", "Facts", "Split", "facts", "load", "names", "resolve"]
