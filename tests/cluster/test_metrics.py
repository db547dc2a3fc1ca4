"""A search as Prometheus reads it from a real Ray, and the dashboard that shows it."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import socket
import threading
import time
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any

import optuna
import pytest
import ray
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from kdsearch.experiment import Experiment
from kdsearch.tuning import metrics, search
from kdsearch.tuning.pool import ENVIRONMENT
from tests.tuning import stub

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kdsearch.objective import Report
    from kdsearch.tuning.trials import LiveTrial

DASHBOARD = Path(__file__).parents[2] / "launch" / "grafana.json"
SAMPLE = re.compile(r"(?P<name>\w+)\{(?P<labels>.*)\} (?P<value>\S+)")


Labels = frozenset[tuple[str, str]]


class Prometheus:
    """Scrapes the port again and again, and keeps the last value of each series: Ray forgets gauges within seconds."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._last: dict[tuple[str, Labels], float] = {}
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._scrape, daemon=True)
        self._thread.start()

    def _scrape(self) -> None:
        while not self._over.wait(0.2):
            with (
                contextlib.suppress(OSError),
                urllib.request.urlopen(f"http://127.0.0.1:{self._port}/metrics", timeout=10) as answer,
            ):
                for line in answer.read().decode().splitlines():
                    if sample := SAMPLE.fullmatch(line):
                        labels = frozenset(re.findall(r'(\w+)="([^"]*)"', sample["labels"]))
                        self._last[sample["name"], labels] = float(sample["value"])

    def value(self, name: str, **labels: str) -> float | None:
        """The one series with these labels; None where there is none."""
        series = [value for (known, has), value in self._last.copy().items() if known == name and labels.items() <= has]
        assert len(series) < 2, self._last
        return series[0] if series else None

    def wait_for(self, expected: float, name: str, **labels: str) -> None:
        deadline = time.monotonic() + 60
        while (found := self.value(name, **labels)) != pytest.approx(expected):
            assert time.monotonic() < deadline, f"{name} {labels} is {found}, not {expected}"
            time.sleep(0.1)

    def close(self) -> None:
        self._over.set()
        self._thread.join()


@pytest.fixture(scope="module")
def prometheus() -> Iterator[Prometheus]:
    """A local Ray that reports every second, and who reads it."""
    ray.cloudpickle.register_pickle_by_value(stub)
    own = dict(os.environ)
    os.environ.update(ENVIRONMENT)
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = int(found.getsockname()[1])
    ray.init(
        address="local",
        num_cpus=1,
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.CRITICAL,
        _metrics_export_port=port,
        _system_config={"metrics_report_interval_ms": 1000},
    )
    reader = Prometheus(port)
    yield reader
    reader.close()
    ray.shutdown()
    os.environ.clear()
    os.environ.update(own)


class Reader:
    """A watcher that looks, while the search runs, at what others can see of it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.seen = 0

    def trial_started(self, trial: LiveTrial) -> None: ...

    def epoch_told(self, trial: LiveTrial, report: Report) -> None: ...

    def trial_ended(self, trial: LiveTrial, value: float | None) -> None:
        """What optuna-dashboard does: open the journal that is being written."""
        storage = JournalStorage(JournalFileBackend(str(self.folder / "study.journal")))
        self.seen = max(self.seen, len(optuna.load_study(study_name=self.folder.name, storage=storage).trials))


def experiment(name: str, **resources: Any) -> Experiment:
    return Experiment(
        method="kd",
        teacher="resnet8",
        name=name,
        space={"temperature": {"low": 1, "high": 20, "log": True}},
        training={"epochs": 3},
        search={"trials": 6, "grace_period": 1, "scheduler": "none", "sampler": "random"},
        resources={"gpus_per_trial": 0, **resources},
    )


def test_a_search_on_a_cluster_tells_its_trials_its_best_value_and_its_epochs(
    prometheus: Prometheus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metrics, "PULSE_SECONDS", 0.2)
    reader = Reader(tmp_path / "told")
    objectives = stub.StubObjectives(epochs=3, raise_above=10.0)
    results = search(experiment("told", address="auto"), storage=tmp_path, objectives=objectives, watchers=[reader])
    assert reader.seen == 6
    for state in metrics.STATES:
        prometheus.wait_for(results.counts[state], "ray_kdsearch_trials", run="told", state=state)
    assert 0 < results.counts["FAILED"] < 6, "the test must tell states apart"
    best = max(stub.quality(trial.hyperparameters) for trial in results.trials if trial.state == "COMPLETE")
    prometheus.wait_for(best, "ray_kdsearch_best_value", run="told", metric="accuracy")
    prometheus.wait_for(3 * results.counts["COMPLETE"], "ray_kdsearch_epochs_total", run="told")


def test_a_search_with_a_ray_of_its_own_tells_nothing(prometheus: Prometheus, tmp_path: Path) -> None:
    with metrics.watching(experiment("quiet"), "accuracy", "max", []) as watchers:
        assert watchers == []
    with metrics.watching(experiment("loud", address="auto"), "accuracy", "max", []):
        prometheus.wait_for(0, "ray_kdsearch_trials", run="loud", state="RUNNING")
    assert prometheus.value("ray_kdsearch_trials", run="quiet", state="RUNNING") is None


def test_a_trials_process_tells_the_memory_that_it_holds_of_its_gpu(prometheus: Prometheus) -> None:
    """Here no process has a GPU: what is read of it is put in its place."""

    @ray.remote(num_cpus=0)
    class Process:
        def __init__(self) -> None:
            metrics.PULSE_SECONDS = 0.2
            self.told = metrics.GPUMemory("held", lambda: 123)

        def begin(self, trial: int) -> None:
            self.told.begin(trial)

    process: Any = Process.remote()  # type: ignore[attr-defined]
    ray.get(process.begin.remote(7))
    prometheus.wait_for(123, "ray_kdsearch_gpu_memory_bytes", run="held", trial="7")
    ray.get(process.begin.remote(8))
    prometheus.wait_for(123, "ray_kdsearch_gpu_memory_bytes", run="held", trial="8")
    assert metrics.held_bytes() is None, "no GPU is used here"


def test_the_dashboard_shows_exactly_the_metrics_that_are_exported() -> None:
    dashboard = json.loads(DASHBOARD.read_text())
    assert dashboard["schemaVersion"] >= 36
    assert "id" not in dashboard, "Grafana gives an imported dashboard a number of its own"
    source, run = dashboard["templating"]["list"]
    assert (source["type"], source["name"], source["query"]) == ("datasource", "datasource", "prometheus")
    assert run["query"]["query"] == "label_values(ray_kdsearch_trials, run)"
    queries = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    shown = [re.findall(r"ray_\w+", query) for query in queries]
    assert sorted(name for names in shown for name in names) == sorted(metrics.EXPORTED)
    assert all('{run=~"$run"}' in query for query in queries)
    everywhere = re.findall(r'"uid": "(\$[^"]*)"', DASHBOARD.read_text())
    assert len(everywhere) == 2 * len(queries) + 1
    assert set(everywhere) == {"${datasource}"}
    assert_no_panel_covers_another([panel["gridPos"] for panel in dashboard["panels"]])


def assert_no_panel_covers_another(places: list[dict[str, int]]) -> None:
    cells = [
        (column, row)
        for place in places
        for column in range(place["x"], place["x"] + place["w"])
        for row in range(place["y"], place["y"] + place["h"])
    ]
    assert len(set(cells)) == len(cells)
    assert max(column for column, _ in cells) < 24
