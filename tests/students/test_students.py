"""Several students in one experiment: how they are written, what a setting of them means, what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from optuna.trial import TrialState

from kdsearch import students, tasks
from kdsearch.chain import Chain
from kdsearch.cli.budget import parse_latency, parse_parameters
from kdsearch.cli.options import load_experiment
from kdsearch.errors import UserError
from kdsearch.experiment import Experiment
from kdsearch.objective import Report
from kdsearch.results import Results
from kdsearch.results.confirmation import plan
from kdsearch.results.students import MeasuredStudent, StudentsDocument, student_rows, write_students
from kdsearch.training.packing import alternatives, most_demanding
from kdsearch.tuning.agenda import Agenda
from kdsearch.tuning.distributions import distributions
from kdsearch.tuning.ledger import Ledger
from kdsearch.tuning.nodes import needed_paths
from kdsearch.tuning.record import Record
from kdsearch.tuning.trials import memories
from tests.results.build_run import RunBuilder
from tests.tuning.test_search_auto import add

TWO = ["resnet20", "resnet8"]
CHEAP = {"training.epochs": 9, "search.grace_period": 1}


def made(method: str = "ce", names: list[str] = TWO, **changes: Any) -> Experiment:
    given = {key.replace("__", "."): value for key, value in changes.items()}
    return Experiment.load(method, {**CHEAP, "student.name": names, **given})


def typed(method: str, student: str | None, hyperparameters: str | None = None) -> Experiment:
    return load_experiment(method, {}, student, None, None, hyperparameters)


def test_a_list_of_students_is_the_first_of_them_and_a_choice_in_the_methods_own_space() -> None:
    experiment = made("kd")
    alone = Experiment.load("kd", {**CHEAP, "student": "resnet20"})
    assert experiment.students == ("resnet20", "resnet8")
    assert experiment.student == alone.student
    assert {name: entry for name, entry in experiment.space.items() if name != "student"} == alone.space
    assert experiment.paper() == {"student": "resnet20", **alone.paper()}
    assert experiment.control() == {"student": "resnet20", **alone.control()}
    assert Experiment(method="kd", student=TWO, teacher="resnet20").students == experiment.students
    assert typed("kd", "resnet20, resnet8").students == experiment.students


def test_one_student_is_written_to_the_file_as_it_always_was() -> None:
    content = yaml.safe_load(Experiment.load("ce", {"student": "resnet20"}).to_yaml())
    assert content["student"]["name"] == "resnet20"
    assert "student" not in content["space"]
    assert Experiment.load("ce", {"student": ["resnet20"]}) == Experiment.load("ce", {"student": "resnet20"})


def test_the_file_of_a_search_reads_back_to_the_same_experiment() -> None:
    experiment = made(search__max_parameters=500_000, search__max_latency=0.005)
    again = Experiment(**yaml.safe_load(experiment.to_yaml()))
    assert again == experiment
    assert (again.search.max_parameters, again.search.max_latency) == (500_000, 0.005)


def test_a_file_may_list_its_students_and_the_command_line_names_others(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    for student in (TWO, {"name": TWO, "stem": "small"}):
        file.write_text(yaml.safe_dump({"method": "ce", "student": student}))
        assert typed(str(file), None).students == tuple(TWO)
        assert typed(str(file), "resnet14").students == ()
        assert typed(str(file), "resnet14").student.name == "resnet14"
    assert typed(str(file), None).student.stem == "small"
    file.write_text(made().to_yaml())  # as a run holds it: the choice stands in the space
    assert typed(str(file), None).students == tuple(TWO)
    assert typed(str(file), "resnet14").students == ()
    assert typed(str(file), "resnet14,resnet8").students == ("resnet14", "resnet8")


def test_a_setting_is_trained_with_the_student_that_it_names() -> None:
    experiment = made(names=["resnet20", "resnet8:w.safetensors"], student__stem="small")
    own, setting = experiment.of({"student": "resnet8:w.safetensors", "learning_rate": 0.1})
    assert (own.student.name, own.student.weights, own.student.stem) == ("resnet8", "w.safetensors", "small")
    assert setting == {"learning_rate": 0.1}
    assert own.students == ()
    assert experiment.of({})[0].student.name == "resnet20"
    with pytest.raises(UserError, match="student = 'resnet14': is none of the students here: resnet20, res"):
        experiment.resolve({"student": "resnet14"})


def test_paths_of_students_hold_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my.py").write_text("def net(): ...\n")
    (tmp_path / "w.safetensors").touch()
    monkeypatch.chdir(tmp_path)
    experiment = made(names=["resnet8:./w.safetensors", "my.py:net"]).anchored()
    assert experiment.students == (f"resnet8:{tmp_path}/w.safetensors", f"{tmp_path}/my.py:net")
    assert [students.label(name) for name in experiment.students] == ["resnet8:w.safetensors", "my.py:net"]
    assert needed_paths(experiment, None) == [f"{tmp_path}/my.py", f"{tmp_path}/w.safetensors"]
    assert students.in_setting({"student": "my.py:net"}) == {"student": f"{tmp_path}/my.py:net"}
    assert experiment.fixed({"student": "my.py:net"}).student.name == f"{tmp_path}/my.py:net"
    content = yaml.safe_load(experiment.to_yaml())
    assert students.place_of(content, "my.py:net") == f"{tmp_path}/my.py:net"
    assert students.place_of(content, "other.py:net") is None


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        ({"student": ["resnet8", "resnet8"]}, "the choice 'resnet8' stands twice"),
        ({"student": ["a/my.py:net", "b/my.py:net"]}, "told apart by their names"),
        ({"student": []}, "list names of networks"),
        ({"student": ["resnet8", 3]}, "list names of networks"),
        ({"student": TWO, "student.arguments": {"width": 2}}, "student.arguments = .* is of one network"),
        ({"student.name": TWO, "student.arguments": {"width": 2}}, "student.arguments = .* is of one network"),
        ({"student.name": TWO, "student.weights": "w.st"}, "write NAME:pretrained or NAME:FILE in the list"),
        ({"space.student": "resnet8"}, "space.student = 'resnet8': is no choice: name one network"),
        ({"space.student": {"choices": TWO}}, "space.student = 'resnet20': stands first, and the section student is"),
        ({"student": TWO, "space.student": {"choices": TWO}}, "the section student lists them already"),
        ({"student": TWO, "search.max_parameters": 0}, "search.max_parameters = 0: must be at least 1"),
        ({"student": TWO, "search.max_latency": 0}, "search.max_latency = 0: must be above 0"),
    ],
)
def test_mistakes_are_sentences(overrides: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        Experiment.load("ce", overrides)


def test_what_has_one_student_refuses_several() -> None:
    from kdsearch.comparison import compare
    from kdsearch.training.single import train_student

    with pytest.raises(UserError, match="several students are searched with one method"):
        made("auto")
    with pytest.raises(UserError, match="several students are searched with one method"):
        Experiment(method="auto", student=TWO)
    with pytest.raises(UserError, match="a training has one student"):
        train_student(made(), "nowhere")
    with pytest.raises(UserError, match="a comparison has one student"):
        compare(["ips"], lambda method, given: made(method), unit="images", amount=1e4)
    generations = [{"student": "resnet20"}, {"student": "resnet8"}]
    with pytest.raises(UserError, match="limits are for a search, not for a generation of a chain"):
        Chain(name="c", generations=generations, search={"max_parameters": 10})
    other = [generations[0], {"student": "resnet8", "hyperparameters": {"student": "resnet20", "alpha": 0.5}}]
    with pytest.raises(UserError, match=r"generations.1: student = 'resnet20': is none of the students here: resnet8"):
        Chain(name="c", generations=other)
    with pytest.raises(UserError, match="must be a name, or a section with a name"):
        Chain(name="c", generations=[*generations, {"student": TWO}])


@pytest.mark.parametrize("text", ["resnet8,", ",", "resnet8,,resnet20"])
def test_a_list_with_a_gap_is_refused(text: str) -> None:
    with pytest.raises(UserError, match=r"--student = .*: write names of networks with commas"):
        typed("ce", text)


@pytest.mark.parametrize(
    ("text", "amount"),
    [("1e6", 10**6), ("500k", 500_000), ("1.5M", 1_500_000), ("1000000", 10**6), ("1_000", 1000), ("2.5e3", 2500)],
)
def test_numbers_of_parameters(text: str, amount: int) -> None:
    assert parse_parameters(text) == amount


@pytest.mark.parametrize(("text", "seconds"), [("5ms", 0.005), ("800us", 0.0008), ("0.1s", 0.1), ("1.5 ms", 0.0015)])
def test_latencies(text: str, seconds: float) -> None:
    assert parse_latency(text) == pytest.approx(seconds)


def test_limits_that_are_none_are_sentences() -> None:
    for text in ("", "0", "-1", "1g", "many", "0.2", "1e99"):
        with pytest.raises(UserError, match=r"--max-params = .*: give a number of parameters"):
            parse_parameters(text)
    for text in ("5", "0ms", "ms", "5 m", "1e-3s"):
        with pytest.raises(UserError, match=r"--max-latency = .*: give a time with its unit"):
            parse_latency(text)
    assert parse_parameters(None) is None
    assert parse_latency(None) is None


def test_the_first_students_paper_setting_and_control_come_first_then_those_of_the_others() -> None:
    experiment = made("kd")
    agenda = Agenda(experiment, [{"student": "resnet8", "alpha": 0.5}])
    told = [(role, setting["student"], setting["alpha"]) for role, setting in agenda.planned]
    paper = experiment.paper()["alpha"]
    assert told == [
        ("paper", "resnet20", paper), ("control", "resnet20", 0.0),
        ("paper", "resnet8", paper), ("control", "resnet8", 0.0), ("try", "resnet8", 0.5),
    ]  # fmt: skip


def test_where_nothing_but_the_student_varies_each_is_tried_once() -> None:
    fixed = {"label_smoothing": 0.2, "learning_rate": 0.1, "weight_decay": 5e-4}
    agenda = Agenda(made(search__trials=50).fixed(fixed))
    assert agenda.trials == len(agenda.planned) == 6
    assert [setting["student"] for role, setting in agenda.planned if role == "try"] == TWO


QUALITY = {"resnet20": 0.9, "resnet8": 0.5}


def run_to(ledger: Ledger, trials: int) -> list[dict[str, Any]]:
    """Run trial after trial, each with a rising curve of its student's quality, until there are so many."""
    while len(ledger.trials) < trials and (trial := ledger.next_trial()) is not None:
        setting = trial.hyperparameters
        top = QUALITY[str(setting["student"])] + float(setting["learning_rate"]) / 10
        for epoch in range(1, 10):
            if ledger.told(trial.number, Report(epoch, top * epoch / 9, seconds=1.0)):
                break
            if epoch == 9:
                ledger.completed(trial.number, top)
    return [trial.hyperparameters for trial in ledger.trials]


