"""The task super_resolution: metrics against scikit-image and torchmetrics, tiles against whole pictures."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from skimage.color import rgb2ycbcr
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from torch import nn

from kdsearch import tasks
from kdsearch.data import Batching
from kdsearch.data.base import DataSet
from kdsearch.data.preprocessing import preprocess
from kdsearch.errors import UserError
from kdsearch.settings import AugmentationSettings, NetworkSettings
from kdsearch.tasks.fidelity import BEST_PSNR, luma, psnr, ssim, to_bytes
from kdsearch.tasks.super_resolution import SuperResolution, bicubic
from kdsearch.tasks.tiles import enlarge
from tests.super_resolution.conftest import picture

CPU = torch.device("cpu")
TASK = SuperResolution()


def predictor(network: nn.Module) -> Callable[[torch.Tensor], torch.Tensor]:
    @torch.no_grad()
    def predict(images: torch.Tensor) -> torch.Tensor:
        outputs: torch.Tensor = network(preprocess(images, (0.0,) * 3, (1.0,) * 3, None))
        return outputs

    return predict


def nearest(scale: int) -> Callable[[torch.Tensor], torch.Tensor]:
    return predictor(nn.Upsample(scale_factor=scale))


def noisy_pair() -> tuple[torch.Tensor, torch.Tensor]:
    true = picture(60, 72)
    random = np.random.default_rng(1)
    wrong = (true + 12 * random.standard_normal(true.shape)).clip(0, 255).astype(np.uint8)
    return torch.from_numpy(wrong), torch.from_numpy(true)


def test_luma_is_that_of_bt_601() -> None:
    true = torch.from_numpy(picture(20, 30))
    expected = rgb2ycbcr(true.permute(1, 2, 0).numpy())[..., 0]
    np.testing.assert_allclose(luma(true).numpy(), expected, atol=1e-3)


def test_psnr_and_ssim_are_scikit_images() -> None:
    one, other = map(luma, noisy_pair())
    assert psnr(one, other) == pytest.approx(
        peak_signal_noise_ratio(one.numpy(), other.numpy(), data_range=255), abs=1e-4
    )
    expected = structural_similarity(
        one.numpy(), other.numpy(), data_range=255, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
    )
    assert ssim(one, other) == pytest.approx(expected, abs=1e-4)


def test_psnr_is_torchmetrics() -> None:
    from torchmetrics.functional.image import peak_signal_noise_ratio as reference

    one, other = map(luma, noisy_pair())
    assert psnr(one, other) == pytest.approx(float(reference(one, other, data_range=255.0)), abs=1e-4)


def test_a_perfect_picture_has_finite_values() -> None:
    one = luma(torch.from_numpy(picture(30, 30)))
    assert psnr(one, one) == BEST_PSNR
    assert ssim(one, one) == pytest.approx(1, abs=1e-6)


def test_the_evaluation_is_the_mean_over_whole_pictures_on_luma_without_the_border(
    small_set: Callable[..., DataSet],
) -> None:
    data = small_set(scale=4, patch_size=32)
    found = TASK.evaluate(nearest(4), data.train, CPU)
    values = []
    for low, high in data.train.pairs():  # type: ignore[attr-defined]
        enlarged = low.numpy().repeat(4, 1).repeat(4, 2)
        one, other = (rgb2ycbcr(each.transpose(1, 2, 0))[4:-4, 4:-4, 0] for each in (enlarged, high.numpy()))
        likeness = structural_similarity(
            one, other, data_range=255, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
        )
        error = np.abs(enlarged.astype(float) - high.numpy()).mean() / 255
        values.append((peak_signal_noise_ratio(other, one, data_range=255), likeness, error))
    expected = np.mean(values, axis=0)
    assert [found["psnr"], found["ssim"], found["loss"]] == pytest.approx(expected.tolist(), abs=1e-4)


def test_outputs_are_cut_off_and_rounded_as_a_file_would_hold_them() -> None:
    values = torch.tensor([-0.3, 0.0, 0.5, 0.9999, 1.7])
    assert to_bytes(values).tolist() == [0, 0, 128, 255, 255]


def test_the_baseline_is_the_bicubic_interpolation_of_pil() -> None:
    from PIL import Image

    low = torch.from_numpy(picture(20, 26))
    ours = bicubic(low, 4).int()
    pil = Image.fromarray(low.permute(1, 2, 0).numpy()).resize((104, 80), Image.Resampling.BICUBIC)
    assert (ours - torch.from_numpy(np.asarray(pil).copy()).permute(2, 0, 1)).abs().max() <= 1


class Local(nn.Module):
    """Two 5×5 convolutions and a pixel shuffle: a pixel depends on what is at most 4 away."""

    def __init__(self, scale: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(
            nn.Conv2d(3, 8, 5, padding=2), nn.ReLU(), nn.Conv2d(8, 3 * scale**2, 5, padding=2), nn.PixelShuffle(scale)
        )

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.layers(images)  # type: ignore[no-any-return]


@pytest.mark.parametrize(("height", "width"), [(60, 44), (20, 90), (24, 24), (25, 23), (47, 48)])
@pytest.mark.parametrize("scale", [2, 3])
def test_tiles_give_what_the_whole_picture_gives(scale: int, height: int, width: int) -> None:
    low = torch.from_numpy(picture(height, width))
    shown: list[torch.Size] = []

    def predict(images: torch.Tensor) -> torch.Tensor:
        shown.append(images.shape)
        return network(images)

    network = predictor(Local(scale))
    whole = network(low[None])[0]
    tiled = enlarge(predict, low, scale, tile=24, overlap=4)
    torch.testing.assert_close(tiled, whole, atol=1e-5, rtol=1e-5)
    assert max(max(shape[2:]) for shape in shown) <= 24
    assert (len(shown) > 1) == (max(height, width) > 24)


def test_tiles_that_overlap_too_little_differ() -> None:
    low = torch.from_numpy(picture(60, 44))
    network = predictor(Local(2))
    tiled = enlarge(network, low, 2, tile=24, overlap=1)
    assert not torch.allclose(tiled, network(low[None])[0], atol=1e-3)


def test_the_loss_is_the_mean_absolute_error() -> None:
    outputs, targets = torch.tensor([[[[0.1, 0.6]]]]), torch.tensor([[[[0.4, 0.5]]]])
    assert TASK.loss(outputs, targets).item() == pytest.approx(0.2)


def test_panels_show_the_same_cut_in_every_column(small_set: Callable[..., DataSet]) -> None:
    data = small_set(scale=4, patch_size=32)
    teacher = predictor(nn.Upsample(scale_factor=4, mode="bicubic"))
    panels = TASK.panels(nearest(4), data, CPU, teacher)
    assert list(panels) == ["input", "bicubic", "target", "teacher", "student"]
    assert {picture.shape for column in panels.values() for picture in column} == {(3, 64, 64)}
    assert (panels["input"][0] == panels["student"][0]).all()  # the nearest pixel, twice
    high = data.validation.pair(0)[1].numpy()  # type: ignore[attr-defined]
    assert (panels["target"][0] == high[:, :, :64]).all() or (panels["target"][0] == high[:, :, 4:68]).all()
    assert "teacher" not in TASK.panels(nearest(4), data, CPU)


def test_the_evidence_is_bicubic_interpolation(small_set: Callable[..., DataSet]) -> None:
    data = small_set(scale=2)
    low, high = data.validation.pair(0)  # type: ignore[attr-defined]
    one, other = (luma(each)[2:-2, 2:-2] for each in (bicubic(low, 2), high))
    facts = TASK.evidence(nearest(2), data, CPU).facts
    assert facts == {"bicubic": {"psnr": pytest.approx(psnr(one, other)), "ssim": pytest.approx(ssim(one, other))}}


def test_lpips_is_left_out_where_its_weights_are_not_on_disk(
    small_set: Callable[..., DataSet], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    assert TASK.final_metrics(nearest(2), small_set().test, CPU) == {}
    (tmp_path / "hub" / "checkpoints").mkdir(parents=True)
    (tmp_path / "hub" / "checkpoints" / "alexnet-owt-7be5be79.pth").write_bytes(b"damaged")
    assert TASK.final_metrics(nearest(2), small_set().test, CPU) == {}


def test_lpips_is_torchmetrics_where_its_weights_are_on_disk(
    small_set: Callable[..., DataSet], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torchmetrics.image.lpip import LearnedPerceptualImagePatchSimilarity
    from torchvision.models import alexnet

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    (tmp_path / "hub" / "checkpoints").mkdir(parents=True)
    torch.manual_seed(0)
    state = {name: tensor.half() for name, tensor in alexnet(weights=None).state_dict().items()}
    torch.save(state, tmp_path / "hub" / "checkpoints" / "alexnet-owt-7be5be79.pth")
    data = small_set(scale=2)
    low, high = data.test.pair(0)  # type: ignore[attr-defined]
    metric = LearnedPerceptualImagePatchSimilarity(net_type="alex", normalize=True)
    expected = metric(low.repeat_interleave(2, 1).repeat_interleave(2, 2)[None] / 255, high[None] / 255)
    assert TASK.final_metrics(nearest(2), data.test, CPU) == {"lpips": pytest.approx(float(expected), abs=1e-5)}
    assert float(expected) > 0


def test_the_task_builds_networks_of_the_scale_of_the_data(small_set: Callable[..., DataSet]) -> None:
    for scale, patch in ((2, 16), (3, 18), (4, 32)):
        data = small_set(scale=scale, patch_size=patch)
        network = NetworkSettings(name="attention_sr", arguments={"width": 8, "blocks": 1})
        assert TASK.build(network, data)(torch.zeros(2, 3, 10, 12)).shape == (2, 3, 10 * scale, 12 * scale)


def test_a_network_that_does_not_enlarge_is_refused(small_set: Callable[..., DataSet], tmp_path: Path) -> None:
    (tmp_path / "flat.py").write_text("import torch\ndef build():\n    return torch.nn.Conv2d(3, 3, 3, padding=1)\n")
    with pytest.raises(UserError, match=r"gives \[1, 3, 8, 8\] for one image, and \[1, 3, 16, 16\] is needed"):
        TASK.build(NetworkSettings(name=f"{tmp_path}/flat.py:build"), small_set(scale=2))


def test_the_task_is_found_by_its_name_and_makes_patches(small_set: Callable[..., DataSet]) -> None:
    task = tasks.find("super_resolution")
    assert isinstance(task, SuperResolution)
    made = task.batches(small_set(), Batching(8, AugmentationSettings(flip=True), seed=0, device=CPU))
    assert made.steps == 3
    assert next(iter(made.epoch(0))).targets.shape == (8, 3, 16, 16)
