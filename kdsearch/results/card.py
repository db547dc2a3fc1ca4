"""The model card of an exported student, and its hyperparameters as a file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from kdsearch.results.documents import plain
from kdsearch.results.students import card_section

PER_CLASS = "per_class"
_MOST_CLASSES = 20


def hyperparameters_yaml(hyperparameters: Mapping[str, Any], comments: Sequence[str] = ()) -> str:
    """A flat mapping that `--hyperparameters` accepts, under a header of comments."""
    header = "".join(f"# {_one_line(comment)}\n" for comment in comments)
    return header + yaml.safe_dump(plain(hyperparameters), sort_keys=False, allow_unicode=True)


def header(facts: Mapping[str, Any]) -> list[str]:
    """What the hyperparameter file says about itself."""
    search = facts.get("search")
    origin = f"trial {search['trial']} of run {search['run']}" if search else "a training without a search"
    return [
        f"Hyperparameters of {origin}: {facts['metric']} {facts['value']:.4f} on validation.",
        f"Train with them: kdsearch train {facts['method']} --hyperparameters hyperparameters.yaml",
    ]


def model_card(facts: Mapping[str, Any]) -> str:
    """README.md of an export, from its metrics.json."""
    sections = [
        _summary(facts),
        _confirmation(facts),
        _loading(facts),
        _origin(facts),
        _hyperparameters(facts),
        _students(facts),
        _per_class(facts),
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def _summary(facts: Mapping[str, Any]) -> str:
    student = facts["student"]
    measured = {name: value for name, value in facts["validation"].items() if name != facts["metric"]}
    others = ", ".join(f"{name} {_figure(value)}" for name, value in measured.items())
    return (
        f"# {_cell(student['name'])}, trained with {_cell(facts['method'])} on {_cell(facts['data']['name'])}\n\n"
        f"{_cell(facts['metric'])} **{facts['value']:.4f}** on the validation split"
        f"{f' ({_cell(others)})' if others else ''}: "
        f"{student['parameters']:,} parameters, the {facts['weights']} weights of epoch {facts['epoch']} "
        f"of {facts['epochs']}.\n"
        f"{_chosen(facts)} {_test_readings(facts)}"
    )


def _chosen(facts: Mapping[str, Any]) -> str:
    """How this student was chosen, and what that means for its figure."""
    confirmation = facts.get("confirmation")
    if not confirmation:
        return "The validation split chose this student, so its figure is a little too good."
    count = len(confirmation["seeds"]["reporting"])
    return (
        f"Of {count} students of its setting, trained with fresh seeds, it is the median by validation. How good the "
        'setting is stands under "Confirmed on fresh seeds".'
    )


def _test_readings(facts: Mapping[str, Any]) -> str:
    """How often the test split was read for this student."""
    count = len(facts.get("test_readings") or ())
    if not count:
        return "The test split took no part; `metrics.json` counts every later reading of it under `test_readings`."
    times = "once" if count == 1 else f"{count} times"
    return f"The test split was read {times} for this student: see `test_readings` in `metrics.json`."


def _confirmation(facts: Mapping[str, Any]) -> str:
    if not facts.get("confirmation"):
        return ""
    from kdsearch.results.verdict import card_section  # brings in numpy, which reading a run does without

    return card_section(facts["confirmation"], _cell(facts["metric"]))


def _loading(facts: Mapping[str, Any]) -> str:
    student = facts["student"]
    height, width = student["size"]
    sides = student.get("input") or student["size"]
    resized = "" if list(sides) == list(student["size"]) else f", resized to {sides[0]} × {sides[1]}"
    several = "value" if student.get("task", "classification") == "classification" else "channel"
    own = f"\nThe network is built by {_cell(student['name'])}, which must be found there." if _is_own(student) else ""
    return (
        "## Load it\n\n"
        f"In this folder, where kdsearch is installed:\n\n```python\n{loading_code(student)}```\n\n"
        f"Input: float [B, {student['channels']}, {height}, {width}], scaled to [0, 1]{resized}, then normalised per "
        f"channel with mean {_numbers(student['mean'])} and standard deviation {_numbers(student['std'])}.\n"
        f"Output: {student['outputs']} {several}s per image{_meaning(facts)}.{own}"
    )


def _meaning(facts: Mapping[str, Any]) -> str:
    """What the outputs are, where they are the classes."""
    if facts["student"]["outputs"] != len(facts.get("classes") or ()):
        return ""
    return "; `classes` in `metrics.json` names them in this order"


def _is_own(student: Mapping[str, Any]) -> bool:
    return ":" in student["name"] and not student["name"].startswith("torchvision:")


def _kind(student: Mapping[str, Any]) -> str:
    """What else than a classifier the network is."""
    task, scale = student.get("task", "classification"), student.get("scale", 1)
    said = "" if task == "classification" else f", task={task!r}"
    return said if scale == 1 else f"{said}, scale={scale!r}"


def loading_code(student: Mapping[str, Any]) -> str:
    """Python that builds the network of an export and loads its weights strictly."""
    return (
        "from kdsearch import models\n\n"
        'folder = "."  # where this file lies\n'
        f"student = models.build(models.from_export(folder), outputs={student['outputs']!r}, "
        f"channels={student['channels']!r}, size={tuple(student['size'])!r}{_kind(student)})\n"
        "student.eval()\n"
    )


def _origin(facts: Mapping[str, Any]) -> str:
    search = facts.get("search") or {}
    rows = {"method": facts["method"], "data": facts["data"]["name"], "seed": facts["seed"]}
    if search:
        rows["search"] = f"run {search['run']}, trial {search['trial']} of {search['trials']}"
    for name, label in (("gain_over_paper", "over the paper's setting"), ("gain_over_control", "over no distillation")):
        if search.get(name) is not None and not facts.get("confirmation"):  # those of the search are less sure
            rows[f"gain {label}"] = f"{search[name]:+.4f} {facts['metric']}"
    if search.get("gpu_hours"):
        rows["cost of the search"] = f"{search['gpu_hours']:.2f} GPU hours"
    versions = facts.get("versions") or {}
    rows["made with"] = ", ".join(f"{name} {version}" for name, version in versions.items() if version)
    return "## How it was made\n\n" + _table(("", ""), rows)


def _hyperparameters(facts: Mapping[str, Any]) -> str:
    return "## Hyperparameters\n\n" + _table(("name", "value"), facts["hyperparameters"])


def _students(facts: Mapping[str, Any]) -> str:
    """Of a search over several students, or with limits: what each reached and costs."""
    rows = (facts.get("search") or {}).get("students")
    return card_section(rows, _cell(facts["metric"])) if rows else ""


def _per_class(facts: Mapping[str, Any]) -> str:
    metric, scores = per_class(facts)
    if not scores:
        return ""
    lowest = list(scores.items())[:_MOST_CLASSES]
    rest = "" if len(scores) <= _MOST_CLASSES else f", the {_MOST_CLASSES} hardest of {len(scores)}"
    rows = {name: _figure(score) for name, score in lowest}
    return f"## {_cell(metric[:1].upper() + metric[1:])} per class{rest}\n\n" + _table(("class", metric), rows)


def per_class(facts: Mapping[str, Any]) -> tuple[str, dict[str, float]]:
    """The metric that the facts give per class (`per_class_accuracy`), and each class's value, the lowest first."""
    for key, scores in facts.items():
        if key.startswith(PER_CLASS) and isinstance(scores, Mapping):
            known = {name: float(score) for name, score in scores.items() if isinstance(score, int | float)}
            metric = key.removeprefix(PER_CLASS).strip("_") or "accuracy"
            return metric, dict(sorted(known.items(), key=lambda entry: entry[1]))
    return "", {}


def _table(titles: tuple[str, str], rows: Mapping[str, Any]) -> str:
    lines = [f"| {titles[0]} | {titles[1]} |", "|---|---|"]
    return "\n".join(lines + [f"| {_cell(name)} | {_cell(value)} |" for name, value in rows.items()])


def _figure(value: float | None) -> str:
    return "not finite" if value is None else f"{value:.4f}"


def _numbers(values: Sequence[float]) -> str:
    return f"({', '.join(f'{value:.4f}' for value in values)})"


def _one_line(text: object) -> str:
    return " ".join(str(text).split())


def _cell(value: object) -> str:
    return _one_line(value).replace("|", "\\|")
