"""How a low-resolution picture comes from a high-resolution one: blur, bicubic down-sampling, noise, 8 bits.

Down-sampling is that of the super-resolution literature (MATLAB's imresize): Keys' cubic kernel with a = −1/2, widened
by the scale against aliasing, the picture mirrored at its borders.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.nn import functional

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Low-resolution pixels beyond the border that the widened kernel reaches.
_REACH = 2


@dataclass(frozen=True)
class Degradation:
    """high → low resolution.

    Args:
        scale: how many times smaller the result is.
        blur: σ of the Gaussian in high-resolution pixels, cut off at 3σ; 0 blurs nothing.
        noise: σ of the Gaussian noise in grey levels of 0..255, on the low-resolution picture.
    """

    scale: int
    blur: float = 0.0
    noise: float = 0.0

    @property
    def margin(self) -> int:
        """High-resolution pixels around a region on which its low-resolution pixels depend."""
        return self._radius + _REACH * self.scale

    @property
    def _radius(self) -> int:
        return math.ceil(3 * self.blur)

    def __call__(self, high: torch.Tensor, noise: torch.Tensor | None = None) -> torch.Tensor:
        """uint8 [B, C, H + 2·margin, W + 2·margin] → uint8 [B, C, H / scale, W / scale].

        `noise`: standard normal numbers of the shape of the result; they are multiplied by σ.
        """
        blurred = _blur(high.float(), self.blur, self._radius)
        height, width = (side // self.scale for side in blurred.shape[-2:])
        low = functional.interpolate(blurred, (height, width), mode="bicubic", antialias=True)
        low = low[..., _REACH:-_REACH, _REACH:-_REACH]
        if noise is not None:
            low = low + self.noise * noise
        return (low + 0.5).floor().clamp(0, 255).to(torch.uint8)

    def picture(self, high: NDArray[np.uint8], random: np.random.Generator | None = None) -> NDArray[np.uint8]:
        """A whole picture uint8 [C, H, W], both sides multiples of the scale → uint8 [C, H / scale, W / scale].

        `random` gives the noise, where there is some.
        """
        padded = torch.from_numpy(mirrored(high, 0, 0, high.shape[1:], self.margin))
        return self(padded[None], self.draw((1, *high.shape), random))[0].numpy()

    def draw(self, shape: tuple[int, ...], random: np.random.Generator | None) -> torch.Tensor | None:
        """Noise for high-resolution pictures of `shape` [B, C, H, W]; None where there is none to add."""
        if not self.noise or random is None:
            return None
        low = (*shape[:2], shape[2] // self.scale, shape[3] // self.scale)
        return torch.from_numpy(random.standard_normal(low, dtype=np.float32))


def _blur(images: torch.Tensor, sigma: float, radius: int) -> torch.Tensor:
    """Gaussian blur of [B, C, H, W] without its border of `radius` pixels."""
    if radius == 0:
        return images
    offsets = torch.arange(-radius, radius + 1, dtype=images.dtype, device=images.device)
    kernel = torch.exp(-(offsets**2) / (2 * sigma**2))
    kernel = kernel / kernel.sum()
    count, channels, height, width = images.shape
    maps = count * channels
    # As channels of one picture each on its own, which PyTorch is several times as fast at as at that many pictures.
    rows = functional.conv2d(
        images.reshape(1, maps, height, width), kernel.view(1, 1, -1, 1).expand(maps, 1, -1, 1), groups=maps
    )
    both = functional.conv2d(rows, kernel.view(1, 1, 1, -1).expand(maps, 1, 1, -1), groups=maps)
    return both.view(count, channels, height - 2 * radius, width - 2 * radius)


def mirrored(picture: NDArray[np.uint8], top: int, left: int, size: tuple[int, ...], margin: int) -> NDArray[np.uint8]:
    """The region of `size` at (top, left) of a picture [C, H, W] and a margin; mirrored beyond the picture's border."""
    rows = _mirror(np.arange(top - margin, top + size[0] + margin), picture.shape[1])
    columns = _mirror(np.arange(left - margin, left + size[1] + margin), picture.shape[2])
    if len(rows) == rows[-1] - rows[0] + 1 and len(columns) == columns[-1] - columns[0] + 1:
        return picture[:, rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]  # inside: a view will do
    return picture[:, rows[:, None], columns]


def _mirror(index: NDArray[np.int64], length: int) -> NDArray[np.int64]:
    """… 1 0 | 0 1 … n−1 | n−1 n−2 …: the border pixel stands twice."""
    folded = index % (2 * length)
    return np.minimum(folded, 2 * length - 1 - folded)
