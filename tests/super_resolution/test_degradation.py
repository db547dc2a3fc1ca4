"""Low resolution as the literature makes it: against a matrix written out here, SciPy and PIL."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import gaussian_filter

from kdsearch.data.restoration.degradation import Degradation, mirrored
from tests.super_resolution.conftest import picture


def keys(x: float) -> float:
    """Keys 1981, the cubic convolution kernel with a = −1/2."""
    x = abs(x)
    if x <= 1:
        return 1.5 * x**3 - 2.5 * x**2 + 1
    return -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2 if x < 2 else 0.0


def imresize_matrix(length: int, scale: int) -> NDArray[np.float64]:
    """MATLAB's imresize along one side: [length / scale, length], weights of the widened kernel, border mirrored."""
    matrix = np.zeros((length // scale, length))
    for row in range(length // scale):
        centre = (row + 0.5) * scale - 0.5
        reach = range(math.floor(centre - 2 * scale), math.ceil(centre + 2 * scale) + 1)
        weights = [keys((place - centre) / scale) / scale for place in reach]
        for place, weight in zip(reach, weights, strict=True):
            inside = place % (2 * length)
            matrix[row, min(inside, 2 * length - 1 - inside)] += weight / sum(weights)
    return matrix


def imresize(image: NDArray[np.float64], scale: int) -> NDArray[np.float64]:
    rows, columns = (imresize_matrix(length, scale) for length in image.shape[1:])
    return rows @ image @ columns.T


def agree(found: NDArray[np.uint8], expected: NDArray[np.float64]) -> bool:
    """Equal but for a grey level where the exact value lies between two."""
    distance = np.abs(found - expected.clip(0, 255))
    return bool(distance.max() < 0.5 + 1e-3)


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_down_sampling_is_matlabs_up_to_the_border(scale: int) -> None:
    high = picture(24 * scale, 17 * scale)
    low = Degradation(scale).picture(high)
    assert low.shape == (3, 24, 17)
    assert low.dtype == np.uint8
    assert agree(low, imresize(high.astype(np.float64), scale))


@pytest.mark.parametrize(("scale", "sigma"), [(2, 1.0), (4, 1.5), (3, 2.0)])
def test_the_blur_is_scipys(scale: int, sigma: float) -> None:
    high = picture(12 * scale, 15 * scale, seed=1)
    blurred = gaussian_filter(high.astype(np.float64), sigma, axes=(1, 2), mode="reflect", truncate=3.0)
    assert agree(Degradation(scale, blur=sigma).picture(high), imresize(blurred, scale))


def test_inside_it_is_what_pil_makes_within_its_rounding_between_the_passes() -> None:
    high = picture(96, 128, seed=2)
    small = Image.fromarray(high.transpose(1, 2, 0)).resize((32, 24), Image.Resampling.BICUBIC)
    ours = Degradation(4).picture(high).astype(int)
    assert np.abs(ours - np.asarray(small).transpose(2, 0, 1))[:, 2:-2, 2:-2].max() <= 1


def test_a_flat_picture_stays_as_it_is() -> None:
    flat = np.full((3, 32, 32), 137, dtype=np.uint8)
    assert (Degradation(4, blur=2.0).picture(flat) == 137).all()


def test_a_region_with_its_margin_gives_the_region_of_the_degraded_picture() -> None:
    degradation = Degradation(4, blur=1.3)
    high = picture(96, 120, seed=3)
    whole = degradation.picture(high)
    for top, left in ((0, 0), (32, 40), (64, 88), (16, 0)):
        patch = torch.from_numpy(mirrored(high, top, left, (32, 32), degradation.margin).copy())
        cut = whole[:, top // 4 : top // 4 + 8, left // 4 : left // 4 + 8]
        assert (degradation(patch[None])[0].numpy() == cut).mean() > 0.999


def test_a_picture_is_mirrored_with_its_border_twice() -> None:
    high = np.arange(12, dtype=np.uint8).reshape(1, 3, 4)
    wide = mirrored(high, 0, 0, (3, 4), 5)
    assert (wide == np.pad(high, ((0, 0), (5, 5), (5, 5)), mode="symmetric")).all()


def test_noise_has_the_strength_asked_for_and_comes_from_the_generator_alone() -> None:
    flat = np.full((3, 256, 256), 128, dtype=np.uint8)
    noisy = Degradation(2, noise=5.0)
    one, again, other = (noisy.picture(flat, np.random.default_rng(seed)) for seed in (0, 0, 1))
    assert (one == again).all()
    assert (one != other).any()
    assert one.astype(float).std() == pytest.approx(5.0, rel=0.03)
    assert (Degradation(2).picture(flat, np.random.default_rng(0)) == 128).all()
