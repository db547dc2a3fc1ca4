"""Attacks on a linear classifier, whose answer to them is known; calibration of answers whose temperature is known."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from kdsearch.data.corruptions import CORRUPTIONS, corrupt
from kdsearch.data.splits import MemorySplit
from kdsearch.errors import BadData, UserError
from kdsearch.experiment import Experiment
from kdsearch.training import robustness
from kdsearch.training.evaluation import Questions, evaluate_export, open_export
from kdsearch.training.single import train_student

CPU = torch.device("cpu")
SIDE = 6


@pytest.fixture(scope="module")
def split() -> MemorySplit:
    """Images whose pixels stay clear of 0 and 1 and whose class is the sign of a weighted sum of them."""
    random = np.random.default_rng(0)
    images = torch.from_numpy(random.integers(100, 156, (400, 1, SIDE, SIDE)).astype(np.uint8))
    return MemorySplit(images, (margins(images) > 0).long())


def weights() -> torch.Tensor:
    return torch.linspace(-1, 1, SIDE * SIDE)


def margins(images: torch.Tensor) -> torch.Tensor:
    return (images.float() / 255 - 0.5).flatten(1) @ weights()


def linear(images: torch.Tensor) -> torch.Tensor:
    """Logits of classes 0 and 1, images being in [0, 1]."""
    margin = (images - 0.5).flatten(1) @ weights()
    return torch.stack([-margin, margin], 1)


@pytest.mark.parametrize("epsilon", [0.005, 0.01, 0.02])
def test_an_attack_on_a_linear_classifier_succeeds_where_the_margin_is_below_epsilon_times_the_sum_of_weights(
    split: MemorySplit, epsilon: float
) -> None:
    expected = float((margins(split.images).abs() > epsilon * weights().abs().sum()).float().mean())
    assert 0 < expected < 1
    assert robustness.fgsm_accuracy(linear, split, CPU, epsilon) == pytest.approx(expected, abs=0.003)
    assert robustness.pgd_accuracy(linear, split, CPU, epsilon) == pytest.approx(expected, abs=0.003)


def test_an_attack_stays_within_its_ball_and_within_the_colours(split: MemorySplit) -> None:
    images = torch.rand(8, 1, SIDE, SIDE)
    labels = torch.zeros(8, dtype=torch.int64)
    generator = torch.Generator().manual_seed(0)
    for attacked in (
        robustness._fgsm(linear, images, labels, 0.1),
        robustness._pgd(linear, images, labels, 0.1, generator),
    ):
        assert float((attacked - images).abs().max()) <= 0.1 + 1e-6
        assert float(attacked.min()) >= 0
        assert float(attacked.max()) <= 1


def test_an_attack_leaves_no_gradient_behind(split: MemorySplit) -> None:
    layer = torch.nn.Linear(SIDE * SIDE, 2)
    robustness.fgsm_accuracy(lambda images: layer(images.flatten(1)), split, CPU, 0.01)
    assert layer.weight.grad is None


def test_the_calibration_error_of_two_bins_by_hand() -> None:
    # Two confidences, 0.9 of four images of which three are right, and 0.6 of six of which three are.
    probabilities = torch.tensor([0.9] * 4 + [0.6] * 6)
    logits = torch.stack([probabilities.log(), (1 - probabilities).log()], 1)
    labels = torch.tensor([0, 0, 0, 1, 0, 0, 0, 1, 1, 1])
    expected = 0.4 * abs(0.9 - 0.75) + 0.6 * abs(0.6 - 0.5)
    assert robustness.expected_calibration_error(logits, labels) == pytest.approx(expected, abs=1e-6)


def test_the_temperature_of_overconfident_answers_is_found() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(20_000, 5, generator=generator) * 2
    labels = torch.multinomial(logits.softmax(1), 1, generator=generator)[:, 0]
    assert robustness.temperature(logits * 3, labels) == pytest.approx(3, rel=0.03)
    assert robustness.temperature(logits, labels) == pytest.approx(1, rel=0.03)


def test_calibration_judges_no_image_by_a_temperature_that_was_fitted_to_it() -> None:
    # Every even image is right and every odd one wrong, alike in confidence: each half asks for what harms the other.
    images = torch.full((64, 1, 1, 1), 200, dtype=torch.uint8)
    split = MemorySplit(images, torch.arange(64) % 2)

    def sure_of_class_0(batch: torch.Tensor) -> torch.Tensor:
        return torch.tensor([2.0, 0.0]).expand(len(batch), 2)

    found = robustness.calibration(sure_of_class_0, split, CPU)
    assert found["temperature"] == pytest.approx(20, rel=0.01)  # half of them right: no confidence is worth anything
    assert found["ece_after"] == pytest.approx(0.5 * 0.475 + 0.5, abs=0.01)


def test_corrupted_images_are_what_the_network_sees(split: MemorySplit) -> None:
    seen: list[torch.Tensor] = []

    def watching(images: torch.Tensor) -> torch.Tensor:
        seen.append(images)
        return linear(images)

    found = robustness.corruption_accuracy(watching, split, CPU, seed=4)
    assert list(found) == list(CORRUPTIONS)
    assert len(seen) == 15 * 5 * 2  # 400 images in batches of 256
    second = corrupt(split.images[256:], "gaussian_noise", 1, seed=4, batch=1)
    assert torch.equal((seen[1] * 255).round().to(torch.uint8), second)
    right = [
        (margins(corrupt(split.images[part], "contrast", 5, 4, place)) > 0).long() == split.targets[part]
        for place, part in enumerate((slice(0, 256), slice(256, 400)))
    ]
    assert found["contrast"][4] == pytest.approx(float(torch.cat(right).float().mean()))
    whole = robustness.summary(found)
    assert whole["mean"] == pytest.approx(np.mean(list(found.values())))
    assert whole["by_severity"][2] == pytest.approx(np.mean([values[2] for values in found.values()]))


def test_images_without_colour_or_grey_are_refused() -> None:
    split = MemorySplit(torch.zeros(2, 4, 8, 8, dtype=torch.uint8), torch.zeros(2, dtype=torch.int64))
    with pytest.raises(BadData, match="4 channels"):
        robustness.corruption_accuracy(linear, split, CPU)


def publish(folder: Path, each: int = 3) -> None:
    """Files of the published form, in which image i of severity s is as bright as 10·s, and its label is s − 1."""
    folder.mkdir()
    severities = np.repeat(np.arange(1, 6), each)
    np.save(folder / "labels.npy", (severities - 1).astype(np.int64))
    for name in CORRUPTIONS:
        images = np.zeros((5 * each, 32, 32, 3), np.uint8)
        images += (10 * severities).astype(np.uint8)[:, None, None, None]
        np.save(folder / f"{name}.npy", images)


def test_the_published_files_are_read_severity_after_severity(tmp_path: Path) -> None:
    publish(tmp_path / "c")

    def by_brightness(images: torch.Tensor) -> torch.Tensor:
        """Right at all severities but the third."""
        severity = (images.mean((1, 2, 3)) * 25.5).round().long()
        return torch.nn.functional.one_hot(torch.where(severity == 3, 0, severity - 1), 5).float()

    found = robustness.published_accuracy(by_brightness, tmp_path / "c", CPU)
    assert list(found) == list(CORRUPTIONS)
    assert all(values == [1, 1, 0, 1, 1] for values in found.values())


def test_published_files_that_are_missing_or_of_another_shape_are_named(tmp_path: Path) -> None:
    with pytest.raises(BadData, match=r"labels\.npy cannot be read"):
        robustness.published_accuracy(linear, tmp_path, CPU)
    publish(tmp_path / "c")
    np.save(tmp_path / "c" / "fog.npy", np.zeros((15, 3, 32, 32), np.uint8))
    with pytest.raises(BadData, match=r"fog\.npy has shape \[15, 3, 32, 32\]"):
        robustness.published_accuracy(linear, tmp_path / "c", CPU)
    (tmp_path / "c" / "fog.npy").write_bytes(b"\x93NUMPY no")
    with pytest.raises(BadData, match=r"fog\.npy cannot be read"):
        robustness.published_accuracy(linear, tmp_path / "c", CPU)


@pytest.fixture(scope="module")
def export(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A student of a few epochs on digits."""
    folder = tmp_path_factory.mktemp("student") / "best"
    experiment = Experiment(method="ce", training={"epochs": 2}, search={"grace_period": 1})
    train_student(experiment, folder, lambda *told: None)
    return folder


