"""Runs are found by name in the storage and nowhere else, or by their path."""

from __future__ import annotations

from pathlib import Path

import pytest

from kdsearch.errors import RunError
from kdsearch.results import find_run, list_runs
from kdsearch.results.storage import storage_folder


@pytest.fixture
def storage(tmp_path: Path) -> Path:
    for name in ("storage/ips-digits", "storage/kd.2", "storage/.hidden", "outside"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "experiment.yaml").write_text("method: ips\n")
    (tmp_path / "storage" / "no-run").mkdir()
    (tmp_path / "storage" / "file").write_text("")
    return tmp_path / "storage"


def test_runs_are_listed_by_name(storage: Path) -> None:
    assert [run.name for run in list_runs(storage)] == ["ips-digits", "kd.2"]
    assert list_runs(storage / "nowhere") == []
    assert list_runs(storage / "file") == []


def test_a_name_is_found_in_the_storage_and_a_path_where_it_leads(storage: Path) -> None:
    assert find_run("ips-digits", storage) == storage / "ips-digits"
    assert find_run(storage / "kd.2", "elsewhere") == storage / "kd.2"
    assert find_run(f"{storage}/kd.2/", "elsewhere") == storage / "kd.2"
    assert find_run("ips-digits", f"file://{storage}") == storage / "ips-digits"


def test_a_bare_name_may_be_a_folder_here(storage: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(storage)
    assert find_run("kd.2", "runs") == Path("kd.2")
    monkeypatch.chdir(storage / "kd.2")
    assert find_run(".", "runs") == Path()


@pytest.mark.parametrize(
    "name", ["../outside", "ips-digits/../../outside", "..", "", "/outside", "a\0b", "~nobody", "no-run"]
)
def test_a_name_never_leaves_the_storage(storage: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(storage / "no-run")
    with pytest.raises(RunError):
        find_run(name, storage)


def test_an_unknown_name_gets_the_nearest_one(storage: Path) -> None:
    with pytest.raises(
        RunError, match=r"unknown run 'ips-digit'; did you mean 'ips-digits'\? \(valid: ips-digits, kd.2\)"
    ):
        find_run("ips-digit", storage)
    with pytest.raises(RunError, match=r"unknown run 'x' .*holds no runs"):
        find_run("x", storage / "nowhere")
    with pytest.raises(RunError, match="not the folder of a run"):
        find_run("x/y", storage)


def test_a_storage_that_is_no_folder_is_refused() -> None:
    with pytest.raises(RunError, match="'s3://bucket/runs': runs are read from a folder"):
        storage_folder("s3://bucket/runs")
