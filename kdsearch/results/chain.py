"""What a chain has found so far: a row for each generation and control, as a table, remarks and a picture."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kdsearch.errors import RunError
from kdsearch.files import write_atomic
from kdsearch.results.documents import plain, read_json, to_json
from kdsearch.results.export import BEST, METRICS
from kdsearch.results.lock import is_locked
from kdsearch.results.results import Results
from kdsearch.results.storage import is_run

DOCUMENT, TABLE, PICTURE = "chain.json", "README.md", "chain.png"
GIVEN, PENDING = "GIVEN", "PENDING"

MEASURED = ("parameters", "multiply_adds", "input", "latency")
"""What is known of a row's student once it was measured."""
_SCRATCH, _DIRECT = "scratch", "direct"

Document = dict[str, Any]


def read_chain(folder: str | Path) -> Document:
    """The chain in `folder` as it stands: its chain.json, with what its runs have found since.

    A row has `name`, `kind` (generation, control), `student`, `arguments`, `method`, `teacher` (a row's name),
    `trials`, `state` (PENDING, GIVEN, or that of its run); once it has ended, `value` (the task's metric on
    validation), `trial` and `role` of its best trial, `best_taught` (the metric of the best trial that was no control)
    and `seconds` of its search; once measured, `parameters`, `multiply_adds` and `latency` of one image, and
    `compression` over the first generation.
    Raises RunError.
    """
    folder = Path(folder)
    document = read_json(folder / DOCUMENT)
    try:
        rows = [_row(folder, row) for row in document["rows"]]
        first = rows[0].get("parameters")
        for row in rows:
            own = row.get("parameters")
            row["compression"] = first / own if first and own else None
        document["rows"] = rows
        document["state"] = _state(folder, rows)
        document["gain_over_scratch"] = _gain(document, _SCRATCH)
        document["gain_over_direct"] = _gain(document, _DIRECT)
    except (KeyError, TypeError, IndexError, AttributeError) as error:
        raise RunError(f"{folder / DOCUMENT} is not complete: {error!r}") from None
    return document


def _row(folder: Path, row: Mapping[str, Any]) -> dict[str, Any]:
    """The row with what its run says; of weights that were given, all was said when they were measured."""
    if row["state"] == GIVEN:
        return dict(row)
    run = folder / row["name"]
    if not is_run(run):
        return {**row, "state": PENDING}
    results = Results(run)
    found = {**row, "state": results.state, "ended": sum(trial.state != "RUNNING" for trial in results.trials)}
    best = results.best
    if results.state != "COMPLETE" or best is None or not (run / BEST / METRICS).is_file():
        return found | {"so_far": best.best if best else None, "value": None}
    complete = [trial for trial in results.top(len(results.trials)) if trial.state == "COMPLETE"]
    taught = [trial for trial in complete if trial.role != "control"]
    return found | {
        "so_far": None,
        "value": best.best,  # as the search found it: a confirmation may put another student of the setting into best/
        "trial": best.number,
        "role": best.role,
        "best_taught": taught[0].best if taught else None,
        "seconds": sum(trial.seconds for trial in results.trials),
    }


def _state(folder: Path, rows: list[dict[str, Any]]) -> str:
    if all(row.get("value") is not None and row.get("parameters") for row in rows):
        return "COMPLETE"
    if is_locked(folder):
        return "RUNNING"
    return "FAILED" if any(row["state"] == "FAILED" for row in rows) else "INTERRUPTED"


def _gain(document: Document, control: str) -> float | None:
    """By how much the last generation is better than a control."""
    values = {row["name"]: row.get("value") for row in document["rows"]}
    last = [row["value"] for row in document["rows"] if row["kind"] == "generation" and "value" in row]
    generations = sum(row["kind"] == "generation" for row in document["rows"])
    over = values.get(control)
    if len(last) < generations or last[-1] is None or over is None:
        return None
    difference: float = last[-1] - over
    return difference if document["mode"] == "max" else -difference


def with_measures(document: Document, name: str, measures: Mapping[str, Any]) -> Document:
    """The document with what was measured of a row's student."""
    rows = [{**row, **measures} if row["name"] == name else row for row in document["rows"]]
    return {**document, "rows": rows}


def is_measured(row: Mapping[str, Any]) -> bool:
    """Whether the costs of a row's student are known."""
    return all(row.get(name) is not None for name in MEASURED)


def write_chain(folder: Path, document: Document) -> Document:
    """Write the document, and what the runs say now as chain.json, README.md and chain.png; that document."""
    from kdsearch.results.chain_picture import chain_picture  # who only reads draws nothing

    write_atomic(folder / DOCUMENT, to_json(document).encode())
    current = read_chain(folder)
    write_atomic(folder / DOCUMENT, to_json(current).encode())
    write_atomic(folder / TABLE, markdown(current).encode())
    write_atomic(folder / PICTURE, chain_picture(current))
    return current