def test_the_network_for_attacks_is_the_one_that_is_measured(export: Path) -> None:
    opened = open_export(export)
    (images,) = opened.data.validation.fetch([torch.arange(20)])
    with torch.no_grad():
        logits = opened.of_units(images.float() / 255)
    answer = evaluate_export(export)
    right = int((logits.argmax(1) == opened.data.validation.targets[:20]).sum())
    assert right / 20 == pytest.approx(answer["metrics"]["accuracy"], abs=0.25)
    assert torch.equal(images, next(opened.data.validation.fetch([torch.arange(20)])))


@pytest.mark.slow
def test_the_command_answers_every_question_at_once_and_counts_one_reading(
    export: Path, cli: Callable[..., Any], tmp_path: Path
) -> None:
    asked = ("--corruptions", "--fgsm", "0.02,0.1", "--pgd", "0.1", "--calibration", "--latency", "--split", "test")
    answer = json.loads(cli("evaluate", str(export), *asked, "--json", cwd=tmp_path).stdout)
    clean = answer["metrics"]["accuracy"]
    assert answer["test_readings"] == 1
    assert len(answer["corruptions"]["by_corruption"]) == 15
    assert answer["corruptions"]["mean"] < clean
    assert answer["pgd"]["0.1"] <= answer["fgsm"]["0.1"] < answer["fgsm"]["0.02"] < clean
    assert 0 <= answer["calibration"]["ece"] < 1
    assert answer["latency"]["seconds"] > 0
    text = cli("evaluate", str(export), "--fgsm", "0.02", "--calibration", cwd=tmp_path).stdout
    assert "FGSM: accuracy" in text
    assert "Calibration error" in text


@pytest.mark.parametrize("text", ["0", "1.5", "0.01,"])
def test_an_epsilon_that_is_none_is_refused(text: str, cli: Callable[..., Any], tmp_path: Path) -> None:
    answer = cli("evaluate", "nowhere", "--fgsm", text, cwd=tmp_path)
    assert answer.returncode == 2
    assert "above 0 and up to 1" in answer.stderr
    assert "Traceback" not in answer.stderr


def test_students_of_other_tasks_are_asked_for_their_latency_alone(tmp_path: Path) -> None:
    experiment = Experiment(
        method="supervised",
        task="segmentation",
        data={"name": "scenes", "samples": 12},
        student={"name": "unet", "arguments": {"width": 2, "depth": 1}},
        training={"epochs": 1, "batch_size": 4},
        search={"grace_period": 1},
    )
    train_student(experiment, tmp_path / "best", lambda *told: None)
    with pytest.raises(UserError, match="only --latency"):
        evaluate_export(tmp_path / "best", questions=Questions(calibration=True))
    assert evaluate_export(tmp_path / "best", questions=Questions(latency=True))["latency"]["forwards"] >= 15
