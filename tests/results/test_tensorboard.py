"""What the writer puts on disk, read back by TensorBoard's own readers and by a real TensorBoard over HTTP."""

from __future__ import annotations

import math
import os
import resource
import struct
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import masked_crc32c
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

from kdsearch.results import tensorboard
from kdsearch.results.pictures import confusion_matrix
from kdsearch.results.tensorboard import TrialWriter, write_experiment
from kdsearch.settings import Choices, Range
from tests.browser import get_json, tensorboard_page
from tests.results.tensorboard_run import METRIC, SPACE, TRIALS, accuracy, best, report, write_run

if TYPE_CHECKING:
    from collections.abc import Iterator

ALL_STATES = ["STATUS_UNKNOWN", "STATUS_SUCCESS", "STATUS_FAILURE", "STATUS_RUNNING"]


def curve(folder: Path, tag: str) -> list[tuple[int, float]]:
    """Steps and values of a tag as TensorBoard itself reads them."""
    events = EventAccumulator(str(folder))
    events.Reload()
    return [(event.step, event.value) for event in events.Scalars(tag)] if tag in events.Tags()["scalars"] else []


def rounded(points: list[tuple[int, float]]) -> list[tuple[int, float]]:
    """Curves hold float32."""
    return [(step, round(value, 5)) for step, value in points]


def files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*tfevents*"))


@pytest.mark.parametrize("data", [b"", b"\0", b"123456789", bytes(range(256)) * 5])
def test_checksum_is_the_one_tensorboard_computes(data: bytes) -> None:
    assert tensorboard._checksum(data) == struct.pack("<I", masked_crc32c(data))


def test_checksum_of_the_standard_check_string_unmasks_to_crc32c() -> None:
    masked = struct.unpack("<I", tensorboard._checksum(b"123456789"))[0]
    rotated = (masked - 0xA282EAD8) % 2**32
    assert (rotated >> 17 | rotated << 15) % 2**32 == 0xE3069283  # RFC 3720, appendix B.4


def test_every_metric_is_a_curve_in_a_group(tmp_path: Path) -> None:
    write_run(tmp_path)
    events = EventAccumulator(str(tmp_path / "trials" / "0001"))
    events.Reload()
    assert sorted(events.Tags()["scalars"]) == [
        "best/validation/accuracy", "loss/cross_entropy", "loss/swap", "loss/total",
        "training/learning_rate", "training/seconds", "validation/accuracy",
    ]  # fmt: skip
    expected = [(epoch, pytest.approx(report(1, epoch)["loss/total"])) for epoch in range(1, 10)]
    assert curve(tmp_path / "trials" / "0001", "loss/total") == expected
    assert [event.wall_time for event in events.Scalars("loss/total")][:2] == [1_700_000_000.5, 1_700_000_001.0]


def test_a_value_that_is_not_finite_is_written_as_it_is(tmp_path: Path) -> None:
    writer = TrialWriter(tmp_path, METRIC)
    writer.scalars(1, {"loss/total": 1.0})
    writer.scalars(2, {"loss/total": math.nan})
    writer.scalars(3, {"loss/total": math.inf})
    values = [value for _, value in curve(tmp_path, "loss/total")]
    assert values[0] == 1.0
    assert math.isnan(values[1])
    assert values[2] == math.inf


@pytest.mark.parametrize("nothing", [None, math.nan, -math.inf])
def test_a_best_that_is_not_finite_is_left_out(tmp_path: Path, nothing: float | None) -> None:
    writer = TrialWriter(tmp_path, METRIC)
    writer.scalars(1, {METRIC: 0.25}, best=nothing)
    writer.scalars(2, {METRIC: 0.5}, best=0.5)
    assert curve(tmp_path, "best/validation/accuracy") == [(2, 0.5)]
    assert curve(tmp_path, METRIC) == [(1, 0.25), (2, 0.5)]


def test_each_report_can_be_read_as_soon_as_it_is_told(tmp_path: Path) -> None:
    writer = TrialWriter(tmp_path, METRIC)
    events = EventAccumulator(str(tmp_path))
    for step in range(1, 6):
        writer.scalars(step, {"loss/total": step / 2})
        events.Reload()
        assert [event.step for event in events.Scalars("loss/total")] == list(range(1, step + 1))


