"""What is taken home: whole or not at all, complete, without places, and loadable as its card says."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from optuna.trial import TrialState
from safetensors.numpy import load_file, save

from kdsearch import models
from kdsearch.errors import BadWeights, RunError
from kdsearch.results import Results, add_test_reading, export_run, search_facts, write_export
from kdsearch.results.card import hyperparameters_yaml, model_card
from kdsearch.settings import NetworkSettings
from tests.results.build_run import RunBuilder, facts, keep_best, sample_run

WEIGHTS = {"layer.weight": np.arange(6, dtype=np.float32).reshape(2, 3)}
FILES = ["README.md", "hyperparameters.yaml", "metrics.json", "student.safetensors"]


def write(folder: Path, **changes: Any) -> dict[str, Any]:
    """Write an export; its metrics.json read back."""
    given: dict[str, Any] = {"weights": WEIGHTS, "facts": facts(), "hyperparameters": {"temperature": 4.0}}
    write_export(folder, **{**given, **changes})
    document: dict[str, Any] = json.loads((folder / "metrics.json").read_text())
    return document


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_an_export_holds_its_four_files_and_nothing_beside_it(tmp_path: Path) -> None:
    document = write(tmp_path / "best")
    assert names(tmp_path) == ["best"]
    assert names(tmp_path / "best") == FILES
    assert document == facts() | {"test_readings": []}
    assert (load_file(tmp_path / "best" / "student.safetensors")["layer.weight"] == WEIGHTS["layer.weight"]).all()
    mode = (tmp_path / "best").stat().st_mode & 0o777
    (tmp_path / "plain").mkdir()
    assert mode == (tmp_path / "plain").stat().st_mode & 0o777


def test_weights_may_be_a_file_bytes_arrays_or_tensors(tmp_path: Path) -> None:
    file = tmp_path / "weights.safetensors"
    file.write_bytes(save(WEIGHTS))
    tensors = {name: torch.from_numpy(array) for name, array in WEIGHTS.items()}
    for number, weights in enumerate((file, save(WEIGHTS), WEIGHTS, tensors)):
        write(tmp_path / str(number), weights=weights)
        found = load_file(tmp_path / str(number) / "student.safetensors")
        assert found.keys() == WEIGHTS.keys()
        assert (found["layer.weight"] == WEIGHTS["layer.weight"]).all()


def test_tied_and_transposed_tensors_are_stored(tmp_path: Path) -> None:
    tied = torch.arange(6.0).reshape(2, 3)
    write(tmp_path / "best", weights={"a": tied, "b": tied, "c": tied.T, "d": torch.tensor(3)})
    found = load_file(tmp_path / "best" / "student.safetensors")
    assert (found["c"] == tied.numpy().T).all()
    assert (found["a"] == found["b"]).all()
    assert found["d"] == 3


@pytest.mark.parametrize("cut", [0, 5, 20, -1])
def test_truncated_weights_are_refused_and_the_export_that_was_there_stays(tmp_path: Path, cut: int) -> None:
    write(tmp_path / "best")
    before = {name: (tmp_path / "best" / name).read_bytes() for name in FILES}
    with pytest.raises(BadWeights, match="not a complete safetensors file"):
        write(tmp_path / "best", weights=save(WEIGHTS)[:cut])
    assert names(tmp_path) == ["best"]
    assert {name: (tmp_path / "best" / name).read_bytes() for name in FILES} == before


def test_weights_that_are_not_there_are_named(tmp_path: Path) -> None:
    with pytest.raises(BadWeights, match=r"gone\.safetensors cannot be read: No such file"):
        write(tmp_path / "best", weights=tmp_path / "gone.safetensors")


@pytest.mark.parametrize("missing", ["metric", "value", "student", "validation", "epochs"])
def test_incomplete_facts_are_refused_and_nothing_is_written(tmp_path: Path, missing: str) -> None:
    incomplete = facts()
    del incomplete[missing]
    with pytest.raises(RunError, match=f"'{missing}' is missing"):
        write(tmp_path / "best", facts=incomplete)
    assert names(tmp_path) == []


def test_a_second_export_replaces_the_first_whole(tmp_path: Path) -> None:
    write(tmp_path / "best")
    (tmp_path / "best" / "confusion.png").write_bytes(b"old")
    document = write(tmp_path / "best", facts=facts(value=0.95), hyperparameters={"alpha": 2})
    assert (document["value"], document["hyperparameters"]) == (0.95, {"alpha": 2})
    assert names(tmp_path) == ["best"]
    assert names(tmp_path / "best") == FILES


KILLED = """
import json, os, signal, sys
from pathlib import Path
from kdsearch.results import export

