"""What a report tells, section by section."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kdsearch.results.compare_words import state_of_labels
from kdsearch.results.figures import duration, name_of, names_of_students, number, score
from kdsearch.results.progress import budget_in_words
from kdsearch.results.report.answer_section import answer_section
from kdsearch.results.report.blocks import Block, Code, Details, Figure, Section, Table, Text
from kdsearch.results.report.charts import bar_chart, history_chart
from kdsearch.results.report.document import experiment_yaml
from kdsearch.results.report.landscape_section import landscape_section
from kdsearch.results.report.students_section import students_section
from kdsearch.results.report.words import STATES, said_of, value_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from kdsearch.results.report.document import Document

_VERSION = 16  # characters of a version, of which a git revision has more
_STEPS = 12  # improvements that the table of the history shows


def sections(document: Document) -> list[Section]:
    """All sections, in order."""
    found = [
        Section("The question", list(_question(document))),
        answer_section(document),
        students_section(document),
        Section("How the search went", list(_history(document))),
        Section("Rungs", list(_rungs(document))),
        landscape_section(document),
        Section("Where the time went", list(_spending(document))),
        Section("Failures", list(_failures(document))),
        Section("The setting to copy", list(_setting(document))),
        Section("Reproduce it", list(_reproduce(document))),
    ]
    return [section for section in found if section.blocks]


def _question(document: Document) -> Iterator[Block]:
    experiment, better = document.experiment, "higher" if document.mode == "max" else "lower"
    method, data = (name_of(experiment.get(key)) for key in ("method", "data"))
    student = names_of_students(experiment)
    yield Text(
        f"With which hyperparameters does {method or 'the method'} train the student {student or '(not named)'} best "
        f"on {data or 'the data'}? Judged by {document.metric} on the validation split; {better} is better."
    )
    rows = [["method", method], ["student", student], ["teacher", name_of(experiment.get("teacher")) or "none"]]
    rows += [
        ["data", data],
        ["labels", _labels(experiment.get("data"))],
        ["held fixed", _fixed(experiment.get("space"))],
        ["task", name_of(experiment.get("task"))],
        ["metric", f"{document.metric}, {better} is better"],
    ]
    rows += [["budget", budget_in_words(document.progress.budget)], *_search_rows(experiment)]
    yield Table(["", ""], [row for row in rows if row[1]], words=2, label="What was searched")
    space = _space_rows(document)
    if space:
        yield Table(["name", "searched", "paper", "winner"], space, words=2, label="The search space")


def _labels(data: Any) -> str:
    """What a search had of the labels; nothing where they are as they are."""
    section = data if isinstance(data, dict) else {}
    kept, false = section.get("label_fraction", 1), section.get("label_noise", 0)
    known = isinstance(kept, int | float) and isinstance(false, int | float)
    return state_of_labels(kept, false) if known and (kept, false) != (1, 0) else ""


def _fixed(space: Any) -> str:
    """The constants of the space."""
    entries = space if isinstance(space, dict) else {}
    return ", ".join(f"{name} {number(value)}" for name, value in entries.items() if not isinstance(value, dict))


def _search_rows(experiment: Mapping[str, Any]) -> Iterator[list[str]]:
    search, training = (experiment.get(name) for name in ("search", "training"))
    known = search if isinstance(search, dict) else {}
    if isinstance(training, dict) and training.get("epochs"):
        yield ["full budget of a trial", f"{training['epochs']} epochs"]
    for name, label in (("sampler", "sampler"), ("scheduler", "scheduler")):
        if known.get(name):
            yield [label, str(known[name])]
    if experiment.get("seed") is not None:
        yield ["seed", str(experiment["seed"])]


def _space_rows(document: Document) -> list[list[str]]:
    space = document.experiment.get("space")
    entries = space if isinstance(space, dict) else {}
    return [
        [name, _searched(entries[name]), value_of(document.paper, name), value_of(document.winner, name)]
        for name in document.searched
        if name in entries
    ]


def _searched(entry: Any) -> str:
    if isinstance(entry.get("choices"), list):
        return ", ".join(number(choice) for choice in entry["choices"])
    said = f"{number(entry.get('low'))} to {number(entry.get('high'))}"
    notes = [name for name, there in (("log", entry.get("log")), ("or 0", entry.get("or_zero"))) if there]
    notes += [f"step {number(entry['step'])}"] if entry.get("step") else []
    return f"{said} ({', '.join(notes)})" if notes else said


def _history(document: Document) -> Iterator[Block]:
    where = document.progress
    counts = [f"{document.counts[state]} {said_of(state, document)}" for state in STATES if document.counts.get(state)]
    ended = f"{document.state.capitalize()}: {document.why}" if document.why else document.state.capitalize()
    yield Text(f"{ended}. {', '.join(counts) or 'no trials'}; {where.epochs} epochs in {duration(where.elapsed)}.")
    events = document.history
    if not any(event.value is not None for event in events):
        return
    known = {"paper": document.paper, "control": document.control}
    finals = {role: trial.best for role, trial in known.items() if trial and trial.state == "COMPLETE"}
    references = {role: value for role, value in finals.items() if value is not None}
    charts = [history_chart(events, by, document.metric, references) for by in ("epochs", "ended")]
    legend = [("complete", "reached the full budget"), ("stopped", "stopped early or failed: its best score so far")]
    legend += [("best", "best so far among those that reached the full budget")]
    labels = {"paper": "the paper's setting", "control": "no distillation"}
    legend += [(role, f"{labels[role]}, {score(value)}") for role, value in references.items()]
    yield Figure(charts, "Best so far against epochs and against trials, in the order in which trials ended.", legend)
    steps = [event for place, event in enumerate(events) if event.best is not None and _improves(events, place)]
    rows = [[str(event.trial), str(event.ended), str(event.epochs), score(event.best)] for event in steps[-_STEPS:]]
    if rows:
        head = ["trial", "trials ended", "epochs", f"best {document.metric}"]
        yield Details("When the best improved", [Table(head, rows, words=0, label="Improvements")])


def _improves(events: tuple[Any, ...], place: int) -> bool:
    return place == 0 or events[place].best != events[place - 1].best


def _rungs(document: Document) -> Iterator[Block]:
    rungs = document.rungs
    if not rungs or not document.counts:
        return
    total = sum(document.counts.values())
    bars = [(f"{rung.epoch} epochs", float(rung.reached), f"{rung.reached} of {total}") for rung in rungs]
    said = ", ".join(f"{rung.reached} reached epoch {rung.epoch}" for rung in rungs)
    yield Figure(
        [bar_chart(bars, f"Of {total} trials {said}.")], "Trials that reached each rung; the last is the full budget."
    )
    rows = [
        [str(rung.epoch), str(rung.reached), "–" if rung.tau is None else f"{rung.tau:+.2f}", str(rung.ranked)]
        for rung in rungs[:-1]
    ]
    rows.append([f"{rungs[-1].epoch} (the end)", str(rungs[-1].reached), "", ""])
    yield Table(["epoch", "trials that reached it", "Kendall τ with the end", "n"], rows, label="Rungs")
    if len(rungs) < 2:
        return
    yield Text(
        "τ tells how well the ranking at a rung agrees with that at the end: 1 the same, 0 unrelated, −1 reversed. It "
        "knows only the n trials that reached the end. What was stopped is missing there, and that usually lowers τ. "
        "Below five trials it says nothing and is left out."
    )


def _spending(document: Document) -> Iterator[Block]:
    spent = document.spending
    if spent is None:
        return
    shares = [("training, with validation", spent.training), ("around it, inside trials", spent.around)]
    shares += [("slots without a trial", spent.idle)]
    whole = sum(seconds for _, seconds in shares) or 1.0
    bars = [(name, seconds, f"{duration(seconds)}, {100 * seconds / whole:.0f} %") for name, seconds in shares]
    at_once = f"{spent.slots} trial{'s' if spent.slots > 1 else ''} at a time"
    caption = f"Seconds of slots: {duration(spent.elapsed)} with at most {at_once}."
    yield Figure([bar_chart(bars, caption + " " + _listed(bars))], caption)
    rows = [[name, duration(seconds), f"{100 * seconds / whole:.0f} %"] for name, seconds in shares]
    rows += [
        [f"… of training: {said_of(state, document)}", duration(seconds), ""]
        for state, seconds in spent.by_state.items()
    ]
    yield Table(["where", "time", "share"], rows, label="Where the time went")
    first = (
        ""
        if spent.first_report is None
        else (f" From a trial's start to its first report: {duration(spent.first_report)}, the median.")
    )
    yield Text(
        "Around the training lie a trial's start, its checkpoints, what is measured of a finished student, and waiting "
        f"for the driver; a pause between an interruption and a resume counts as time without a trial.{first}"
    )


def _listed(bars: Iterable[tuple[str, float, str]]) -> str:
    return "; ".join(f"{name}: {said}" for name, _, said in bars)


def _failures(document: Document) -> Iterator[Block]:
    if not document.failures:
        yield Text("No trial failed.")
        return
    rows = [[str(len(failure.trials)), _numbers(failure.trials), failure.reason] for failure in document.failures]
    yield Table(["how many", "trials", "reason"], rows, words=3, label="Why trials failed")


def _numbers(trials: tuple[int, ...]) -> str:
    shown = ", ".join(str(trial) for trial in trials[:8])
    return f"{shown}, …" if len(trials) > 8 else shown


def _setting(document: Document) -> Iterator[Block]:
    if document.setting is not None:
        yield Code(document.setting, "yaml")


def _reproduce(document: Document) -> Iterator[Block]:
    for sentence, command in document.commands:
        yield Text(sentence)
        yield Code(command, "bash")
    yield Details("experiment.yaml, absolute paths cut to their last part", [Code(experiment_yaml(document), "yaml")])
    versions = [[name, str(version)[:_VERSION]] for name, version in document.versions.items() if version]
    if versions:
        yield Table(["trained with", "version"], versions, words=2, label="Versions")
    else:
        yield Text("The versions of the libraries are noted with the best student, which the run does not hold yet.")
    yield Text(f"Report written by {document.written_by}.")