def test_hundreds_of_writers_hold_no_file_open(tmp_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    writers = [TrialWriter(tmp_path / f"{number:04d}", METRIC) for number in range(300)]
    for writer in writers:
        writer.scalars(1, {METRIC: 0.5}, best=0.5)
    assert len(os.listdir("/proc/self/fd")) <= before
    assert len(list(tmp_path.glob("*/*tfevents*"))) == 300


def test_a_resumed_trial_keeps_the_first_told_value_of_every_step(tmp_path: Path) -> None:
    first = TrialWriter(tmp_path, METRIC)
    for step in range(1, 6):
        first.scalars(step, {METRIC: step / 10, "loss/total": 1.0}, best=step / 10)
    second = TrialWriter(tmp_path, METRIC)
    for step in range(4, 8):
        second.scalars(step, {METRIC: step / 100, "loss/total": 2.0, "loss/new": 3.0}, best=step / 100)
    assert len(files(tmp_path)) == 2
    expected = [(1, 0.1), (2, 0.2), (3, 0.3), (4, 0.4), (5, 0.5), (6, 0.06), (7, 0.07)]
    assert rounded(curve(tmp_path, METRIC)) == expected
    assert rounded(curve(tmp_path, "best/validation/accuracy")) == expected
    assert [step for step, _ in curve(tmp_path, "loss/new")] == [4, 5, 6, 7]


def test_a_resumed_trial_that_tells_nothing_new_makes_no_file(tmp_path: Path) -> None:
    for _ in range(3):
        writer = TrialWriter(tmp_path, METRIC)
        writer.hyperparameters({"alpha": 1.0})
        writer.scalars(1, {METRIC: 0.5}, best=0.5)
        writer.finish("COMPLETE")
    assert len(files(tmp_path)) == 1


@pytest.mark.parametrize("damage", [b"", b"\0" * 100, b"\xff" * 40])
def test_a_report_cut_off_in_the_middle_is_told_again(tmp_path: Path, damage: bytes) -> None:
    writer = TrialWriter(tmp_path, METRIC)
    for step in (1, 2, 3):
        writer.scalars(step, {METRIC: step / 10})
    (file,) = files(tmp_path)
    file.write_bytes(file.read_bytes()[:-5] + damage)
    TrialWriter(tmp_path, METRIC).scalars(3, {METRIC: 0.9})
    assert rounded(curve(tmp_path, METRIC)) == [(1, 0.1), (2, 0.2), (3, 0.9)]


def test_a_write_that_fails_half_way_spoils_nothing(tmp_path: Path) -> None:
    writer = TrialWriter(tmp_path, METRIC)
    writer.scalars(1, {METRIC: 0.1})
    (file,) = files(tmp_path)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (file.stat().st_size + 10, limits[1]))  # the disk is full
    try:
        with pytest.raises(OSError, match="File too large"):
            writer.scalars(2, {METRIC: 0.2})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    writer.scalars(2, {METRIC: 0.2})
    writer.scalars(3, {METRIC: 0.3})
    assert rounded(curve(tmp_path, METRIC)) == [(1, 0.1), (2, 0.2), (3, 0.3)]


def test_a_picture_is_kept_byte_for_byte(tmp_path: Path) -> None:
    png = confusion_matrix([[3, 1], [0, 4]], ["cat", "dog"])
    TrialWriter(tmp_path, METRIC).image("best/confusion_matrix", png, 27)
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    (image,) = events.Images("best/confusion_matrix")
    assert (image.step, image.encoded_image_string) == (27, png)
    assert (image.width, image.height) == struct.unpack(">II", png[16:24])


def test_an_unknown_state_is_refused(tmp_path: Path) -> None:
    with pytest.raises(KeyError, match="RUNNING"):
        TrialWriter(tmp_path, METRIC).finish("RUNNING")


def test_the_writer_needs_neither_torch_nor_tensorflow_nor_ray() -> None:
    program = "import kdsearch.results.tensorboard, sys; print(*{name.partition('.')[0] for name in sys.modules})"
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
    assert "tensorboard" in loaded
    assert not {"torch", "tensorflow", "tensorboardX", "ray"} & set(loaded)