folder, weights, facts, fatal_call = sys.argv[1:]
calls = 0
original = export.write_atomic
def dies(path, content):
    global calls
    calls += 1
    if calls == int(fatal_call):
        os.kill(os.getpid(), signal.SIGKILL)
    original(path, content)
export.write_atomic = dies
export.write_export(folder, weights=Path(weights), facts=json.loads(facts), hyperparameters={"alpha": 2})
"""


@pytest.mark.parametrize("call", [1, 3])
def test_a_writer_that_is_killed_leaves_the_old_export_untouched(tmp_path: Path, call: int) -> None:
    write(tmp_path / "best")
    weights = tmp_path / "new.safetensors"
    weights.write_bytes(save(WEIGHTS))
    arguments = (str(tmp_path / "best"), str(weights), json.dumps(facts()), str(call))
    done = subprocess.run([sys.executable, "-c", KILLED, *arguments], check=False)
    assert done.returncode == -signal.SIGKILL
    assert yaml.safe_load((tmp_path / "best" / "hyperparameters.yaml").read_text()) == {"temperature": 4.0}
    assert names(tmp_path / "best") == FILES


def test_no_place_goes_along(tmp_path: Path) -> None:
    document = write(
        tmp_path / "best",
        facts=facts(
            data={"name": "/data/of/me/my_data.py:splits", "root": "/data/of/me"},
            student=facts()["student"] | {"name": "~/nets/my_net.py:build", "arguments": {"table": "C:\\nets\\t.csv"}},
            classes=["/", "~", "and/or"],
            per_class_accuracy={"/": 0.5, "~": 1.0, "and/or": 0.25},
        ),
    )
    assert document["data"] == {"name": "my_data.py:splits"}
    assert document["student"]["name"] == "my_net.py:build"
    assert document["student"]["arguments"] == {"table": "t.csv"}
    assert document["classes"] == ["/", "~", "and/or"]
    for name in FILES:
        content = (tmp_path / "best" / name).read_bytes()
        assert b"of/me" not in content
        assert b"nets" not in content
        assert str(tmp_path).encode() not in content


def test_numbers_that_json_cannot_hold_become_null(tmp_path: Path) -> None:
    document = write(
        tmp_path / "best",
        facts=facts(
            validation={"accuracy": 0.9, "loss": float("nan")}, training={"clip": float("inf"), "n": np.int64(3)}
        ),
        hyperparameters={"temperature": np.float64(2.5), "detach": np.bool_(True), "patches": np.int64(4)},
    )
    assert document["validation"] == {"accuracy": 0.9, "loss": None}
    assert document["training"] == {"clip": None, "n": 3}
    setting = yaml.safe_load((tmp_path / "best" / "hyperparameters.yaml").read_text())
    assert setting == document["hyperparameters"] == {"temperature": 2.5, "detach": True, "patches": 4}


def test_hyperparameters_survive_the_file_with_their_types() -> None:
    setting = {"a": 1e-05, "b": 1, "c": 1.0, "d": True, "e": "on", "f": "1,3", "g": "null", "h": 0.1 + 0.2, "i": "é: #"}
    text = hyperparameters_yaml(setting, ["trial 3\nof run: !!python/name:os", "second"])
    read = yaml.safe_load(text)
    assert read == setting
    assert {name: type(value) for name, value in read.items()} == {name: type(value) for name, value in setting.items()}
    assert list(read) == list(setting)
    assert text.startswith("# trial 3 of run: !!python/name:os\n# second\na: ")


def test_the_card_tells_origin_gains_and_the_hardest_classes() -> None:
    search = {
        "run": "r",
        "trial": 7,
        "trials": 32,
        "gain_over_paper": 0.0123,
        "gain_over_control": None,
        "gpu_hours": 1.5,
    }
    scores = {f"class {number}": number / 100 for number in range(30)}
    card = model_card(facts(search=search, per_class_accuracy=scores))
    assert "accuracy **0.9000** on the validation split (loss 0.3100)" in card
    assert "| search | run r, trial 7 of 32 |" in card
    assert "| gain over the paper's setting | +0.0123 accuracy |" in card
    assert "gain over no distillation" not in card
    assert "1.50 GPU hours" in card
    assert "## Accuracy per class, the 20 hardest of 30" in card
    assert "| class 0 | 0.0000 |" in card
    assert "class 29" not in card


def test_names_cannot_break_the_tables_of_the_card() -> None:
    card = model_card(facts(per_class_accuracy={"a|b\n# c": 0.5}, hyperparameters={"heads": "1|2"}))
    assert "| a\\|b # c | 0.5000 |" in card
    assert "| heads | 1\\|2 |" in card


def test_the_code_on_the_card_loads_the_student_in_a_new_process(tmp_path: Path) -> None:
    torch.manual_seed(3)
    student = models.build(NetworkSettings(name="resnet8"), outputs=10, channels=1, size=(8, 8)).eval()
    described = facts()["student"] | {"outputs": 10}
    write(tmp_path / "best", weights=student.state_dict(), facts=facts(student=described))
    images = torch.randn(2, 1, 8, 8)
    torch.save(images, tmp_path / "images.pt")
    code = re.findall(r"```python\n(.*?)```", (tmp_path / "best" / "README.md").read_text(), flags=re.DOTALL)
    assert len(code) == 1
    assert len(code[0].splitlines()) <= 6
    check = "import torch\ntorch.save(student(torch.load('../images.pt')), '../outputs.pt')\n"
    subprocess.run([sys.executable, "-c", code[0] + check], cwd=tmp_path / "best", check=True)
    assert torch.equal(torch.load(tmp_path / "outputs.pt"), student(images))


def test_a_run_without_best_is_exported_from_its_best_trial_with_what_the_search_knows(tmp_path: Path) -> None:
    run = sample_run(tmp_path / "runs" / "my-run")
    run.describe(state="COMPLETE", ended=run.study.user_attrs["started"] + 60, gpu_hours=0.5)
    weights = keep_best(run.folder, 2)
    (run.folder / "trials" / "0002" / "best" / "confusion.png").write_bytes(b"picture")
    folder = export_run(run.folder, tmp_path / "new" / "out")
    assert names(folder) == sorted([*FILES, "confusion.png"])
    document = json.loads((folder / "metrics.json").read_text())
    assert document["search"] == {
        "run": "my-run", "trial": 2, "trials": 6, "seconds": 60, "gpu_hours": 0.5,
        "gain_over_paper": pytest.approx(0.19), "gain_over_control": pytest.approx(0.29),
    }  # fmt: skip
    assert (load_file(folder / "student.safetensors")["layer.weight"] == weights["layer.weight"]).all()
    assert str(tmp_path) not in (folder / "metrics.json").read_text()


def test_the_best_folder_of_a_run_is_exported_with_its_readings(tmp_path: Path) -> None:
    run = sample_run(tmp_path / "my-run")
    write(run.folder / "best", facts=facts(value=0.77))
    add_test_reading(run.folder / "best", {"accuracy": 0.7})
    folder = export_run(run.folder, tmp_path / "out")
    for name in ("metrics.json", "hyperparameters.yaml", "student.safetensors", "README.md"):
        assert (folder / name).read_bytes() == (run.folder / "best" / name).read_bytes()
    assert json.loads((folder / "metrics.json").read_text())["test_readings"][0]["metrics"] == {"accuracy": 0.7}


def test_an_empty_folder_is_filled_in_place_and_any_other_refused(tmp_path: Path) -> None:
    run = sample_run(tmp_path / "my-run")
    keep_best(run.folder, 2)
    empty = tmp_path / "empty"
    empty.mkdir()
    inode = empty.stat().st_ino
    export_run(run.folder, empty)
    assert names(empty) == FILES
    assert empty.stat().st_ino == inode
    before = {name: (empty / name).read_bytes() for name in FILES}
    with pytest.raises(RunError, match="exists and is not empty"):
        export_run(run.folder, empty)
    assert {name: (empty / name).read_bytes() for name in FILES} == before
    (tmp_path / "file").write_text("mine")
    with pytest.raises(RunError, match="exists and is not empty"):
        export_run(run.folder, tmp_path / "file")
    with pytest.raises(RunError, match="cannot be written: Not a directory"):
        export_run(run.folder, tmp_path / "file" / "out")
    assert (tmp_path / "file").read_text() == "mine"


def test_a_run_without_a_student_says_so(tmp_path: Path) -> None:
    run = sample_run(tmp_path / "my-run")
    with pytest.raises(RunError, match="the weights of trial 2, the best of run 'my-run', are not on disk"):
        export_run(run.folder, tmp_path / "out")
    begun = RunBuilder(tmp_path / "begun")
    begun.trial([], TrialState.FAIL, error="no")
    with pytest.raises(RunError, match="no trial has finished an epoch"):
        export_run(begun.folder, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "content", ["[]", "{", '"text"', "{}", '{"hyperparameters": {}}', "[" * 100_000, '{"hyperparameters": 5}']
)
def test_a_damaged_metrics_file_is_a_sentence(tmp_path: Path, content: str) -> None:
    run = sample_run(tmp_path / "my-run")
    write(run.folder / "best")
    (run.folder / "best" / "metrics.json").write_text(content)
    with pytest.raises(RunError) as error:
        export_run(run.folder, tmp_path / "out")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "out").exists()


def test_a_metrics_file_that_nests_absurdly_deep_is_cut_off(tmp_path: Path) -> None:
    run = sample_run(tmp_path / "my-run")
    write(run.folder / "best")
    deep: Any = 1
    for _ in range(700):
        deep = [deep]
    (run.folder / "best" / "metrics.json").write_text(json.dumps(facts(training=deep)))
    folder = export_run(run.folder, tmp_path / "out")
    training = (folder / "metrics.json").read_text()
    assert training.count("[") < 200


def test_every_reading_of_the_test_split_is_counted(tmp_path: Path) -> None:
    write(tmp_path / "best")
    assert add_test_reading(tmp_path / "best", {"accuracy": 0.5}) == 1
    assert add_test_reading(tmp_path / "best", {"accuracy": float("nan")}) == 2
    readings = json.loads((tmp_path / "best" / "metrics.json").read_text())["test_readings"]
    assert [reading["metrics"]["accuracy"] for reading in readings] == [0.5, None]
    assert readings[0]["time"] <= readings[1]["time"]
    (tmp_path / "best" / "metrics.json").write_text('{"test_readings": 7}')
    with pytest.raises(RunError, match="must be a list"):
        add_test_reading(tmp_path / "best", {})


def test_the_facts_of_a_search_that_still_runs_count_to_now(tmp_path: Path) -> None:
    run = sample_run(tmp_path / "my-run")
    results = Results(run.folder)
    assert results.best is not None
    found = search_facts(results, results.best)
    assert found["seconds"] == len((run.folder / "study.journal").read_bytes().splitlines()) - 1
