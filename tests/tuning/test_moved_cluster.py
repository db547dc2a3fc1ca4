"""A run whose cluster is gone: one sentence; and it goes on with another."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import pytest
import yaml

from kdsearch.chain import Chain
from kdsearch.errors import UserError
from kdsearch.experiment import Experiment
from kdsearch.results import Results
from kdsearch.tuning.chain import resume_chain
from kdsearch.tuning.pool import ENVIRONMENT

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import Cli


def nobody() -> str:
    """An address where nobody answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return f"127.0.0.1:{server.getsockname()[1]}"


@pytest.mark.slow
def test_a_run_whose_cluster_is_gone_says_so_and_goes_on_with_another(cli: Cli, tmp_path: Path) -> None:
    gone = nobody()
    made = Experiment.load(
        "ce",
        {
            "name": "run",
            "data.label_fraction": 0.2,
            "training.epochs": 1,
            "search.grace_period": 1,
            "search.trials": 2,
            "resources.address": gone,
            "resources.gpus_per_trial": 0,
        },
    )
    run = tmp_path / "runs" / "run"
    run.mkdir(parents=True)  # as a driver leaves it that is killed before its first trial
    (run / "experiment.yaml").write_text(made.to_yaml())

    foreign = cli("resume", "run", cwd=tmp_path)
    assert foreign.returncode == 2
    assert f"resources.address = '{gone}'; read it, and if you trust it say --allow-code" in foreign.stderr
    refused = cli("resume", "run", "--allow-code", cwd=tmp_path)
    assert refused.returncode == 2
    assert f"no Ray cluster answers at '{gone}'" in refused.stderr
    assert "Traceback" not in refused.stderr
    assert sorted(path.name for path in run.iterdir()) == ["experiment.yaml", "run.lock"]

    resumed = cli("resume", "run", "--address", "local", cwd=tmp_path)
    assert resumed.returncode == 0, resumed.stderr
    assert yaml.safe_load((run / "experiment.yaml").read_text())["resources"]["address"] == "local"
    found = Results(run)
    assert (found.state, [trial.state for trial in found.trials]) == ("COMPLETE", ["COMPLETE", "COMPLETE"])


def test_a_chain_goes_on_with_the_cluster_that_is_typed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)  # gone again after the test
    recorded, typed = nobody(), nobody()
    made = Chain(
        name="small", resources={"address": recorded}, generations=[{"student": "resnet8"}, {"student": "resnet8"}]
    )
    folder = tmp_path / "small"
    folder.mkdir()
    (folder / "chain.yaml").write_text(made.to_yaml())
    with pytest.raises(UserError, match=rf"resources.address = '{recorded}'; read it, .* say --allow-code$"):
        resume_chain(folder)
    with pytest.raises(UserError, match=f"no Ray cluster answers at '{typed}'"):
        resume_chain(folder, address=typed)
    assert yaml.safe_load((folder / "chain.yaml").read_text())["resources"]["address"] == typed