def ledger_of(experiment: Experiment, folder: Path, *, resume: bool = False) -> Ledger:
    folder.mkdir(exist_ok=True)
    record = Record(folder, "run", "max", distributions(experiment), resume=resume)
    return Ledger(experiment, tasks.find(experiment.task), record)


def test_the_better_student_gets_most_of_the_trials_and_does_not_end_those_of_the_other(tmp_path: Path) -> None:
    ledger = ledger_of(made(search__trials=40), tmp_path)
    settings = run_to(ledger, 40)
    late = [setting["student"] for setting in settings[20:]]
    assert late.count("resnet20") > 10
    small = [trial for trial in ledger.trials[4:] if trial.hyperparameters["student"] == "resnet8"]
    rates = [float(trial.hyperparameters["learning_rate"]) for trial in small]
    best = small[rates.index(max(rates))]
    assert best.state == "COMPLETE"  # all of the other student's are above it at each rung
    assert any(trial.state == "PRUNED" for trial in small)


def test_a_resumed_search_asks_and_stops_as_the_uninterrupted_one(tmp_path: Path) -> None:
    experiment = made(search__trials=24)
    whole = ledger_of(experiment, tmp_path / "whole")
    settings = run_to(whole, 24)
    run_to(ledger_of(experiment, tmp_path / "halves"), 13)
    reread = Experiment(**yaml.safe_load(experiment.to_yaml()))
    again = ledger_of(reread, tmp_path / "halves", resume=True)
    again.restore()
    assert run_to(again, 24) == settings
    assert [trial.state for trial in again.trials] == [trial.state for trial in whole.trials]


