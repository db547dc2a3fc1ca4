"""scikit-learn's digits: 1,797 real images of handwritten digits, 1×8×8, that come with the library.

Flips and turns change what a digit is (6 and 9, 2 and 5), so none is recommended.
"""

from __future__ import annotations

import gzip
import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from kdsearch.data.source import ArrayPart, Source, refuse_unused
from kdsearch.errors import BadData

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from kdsearch.settings import DataSettings

GREY_LEVELS = 16


def load(settings: DataSettings) -> Source:
    """All images, undivided, their grey levels 0 to 16 scaled to 0 to 255."""
    refuse_unused(settings, "root", "samples", "image_size")
    table = _table()
    grey = table[:, :-1].reshape(-1, 1, 8, 8)
    images = np.round(grey * (255 / GREY_LEVELS)).astype(np.uint8)
    return Source(train=ArrayPart(images, table[:, -1].astype(np.int64)), classes=tuple(map(str, range(10))))


def _table() -> NDArray[np.float64]:
    """float [1797, 65]: 64 grey levels and the digit.

    The file is read from where the library keeps it: importing scikit-learn takes longer than a search's first epoch.
    """
    library = importlib.util.find_spec("sklearn")
    for folder in (library and library.submodule_search_locations) or ():
        path = Path(folder) / "datasets" / "data" / "digits.csv.gz"
        if path.is_file():
            with gzip.open(path, "rt") as file:
                return np.loadtxt(file, delimiter=",")
    raise BadData("scikit-learn, which brings the digits, is not installed: pip install scikit-learn")
