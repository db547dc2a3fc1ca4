"""A small TensorBoard writer: curves, hyperparameters and pictures of every trial, readable while the search runs.

It needs only the protocol buffers that the `tensorboard` package ships, so the process that drives a search imports
neither torch nor tensorflow for it. A run folder is read whole by `tensorboard --logdir RUN`:

    RUN/events.out.tfevents.*              the hyperparameters' domains and the metric (`write_experiment`)
    RUN/trials/0007/events.out.tfevents.*  one trial (`TrialWriter`)

No file stays open: each call appends its records in one write, so hundreds of trials cost no file handles and
TensorBoard sees every report at once. The record format is TFRecord's (length, masked CRC-32C of the length, data,
masked CRC-32C of the data).
"""

from __future__ import annotations

import math
import os
import struct
import time
from typing import TYPE_CHECKING

from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
from tensorboard.compat.proto.tensor_pb2 import TensorProto
from tensorboard.compat.proto.tensor_shape_pb2 import TensorShapeProto
from tensorboard.compat.proto.types_pb2 import DT_FLOAT
from tensorboard.plugins.hparams import api_pb2
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData, SessionEndInfo, SessionStartInfo

from kdsearch.settings import Choices, Range

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

    from google.protobuf.struct_pb2 import Value

    from kdsearch.settings import Scalar

EXPERIMENT = "_hparams_/experiment"
SESSION_START = "_hparams_/session_start_info"
SESSION_END = "_hparams_/session_end_info"
# The names that the hparams plugin looks for.

STATUS = {
    "COMPLETE": api_pb2.STATUS_SUCCESS,
    "PRUNED": api_pb2.STATUS_SUCCESS,
    "FAILED": api_pb2.STATUS_FAILURE,
}
"""Final states of a trial as the hparams plugin has them; it knows none for a trial that was stopped early."""


def group(name: str) -> str:
    """The tag of a metric: TensorBoard files curves under what stands before the first slash."""
    return name if "/" in name else f"training/{name}"


def best_tag(metric: str) -> str:
    """The tag of the best value so far of `metric`, whose last value the hparams table shows."""
    return f"best/{metric}"


class TrialWriter:
    """Appends what one trial reports to the event file in its folder.

    Opening the folder of a trial that was written before starts a further event file (the last one may end in half
    a record) and reads what has been told: a step at or before the last one of its tag is not written again, so the
    first told value stays and no curve is doubled; the same holds for hyperparameters and final state.
    """

    def __init__(self, folder: Path, metric: str) -> None:
        """`folder` is the trial's own, made when the first record is written; `metric` is what the search optimises."""
        self._folder = folder
        self._metric = metric
        self._file: Path | None = None
        self._last_step: dict[str, int] = {}
        for event in _told(folder):
            self._last_step.update((value.tag, event.step) for value in event.summary.value)

    def hyperparameters(self, values: Mapping[str, Scalar], started: float | None = None) -> None:
        """A row of the hparams table: name → value; `started` in seconds since the epoch, now if None."""
        start = SessionStartInfo(group_name=self._folder.name, start_time_secs=started or time.time())
        for name, value in values.items():
            _set(start.hparams[name], value)
        self._add(0, [_plugin_value(SESSION_START, HParamsPluginData(session_start_info=start))])

    def scalars(
        self, step: int, values: Mapping[str, float], best: float | None = None, wall_time: float | None = None
    ) -> None:
        """One report: flat names to values at `step` (epochs finished), and the best value of the metric so far.

        A value that is not finite is written like any other: TensorBoard draws it as a triangle. Only `best` is
        left out when it is None or not finite, since the hparams table could neither show nor sort it.
        """
        found = [Summary.Value(tag=group(name), simple_value=value) for name, value in values.items()]
        if best is not None and math.isfinite(best):
            found.append(Summary.Value(tag=best_tag(self._metric), simple_value=best))
        self._add(step, found, wall_time)

    def image(self, tag: str, png: bytes, step: int) -> None:
        """A picture, shown under `tag` at `step`; `png` is a whole PNG file."""
        width, height = struct.unpack(">II", png[16:24])
        picture = Summary.Image(width=width, height=height, colorspace=3, encoded_image_string=png)
        self._add(step, [Summary.Value(tag=tag, image=picture)])

    def finish(self, state: str, ended: float | None = None) -> None:
        """The trial has ended for good: `state` is COMPLETE, PRUNED or FAILED (one that may go on is not finished)."""
        end = SessionEndInfo(status=STATUS[state], end_time_secs=ended or time.time())
        self._add(0, [_plugin_value(SESSION_END, HParamsPluginData(session_end_info=end))])

    def _add(self, step: int, values: list[Summary.Value], wall_time: float | None = None) -> None:
        """Append one event with those of the values that have not been told yet."""
        fresh = [value for value in values if step > self._last_step.get(value.tag, -1)]
        if not fresh:
            return
        event = Event(wall_time=wall_time or time.time(), step=step, summary=Summary(value=fresh))
        if self._file is None:
            self._folder.mkdir(parents=True, exist_ok=True)
            # TensorBoard without its data server reads the files of a folder in the order of their names.
            path = self._folder / f"events.out.tfevents.{time.time_ns()}.kdsearch"
            records = _record(_version()) + _record(event)
        else:
            path, records = self._file, _record(event)
        self._file = None  # After half a record (a full disk) the next one goes to a file of its own.
        with path.open("ab") as file:
            file.write(records)
        self._file = path
        self._last_step.update((value.tag, step) for value in fresh)