def test_the_probe_of_a_gpu_measures_the_student_that_takes_the_most() -> None:
    experiment = made(names=["resnet8", "resnet20", "resnet14"])
    assert alternatives(experiment)["student"] == ["resnet8", "resnet20", "resnet14"]
    size = {"resnet8": 1, "resnet20": 3, "resnet14": 2}
    assert most_demanding(experiment, (), lambda setting: size[str(setting["student"])])["student"] == "resnet20"


def test_hyperparameters_that_were_taken_home_build_their_student(tmp_path: Path) -> None:
    found = {"student": "resnet8", "learning_rate": 0.03}
    for experiment in (made(), Experiment.load("ce", CHEAP)):
        alone = experiment.fixed(found)
        assert (alone.student.name, alone.students, alone.paper()["learning_rate"]) == ("resnet8", (), 0.03)
    file = tmp_path / "best.yaml"
    file.write_text(yaml.safe_dump(found))
    assert typed("ce", None, str(file)).student.name == "resnet8"
    with pytest.raises(UserError, match=r"--student = 'resnet20': .*best.yaml is for student 'resnet8'"):
        typed("ce", "resnet20", str(file))


def test_code_that_hyperparameters_or_a_list_in_a_file_name_is_refused_unless_typed(tmp_path: Path) -> None:
    code = tmp_path / "my.py"
    code.write_text("raise RuntimeError('it was run')\n")
    name = f"{code}:net"
    file = tmp_path / "file.yaml"
    file.write_text(yaml.safe_dump({"student": name, "learning_rate": 0.1}))
    with pytest.raises(UserError, match=r"names code that would be run: student.name"):
        typed("ce", None, str(file))
    assert typed("ce", name, str(file)).student.name == name
    choice = {"learning_rate": {"low": 0.1, "high": 1}, "student": {"choices": ["resnet8", name]}}
    for content in ({"student": ["resnet8", name]}, {"student": {"name": ["resnet8", name]}}, {"space": choice}):
        file.write_text(yaml.safe_dump({"method": "ce", **content}))
        with pytest.raises(UserError, match=r"names code that would be run: student.name"):
            typed(str(file), None)
        assert load_experiment(str(file), {}, None, None, None, None, allow_code=True).students == ("resnet8", name)
    assert typed("ce", f"resnet8,{name}").students == ("resnet8", name)