def titles(document: Document) -> list[str]:
    """The titles of `cells`."""
    return ["", "student", "learns from", document["metric"], "parameters", "compression", "multiply-adds", "latency"]


def cells(row: Mapping[str, Any]) -> list[str]:
    """A row of the table in words and figures; what is not known yet is a dash."""
    latency = row.get("latency")
    return [
        row["name"],
        row["student"] + "".join(f" {name}={value}" for name, value in row["arguments"].items()),
        row["teacher"] or "–",
        figure(row.get("value")),
        _count(row.get("parameters")),
        "–" if row.get("compression") is None else f"{row['compression']:.2f}×",
        _count(row.get("multiply_adds")),
        "–" if latency is None else f"{1000 * latency['seconds']:.3g} ms",
    ]


def figure(value: float | None, sign: str = "") -> str:
    """A metric: four digits behind the point, two where it is 10 or more; `sign` "+" for differences."""
    return "–" if value is None else f"{value:{sign}.4f}" if abs(value) < 10 else f"{value:{sign}.2f}"


def _count(value: int | None) -> str:
    return "–" if value is None else f"{value:,}"


def progress_of(row: Mapping[str, Any], metric: str) -> str:
    """Where a row stands, in words; nothing of one that is done."""
    state = row["state"]
    if state in (GIVEN, PENDING) or row.get("value") is not None:
        return "weights given" if state == GIVEN else "still to come" if state == PENDING else ""
    so_far = "" if row.get("so_far") is None else f", best {metric} so far {figure(row['so_far'])}"
    return f"{state.lower()}: {row['ended']}/{row['trials']} trials ended{so_far}"


def remarks(document: Document) -> list[str]:
    """What the figures say, and what they do not, a sentence each."""
    rows, metric = document["rows"], document["metric"]
    generations = [row for row in rows if row["kind"] == "generation"]
    last = generations[-1]["name"]
    found = []
    for gain, over in (
        (document["gain_over_scratch"], "the same student from scratch"),
        (document["gain_over_direct"], f"the same student taught by {generations[0]['name']} directly"),
    ):
        if gain is not None:
            found.append(f"{last} over {over}: {figure(gain, '+')} {metric}.")
    if found:
        found.append(
            "Above 0 the chain is better. Each control had the last generation's space, number of trials and seed; it "
            "is one seed, and a difference within the spread between seeds says nothing."
        )
    if len(generations) == 2:
        found.append("Of two generations the chain is the direct way itself, so there is no second control.")
    for row in rows:
        if row.get("role") == "control" and row["teacher"]:
            found.append(
                f"{row['name']} is a student without its teacher (trial {row['trial']}): no setting of {row['method']} "
                f"that ran to the end was better (the best reached {figure(row['best_taught'])})."
            )
    return found + _how_measured(rows)


def _how_measured(rows: list[dict[str, Any]]) -> list[str]:
    measured = [row for row in rows if is_measured(row)]
    if not measured:
        return []
    ways = {(row["latency"]["device"], row["latency"]["threads"], tuple(row["input"])) for row in measured}
    forwards = min(row["latency"]["forwards"] for row in measured)
    places = [
        f"{device}, {threads} thread{'s' if threads > 1 else ''}, input {' × '.join(map(str, shape))}"
        for device, threads, shape in sorted(ways)
    ]
    where = "; ".join(places)
    return [
        f"Latency: median of at least {forwards} forward passes of one image on this machine ({where}). Multiply-adds: "
        "of one image. Compression: parameters of the first generation over the student's. "
        "The metric is that of the validation split, which chose the students."
    ]


def markdown(document: Document) -> str:
    """README.md of a chain: its table and remarks."""
    head = titles(document)
    lines = ["| " + " | ".join(head) + " |", "|---|---|---|" + "---:|" * (len(head) - 3)]
    for row in document["rows"]:
        progress = progress_of(row, document["metric"])
        line = [str(plain(cell)).replace("|", "\\|") for cell in cells(row)]
        lines.append("| " + " | ".join([line[0] + (f" ({progress})" if progress else ""), *line[1:]]) + " |")
    origin = f"Task {document['task']}, data {document['data']}, seed {document['seed']}."
    text = [f"# Chain {document['chain']}", origin, "\n".join(lines), f"![the same as a picture]({PICTURE})"]
    notes = "\n".join(f"- {remark}" for remark in remarks(document))
    return "\n\n".join([*text, notes] if notes else text) + "\n"