def write_experiment(
    folder: Path,
    space: Mapping[str, Range | Choices | Scalar],
    metric: str,
    tried: Iterable[Mapping[str, Scalar]] = (),
) -> None:
    """Tell the hparams table its columns: each hyperparameter with its type and domain, then the best `metric`.

    TensorBoard shows the hyperparameters that differ between trials first, then the constant ones, each by name. Its
    filters offer the domain and nothing outside of it; hence `tried`: settings that need not lie in the space (the
    paper's, the control's, a person's own), which widen the domains. Writing again replaces what was written.
    """
    settings = list(tried)
    columns = [
        _column(name, domain, [setting[name] for setting in settings if name in setting])
        for name, domain in space.items()
    ]
    best = api_pb2.MetricInfo(name=api_pb2.MetricName(tag=best_tag(metric)), display_name=f"best {metric}")
    experiment = api_pb2.Experiment(
        name=folder.name, time_created_secs=time.time(), hparam_infos=columns, metric_infos=[best]
    )
    summary = Summary(value=[_plugin_value(EXPERIMENT, HParamsPluginData(experiment=experiment))])
    event = Event(wall_time=time.time(), summary=summary)
    folder.mkdir(parents=True, exist_ok=True)
    # The plugin keeps the first experiment it reads, so there must be one file only, whole at any time.
    path = folder / "events.out.tfevents.0.experiment"
    part = folder / "experiment.part"
    part.write_bytes(_record(_version()) + _record(event))
    os.replace(part, path)


def _column(name: str, domain: Range | Choices | Scalar, tried: list[Scalar]) -> api_pb2.HParamInfo:
    """One hyperparameter: its domain, wide enough to hold the values in `tried`."""
    if isinstance(domain, Range):
        values: list[Scalar] = [domain.low, domain.high, *([0.0] if domain.or_zero else []), *tried]
    else:
        values = [*(domain.choices if isinstance(domain, Choices) else [domain]), *tried]
    distinct = list({(isinstance(value, bool), value): value for value in values}.values())
    column = api_pb2.HParamInfo(name=name, type=_type(distinct), differs=len(distinct) > 1)
    numbers = [value for value in distinct if not isinstance(value, str)]
    if isinstance(domain, Range) and len(numbers) == len(distinct):
        column.domain_interval.min_value, column.domain_interval.max_value = min(numbers), max(numbers)
    else:
        for value in distinct:
            _set(column.domain_discrete.values.add(), value)
    return column


def _type(values: list[Scalar]) -> api_pb2.DataType:
    if all(isinstance(value, bool) for value in values):
        return api_pb2.DATA_TYPE_BOOL
    if any(isinstance(value, bool | str) for value in values):
        return api_pb2.DATA_TYPE_STRING
    return api_pb2.DATA_TYPE_FLOAT64


def _set(target: Value, value: Scalar) -> None:
    """Set a protobuf Value; bool is an int too, so it is asked first."""
    if isinstance(value, bool):
        target.bool_value = value
    elif isinstance(value, str):
        target.string_value = value
    else:
        target.number_value = value


def _plugin_value(tag: str, data: HParamsPluginData) -> Summary.Value:
    """What the hparams plugin reads lies in the tag's metadata; the tensor beside it is empty."""
    metadata = SummaryMetadata(
        plugin_data=SummaryMetadata.PluginData(plugin_name="hparams", content=data.SerializeToString())
    )
    nothing = TensorProto(dtype=DT_FLOAT, tensor_shape=TensorShapeProto(dim=[TensorShapeProto.Dim(size=0)]))
    return Summary.Value(tag=tag, metadata=metadata, tensor=nothing)


def _version() -> Event:
    """What every event file begins with. Readers of version 2 keep all points, whatever the order of the steps."""
    return Event(wall_time=time.time(), file_version="brain.Event:2")


def _record(event: Event) -> bytes:
    data: bytes = event.SerializeToString()
    length = struct.pack("<Q", len(data))
    return length + _checksum(length) + data + _checksum(data)


def _told(folder: Path) -> Iterator[Event]:
    """Every whole event in the files of `folder`; a file is read up to the first record that is damaged."""
    for path in sorted(folder.glob("events.out.tfevents.*")):
        content = memoryview(path.read_bytes())
        while len(content) > 12:
            length = struct.unpack("<Q", content[:8])[0]
            data, checksum = content[12 : 12 + length], content[12 + length : 16 + length]
            if content[8:12] != _checksum(content[:8]) or checksum != _checksum(data):
                break
            yield Event.FromString(data)
            content = content[16 + length :]


def _crc_table() -> tuple[int, ...]:
    table = []
    for byte in range(256):
        for _ in range(8):
            byte = (byte >> 1) ^ (0x82F63B78 if byte & 1 else 0)
        table.append(byte)
    return tuple(table)


_CRC_TABLE = _crc_table()


def _checksum(data: bytes | memoryview) -> bytes:
    """TFRecord's masked CRC-32C. TensorBoard has it too, but behind imports that take longer than all of this."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = _CRC_TABLE[(crc ^ byte) & 0xFF] ^ (crc >> 8)
    crc ^= 0xFFFFFFFF
    return struct.pack("<I", ((crc >> 15 | (crc << 17 & 0xFFFFFFFF)) + 0xA282EAD8) & 0xFFFFFFFF)