def run_of(folder: Path, *choices: str) -> RunBuilder:
    space = {"student": {"choices": list(choices)}} if choices else {}
    content = {"method": "ce", "student": {"name": "resnet20"}, "space": space, "training": {"epochs": 1}, "search": {}}
    run = RunBuilder(folder, experiment=content)
    run.describe(state="COMPLETE")
    return run


def test_a_warm_start_is_of_the_same_students(tmp_path: Path) -> None:
    both = run_of(tmp_path / "both", *TWO)
    add(both, 0.8, student="resnet20", learning_rate=0.1)
    add(both, 0.7, student="resnet8", learning_rate=0.2)
    one = run_of(tmp_path / "one")
    add(one, 0.8, learning_rate=0.3)

    def told(run: RunBuilder, experiment: Experiment) -> list[dict[str, Any]]:
        return [memory["hyperparameters"] for memory in memories(Results(run.folder), experiment)]

    assert told(both, made(names=["resnet8", "resnet14"])) == [{"student": "resnet8", "learning_rate": 0.2}]
    assert told(both, Experiment.load("ce", {"student": "resnet8"})) == [{"learning_rate": 0.2}]
    assert told(one, made()) == [{"student": "resnet20", "learning_rate": 0.3}]
    assert told(one, made(names=["resnet8", "resnet14"])) == []
    assert told(one, Experiment.load("ce", {"student": "resnet8"})) == [{"learning_rate": 0.3}]


def test_a_winner_is_compared_with_the_paper_setting_and_the_control_of_its_own_student(tmp_path: Path) -> None:
    run = run_of(tmp_path / "run", *TWO)
    for role, student, value in (
        ("paper", "resnet20", 0.80), ("control", "resnet20", 0.70), ("paper", "resnet8", 0.60),
        ("control", "resnet8", 0.50), ("search", "resnet8", 0.90), ("search", "resnet20", 0.85),
    ):  # fmt: skip
        add(run, value, role=role, student=student, learning_rate=value)
    results = Results(run.folder)
    assert (results.paper and results.paper.number, results.control and results.control.number) == (2, 3)
    assert results.gain(results.best, results.control) == pytest.approx(0.4)
    found = plan(results, top=2, seeds=2)
    compared = [{part: trial.number for part, trial in found.settings(winner).items()} for winner in found.candidates]
    assert compared == [{"winner": 4, "paper": 2, "control": 3}, {"winner": 5, "paper": 0, "control": 1}]


def measured(name: str, parameters: int, latency: float | None, refused: str | None = None) -> MeasuredStudent:
    return MeasuredStudent(
        student=name, name=name, parameters=parameters, multiply_adds=None, latency=latency, refused=refused
    )


def test_a_row_for_each_student_says_what_it_reached_at_the_end_of_the_budget(tmp_path: Path) -> None:
    run = run_of(tmp_path / "run", "resnet20", "resnet8", "resnet14")
    add(run, 0.80, role="paper", student="resnet20")
    add(run, 0.85, student="resnet20")
    add(run, 0.60, role="control", student="resnet8")
    stopped = run.study.ask()
    stopped.set_user_attr("hyperparameters", {"student": "resnet14"})
    stopped.set_user_attr("role", "search")
    stopped.report(0.99, 1)
    run.study.tell(stopped, state=TrialState.PRUNED)
    assert student_rows(Results(run.folder)) is None
    known = [measured("resnet20", 300, 0.003), measured("resnet8", 100, 0.001), measured("resnet14", 200, 0.002)]
    known.append(measured("resnet110", 9999, None, "has 9,999 parameters, more than the limit of 500"))
    document = StudentsDocument(max_parameters=500, max_latency=None, device="cpu", threads=1, students=known)
    write_students(run.folder, document)
    rows = student_rows(Results(run.folder))
    assert rows is not None
    shown = [(row["name"], row["value"], row["trial"], row["trials"], row["front"]) for row in rows]
    assert shown == [
        ("resnet20", 0.85, 1, 2, True), ("resnet8", 0.60, 2, 1, True), ("resnet14", None, None, 1, False),
        ("resnet110", None, None, 0, False),
    ]  # fmt: skip
    assert json.loads((run.folder / "students.json").read_text())["max_parameters"] == 500