@pytest.fixture(scope="module", params=["data server", "python"])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real TensorBoard over a run, once with its data server and once with its Python reader."""
    run = tmp_path_factory.mktemp("runs") / "ips"
    write_run(run)
    resumed = TrialWriter(run / "trials" / "0001", METRIC)
    resumed.hyperparameters({"alpha": 99.0})
    resumed.scalars(9, report(2, 1), best=0.0)
    resumed.finish("FAILED")
    failed = TrialWriter(run / "trials" / "0003", METRIC)
    failed.hyperparameters({**TRIALS[2][0], "alpha": 0.0})
    failed.finish("FAILED")
    with tensorboard_page(run, *(["--load_fast=false"] if request.param == "python" else [])) as url:
        deadline = time.monotonic() + 30
        while not has_read_all(url) and time.monotonic() < deadline:
            time.sleep(0.2)
        yield url


def has_read_all(url: str) -> bool:
    steps = {
        group["name"]: sum(value["trainingStep"] for value in group["metricValues"]) for group in session_groups(url)
    }
    return steps == {"0000": 27, "0001": 9, "0002": 15, "0003": 0}


def session_groups(url: str) -> list[dict[str, Any]]:
    request = {"allowedStatuses": ALL_STATES, "startIndex": 0, "sliceSize": 100}
    answer: dict[str, list[dict[str, Any]]] = get_json(f"{url}data/plugin/hparams/session_groups", request)
    return sorted(answer["sessionGroups"], key=lambda group: str(group["name"]))


def test_the_hparams_table_holds_every_trial_with_its_best_value(server: str) -> None:
    groups = session_groups(server)
    assert [group["name"] for group in groups] == ["0000", "0001", "0002", "0003"]
    for number, (hyperparameters, epochs, _) in enumerate(TRIALS):
        assert groups[number]["hparams"] == hyperparameters
        (value,) = groups[number]["metricValues"]
        assert value["name"]["tag"] == "best/validation/accuracy"
        assert value["value"] == pytest.approx(best(number))
        assert value["value"] > accuracy(number, epochs) + 0.009
        assert value["trainingStep"] == epochs
    assert groups[3]["metricValues"] == []


def test_the_hparams_table_knows_how_each_trial_ended(server: str) -> None:
    states = [group["sessions"][0]["status"] for group in session_groups(server)]
    assert states == ["STATUS_SUCCESS", "STATUS_SUCCESS", "STATUS_UNKNOWN", "STATUS_FAILURE"]


def test_columns_have_types_and_domains_that_hold_every_trial(server: str) -> None:
    experiment = get_json(f"{server}data/plugin/hparams/experiment", {})
    columns = {column["name"]: column for column in experiment["hparamInfos"]}
    assert list(columns) == ["alpha", "learning_rate", "nesterov", "patches", "temperature", "optimizer"]
    assert columns["alpha"]["domainInterval"] == {"minValue": 0.0, "maxValue": 2.0}
    assert columns["learning_rate"]["domainInterval"] == {"minValue": 0.001, "maxValue": 0.3}
    assert columns["patches"]["domainDiscrete"] == [2.0, 4.0, 8.0]
    assert columns["nesterov"]["type"] == "DATA_TYPE_BOOL"
    assert columns["optimizer"]["type"] == "DATA_TYPE_STRING"
    assert [column["differs"] for column in columns.values()] == [True] * 5 + [False]
    (metric,) = experiment["metricInfos"]
    assert (metric["name"]["tag"], metric["displayName"]) == ("best/validation/accuracy", "best validation/accuracy")


def test_the_server_shows_no_curve_twice(server: str) -> None:
    points = get_json(f"{server}data/plugin/scalars/scalars?run=trials/0001&tag=validation/accuracy")
    assert [step for _, step, _ in points] == list(range(1, 10))
    assert [value for _, _, value in points] == pytest.approx([accuracy(1, epoch) for epoch in range(1, 10)])


def columns_of(folder: Path) -> dict[str, Any]:
    """The hyperparameters that the experiment's file in `folder` tells of."""
    events = EventAccumulator(str(folder))
    events.Reload()
    content = events.SummaryMetadata("_hparams_/experiment").plugin_data.content
    experiment = HParamsPluginData.FromString(content).experiment
    return {column.name: column for column in experiment.hparam_infos}


def test_an_experiment_written_again_replaces_the_first(tmp_path: Path) -> None:
    write_experiment(tmp_path, SPACE, METRIC)
    write_experiment(tmp_path, {"alpha": Range(low=5, high=6)}, METRIC)
    assert [path.name for path in tmp_path.iterdir()] == ["events.out.tfevents.0.experiment"]
    columns = columns_of(tmp_path)
    assert list(columns) == ["alpha"]
    assert (columns["alpha"].domain_interval.min_value, columns["alpha"].domain_interval.max_value) == (5, 6)


@pytest.mark.parametrize(
    ("domain", "tried", "expected"),
    [
        (Range(low=1, high=2, log=True, or_zero=True), [], (0, 2)),
        (Range(low=1, high=2), [7, 0.5], (0.5, 7)),
        (Choices(choices=(2, 4)), [16, 4.0], [2, 4, 16]),
        (Choices(choices=("a", "b")), ["c"], ["a", "b", "c"]),
        (Choices(choices=(True, 1, "auto")), [], [True, 1, "auto"]),
        (1.0, [0.0], [1, 0]),
        (1.0, [1], [1]),
        (Range(low=1, high=2), ["off"], [1, 2, "off"]),
    ],
)
def test_a_domain_is_widened_by_what_is_tried(
    tmp_path: Path, domain: Any, tried: list[Any], expected: tuple[float, float] | list[Any]
) -> None:
    write_experiment(tmp_path, {"x": domain}, METRIC, [{"x": value} for value in tried] + [{"other": 1}])
    column = columns_of(tmp_path)["x"]
    if isinstance(expected, tuple):
        assert (column.domain_interval.min_value, column.domain_interval.max_value) == expected
    else:
        assert list(column.domain_discrete) == expected
        assert column.differs == (len(expected) > 1)
