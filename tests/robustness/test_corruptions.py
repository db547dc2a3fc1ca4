"""Each corruption against another library, a value counted by hand, or what is known of its noise."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import ndimage  # type: ignore[import-untyped]
from skimage import color, data, filters  # type: ignore[import-not-found, import-untyped, unused-ignore]

from kdsearch.data.corruptions import CORRUPTIONS, SEVERITIES, corrupt
from kdsearch.data.corruptions.blur import defocus_blur, gaussian, glass_blur, trail, zoomed
from kdsearch.data.corruptions.digital import _boxed, contrast, elastic_transform, jpeg_compression, pixelate
from kdsearch.data.corruptions.noise import gaussian_noise, impulse_noise, shot_noise
from kdsearch.data.corruptions.weather import brightness, fog, frost, plasma, snow
from kdsearch.errors import UnknownName


def photograph(side: int = 32) -> torch.Tensor:
    """float [1, 3, side, side]."""
    picture = Image.fromarray(data.astronaut()[:256, 128:384]).resize((side, side), Image.Resampling.BOX)
    return torch.from_numpy(np.asarray(picture) / 255).permute(2, 0, 1).float()[None]


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def grey(value: float, count: int = 4, side: int = 64) -> torch.Tensor:
    return torch.full((count, 3, side, side), value)


def test_there_are_the_fifteen_of_the_paper() -> None:
    assert list(CORRUPTIONS) == [
        *("gaussian_noise", "shot_noise", "impulse_noise"),
        *("defocus_blur", "glass_blur", "motion_blur", "zoom_blur"),
        *("snow", "frost", "fog", "brightness"),
        *("contrast", "elastic_transform", "pixelate", "jpeg_compression"),
    ]


@pytest.mark.parametrize("name", CORRUPTIONS)
@pytest.mark.parametrize(("channels", "side"), [(3, 32), (1, 8), (3, 48)])
def test_a_corruption_is_a_function_of_its_seed_and_stronger_with_severity(name: str, channels: int, side: int) -> None:
    images = (photograph(side) * 255).to(torch.uint8)[:, :channels].repeat(4, 1, 1, 1)
    changes = []
    for severity in SEVERITIES:
        corrupted = corrupt(images, name, severity, seed=3)
        assert corrupted.dtype == torch.uint8
        assert corrupted.shape == images.shape
        assert torch.equal(corrupted, corrupt(images, name, severity, seed=3))
        changes.append(float((corrupted.float() - images.float()).square().mean()))
    if name not in {"elastic_transform", "glass_blur"} or (name == "glass_blur" and side == 32):
        assert changes[4] > changes[0]  # the published strengths of the elastic map do not rise in this measure
    if name not in {"defocus_blur", "contrast", "brightness", "zoom_blur", "pixelate", "jpeg_compression"}:
        assert not torch.equal(corrupt(images, name, 5, seed=3), corrupt(images, name, 5, seed=4))
        assert not torch.equal(corrupt(images, name, 5, seed=3), corrupt(images, name, 5, seed=3, batch=1))


def test_an_unknown_one_is_refused() -> None:
    with pytest.raises(UnknownName, match="fogg"):
        corrupt(torch.zeros(1, 3, 8, 8, dtype=torch.uint8), "fogg", 1, 0)


def test_noise_has_the_spread_that_its_severity_says() -> None:
    images = grey(0.5)
    for severity, deviation in ((1, 0.04), (5, 0.10)):
        assert float(gaussian_noise(images, severity, generator()).std()) == pytest.approx(deviation, rel=0.02)
    for severity, photons in ((1, 500), (5, 50)):  # of a Poisson count the variance is the mean
        counts = shot_noise(images, severity, generator()) * photons
        assert float(counts.mean()) == pytest.approx(0.5 * photons, rel=0.01)
        assert float(counts.var()) == pytest.approx(0.5 * photons, rel=0.03)
    salted = impulse_noise(images, 5, generator())
    assert float((salted == 0).float().mean()) == pytest.approx(0.035, rel=0.1)
    assert float((salted == 1).float().mean()) == pytest.approx(0.035, rel=0.1)


@pytest.mark.parametrize("sigma", [0.4, 1.0, 2.5])
def test_gaussian_blur_is_that_of_scikit_image(sigma: float) -> None:
    image = photograph()
    expected = filters.gaussian(image[0].numpy(), sigma=(0, sigma, sigma), mode="nearest", truncate=4)
    torch.testing.assert_close(gaussian(image, sigma)[0], torch.from_numpy(expected), atol=1e-5, rtol=0)


def test_defocus_is_a_correlation_with_the_disc_of_the_published_code() -> None:
    axis = np.arange(-8, 9)
    disc = (axis[:, None] ** 2 + axis**2 <= 1.5**2).astype(float)
    near = np.exp(-0.5 * (np.arange(-1, 2) / 0.1) ** 2)
    kernel = ndimage.correlate(disc / disc.sum(), np.outer(near, near) / near.sum() ** 2, mode="mirror")
    image = photograph()
    expected = np.stack([ndimage.correlate(channel, kernel, mode="mirror") for channel in image[0].double().numpy()])
    found = defocus_blur(image, 5, generator())[0].double()
    torch.testing.assert_close(found, torch.from_numpy(expected), atol=1e-5, rtol=0)


def test_glass_moves_values_by_a_pixel_and_invents_none_where_it_does_not_blur() -> None:
    values = torch.arange(32 * 32).view(1, 1, 32, 32).float()
    moved = glass_blur(values, 1, generator())  # σ = 0.05: no blur
    assert set(moved.unique().tolist()) <= set(values.unique().tolist())
    assert not torch.equal(moved, values)
    assert torch.equal(moved[..., :2, :], values[..., :2, :])  # rows 0 and 1 are never written to


def test_a_trail_lies_in_its_direction_and_keeps_the_light() -> None:
    image = torch.zeros(3, 1, 33, 33)
    image[:, :, 16, 16] = 1
    found = trail(image, 4, 2, torch.tensor([0.0, 90.0, 45.0]))[:, 0]
    torch.testing.assert_close(found.sum((1, 2)), torch.ones(3))
    weights = torch.exp(-0.5 * (torch.arange(9) / 2.0) ** 2)
    weights /= weights.sum()
    torch.testing.assert_close(found[0, 16, 8:17], weights.flip(0))  # the light comes from the right
    torch.testing.assert_close(found[1, 8:17, 16], weights.flip(0))
    rows, columns = found[2].nonzero().T
    assert torch.equal(rows, columns)


@pytest.mark.parametrize("factor", [1.01, 1.06, 1.25])
def test_zoom_is_that_of_scipy(factor: float) -> None:
    image = photograph()
    inner = int(np.ceil(32 / factor))
    first = (32 - inner) // 2
    cut = image[0, :, first : first + inner, first : first + inner].numpy()
    large = ndimage.zoom(cut, (1, factor, factor), order=1)
    if large.shape[1] >= 32:
        trim = (large.shape[1] - 32) // 2
        expected = large[:, trim : trim + 32, trim : trim + 32]
        torch.testing.assert_close(zoomed(image, factor)[0], torch.from_numpy(expected), atol=1e-5, rtol=0)
    assert zoomed(image, factor).shape == image.shape


def test_brightness_raises_the_value_of_hsv() -> None:
    image = photograph()
    hsv = color.rgb2hsv(image[0].permute(1, 2, 0).double().numpy())
    hsv[..., 2] = np.clip(hsv[..., 2] + 0.3, 0, 1)
    expected = torch.from_numpy(color.hsv2rgb(hsv)).permute(2, 0, 1)
    torch.testing.assert_close(brightness(image, 5, generator())[0].double(), expected, atol=1e-5, rtol=0)
    assert torch.all(brightness(torch.zeros(1, 3, 4, 4), 1, generator()) == 0.05)


def test_contrast_keeps_each_channels_mean_and_shrinks_its_spread() -> None:
    image = photograph()
    found = contrast(image, 4, generator())
    torch.testing.assert_close(found.mean((2, 3)), image.mean((2, 3)))
    torch.testing.assert_close(found.std((2, 3)), 0.3 * image.std((2, 3)))


@pytest.mark.parametrize("size", [(30, 28), (20, 24), (7, 9), (32, 32)])
def test_boxes_are_those_of_pillow(size: tuple[int, int]) -> None:
    channel = np.random.default_rng(0).random((32, 32)).astype(np.float32)
    expected = np.asarray(Image.fromarray(channel).resize(size[::-1], Image.Resampling.BOX))
    found = _boxed(torch.from_numpy(channel)[None, None], size)[0, 0]
    torch.testing.assert_close(found, torch.from_numpy(expected), atol=1e-5, rtol=0)
    back = np.asarray(Image.fromarray(expected).resize((32, 32), Image.Resampling.BOX))
    torch.testing.assert_close(_boxed(found[None, None], (32, 32))[0, 0], torch.from_numpy(back), atol=1e-5, rtol=0)


def test_pixelate_repeats_values() -> None:
    assert len(pixelate(photograph(), 5, generator())[0, 0].unique()) <= 20 * 20


def test_jpeg_is_that_of_pillow_and_grey_stays_grey() -> None:
    image = photograph(64)
    pixels = (image[0].permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=40)
    expected = torch.from_numpy(np.asarray(Image.open(file)).astype(np.float32) / 255)
    torch.testing.assert_close(jpeg_compression(image, 5, generator())[0].permute(1, 2, 0), expected)
    assert jpeg_compression(image[:, :1], 1, generator()).shape == (1, 1, 64, 64)


def test_a_plain_ground_stays_plain_under_the_elastic_map_and_edges_move() -> None:
    torch.testing.assert_close(elastic_transform(grey(0.3), 5, generator()), grey(0.3))
    half = torch.zeros(8, 1, 32, 32)
    half[..., 16:] = 1
    found = elastic_transform(half, 1, generator())
    borders = (found[:, 0, 16] < 0.5).sum(1).float()
    assert float(borders.std()) > 0.3
    assert float((borders - 16).abs().max()) <= 6  # three points move by up to 0.08 · 32 pixels


def test_clouds_fill_the_unit_interval_and_are_smoother_with_a_larger_decay() -> None:
    rough, smooth = (plasma(8, (32, 32), decay, generator()) for decay in (1.75, 3))
    for clouds in (rough, smooth):
        assert torch.all(clouds.amin((1, 2)) == 0)
        assert torch.all(clouds.amax((1, 2)) == 1)
    steps = [float((clouds[:, 1:] - clouds[:, :-1]).abs().mean()) for clouds in (rough, smooth)]
    assert steps[0] > 1.2 * steps[1]


def test_snow_and_frost_make_dark_images_lighter_and_fog_takes_contrast() -> None:
    dark = grey(0.1)
    for weather in (snow, frost):
        assert float(weather(dark, 3, generator()).clamp(0, 1).mean()) > 0.15
    image = photograph().repeat(8, 1, 1, 1)
    foggy = fog(image, 5, generator())
    torch.testing.assert_close(fog(image * 0 + 0.5, 5, generator()).amax((1, 2, 3)), torch.full((8,), 0.5))
    spread = [float(pictures.std((2, 3)).mean()) for pictures in (image, foggy)]
    assert spread[1] < spread[0]
