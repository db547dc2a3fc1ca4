"""A comparison in words: its table, what may be said of it, its README. No sentence is wider than its intervals."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from kdsearch.results.compare import CONFIRMED, PARTS, PENDING, PICTURE, SEARCHED, claim
from kdsearch.results.confirmation import CONTROL, PAPER, WINNER
from kdsearch.results.figures import duration, gain, score
from kdsearch.results.verdict import ends

Document = Mapping[str, Any]
Row = Mapping[str, Any]

_PARTS = {WINNER: "searched", PAPER: "published", CONTROL: "undistilled"}
_PARTS_OF_CE = {WINNER: "searched", PAPER: "label smoothing 0.1", CONTROL: "plain labels"}


def titles(document: Document) -> list[str]:
    """The titles of `cells`."""
    labels = ["labels", "of them false"] if has_several(document) else []
    over = f"over {document['reference']}"
    figures = [f"test {document['metric']}", "95 % interval", over, "95 % interval", "p (Holm)"]
    return [*labels, "method", "setting", *figures]


def has_several(document: Document) -> bool:
    """Whether the comparison is made on several states of the labels."""
    return len({labels_of(row) for row in document["rows"]}) > 1


def labels_of(row: Row) -> tuple[float, float]:
    return row["label_fraction"], row["label_noise"]


def lines(document: Document) -> list[tuple[Row, str | None, list[str]]]:
    """The table: row, part and cells of each line; a row that is not confirmed has one line without figures."""
    several = has_several(document)
    found: list[tuple[Row, str | None, list[str]]] = []
    for row in document["rows"]:
        labels = [f"{row['label_fraction']:.0%}", f"{row['label_noise']:.0%}"] if several else []
        if row["state"] != CONFIRMED:
            found.append((row, None, [*labels, row["name"], progress_of(row, document), *[""] * 5]))
            continue
        for part in PARTS:
            if part in row["settings"]:
                found.append((row, part, [*labels, row["name"], _part(row, part), *_figures(row, part)]))
    return found


def _part(row: Row, part: str) -> str:
    if part == PAPER and row["settings"][WINNER]["role"] == PAPER:
        return f"{_names(row)[PAPER]} (won the search)"
    return _names(row)[part]


def _names(row: Row) -> Mapping[str, str]:
    return _PARTS_OF_CE if row["method"] == "ce" else _PARTS


def _figures(row: Row, part: str) -> list[str]:
    test, gained = row["settings"][part]["test"], row["gains"].get(part)
    cells = [score(test and test["mean"]), ends(test)]
    if gained is None:
        return [*cells, "", "", ""]
    return [*cells, gain(gained["mean"]), ends(gained, gain), _p(gained)]


def _p(gained: Mapping[str, Any]) -> str:
    if gained["p_value"] is None:
        return "–"
    return "< 0.001" if gained["p_value_holm"] < 0.001 else f"{gained['p_value_holm']:.3f}"


def progress_of(row: Row, document: Document) -> str:
    """Where a row that is not confirmed stands, in words."""
    if row["error"]:
        return "failed"
    if row["state"] == PENDING:
        return "still to come"
    if row["state"] == SEARCHED:
        return "searched, fresh seeds still to come"
    unit, amount = document["budget"]["unit"], document["budget"]["amount"]
    return f"search {row['state'].lower()}: {min(1.0, row[unit] / amount):.0%} of its budget in ended trials"


def overview(document: Document) -> list[list[str]]:
    """The searched settings at a glance, head first: a line for each method, a column for each state of the labels.

    A cell is the mean on test with the difference to the reference; bold where it may be called better or worse.
    """
    rows = document["rows"]
    states = list(dict.fromkeys(labels_of(row) for row in rows))
    found = {(row["name"], labels_of(row)): _glance(row, row["name"] == document["reference"]) for row in rows}
    head = [
        "method, searched",
        *(f"{kept:.0%}, {false:.0%} false" if false else f"{kept:.0%}" for kept, false in states),
    ]
    names = dict.fromkeys(row["name"] for row in rows)
    return [head, *([name, *(found.get((name, state), "") for state in states)] for name in names)]


def _glance(row: Row, is_reference: bool) -> str:
    if row["state"] != CONFIRMED:
        return "–"
    test, gained = row["settings"][WINNER]["test"], row["gains"].get(WINNER)
    cell = score(test and test["mean"])
    if is_reference or gained is None:
        return cell
    said = f"{cell} ({gain(gained['mean'])})"
    return f"**{said}**" if claim(gained) else said


def findings(document: Document) -> list[str]:
    """What may be said of each entry against the reference, a sentence each."""
    several = has_several(document)
    found = []
    for row in document["rows"]:
        if row["name"] == document["reference"] or row["state"] != CONFIRMED:
            continue
        where = f" at {state_of_labels(*labels_of(row))}" if several else ""
        found.append(_finding(row, row["gains"].get(WINNER), document["reference"], where))
    return found


def _finding(row: Row, gained: Mapping[str, Any] | None, reference: str, where: str) -> str:
    name = f"{row['name']}, searched{where},"
    if gained is None or gained["count"] < 2:
        return f"{name} against {reference}: nothing can be said, too few of their trainings ended well."
    if gained["low"] is None:
        return (
            f"{name} against {reference} stays open: {gain(gained['mean'])} on each of {gained['count']} seeds shows "
            "no spread to judge by."
        )
    figures = f"{gain(gained['mean'])} (95 % interval {ends(gained, gain)}; p = {_p(gained)} after Holm)"
    said = {1: "is better than", -1: "is worse than", 0: "against"}[claim(gained)]
    return f"{name} {said} {reference}{'' if claim(gained) else ' stays open'}: {figures}."


def state_of_labels(fraction: float, noise: float) -> str:
    """What a search had of the labels, in words."""
    return f"{fraction:.0%} of the labels" + (f", {noise:.0%} of them false" if noise else "")


def remarks(document: Document) -> list[str]:
    """How the figures came about, and what they do not say."""
    return [*_how_trained(document), *_how_tested(document), *_cautions(document)]


def _how_trained(document: Document) -> Iterator[str]:
    unit, amount = document["budget"]["unit"], document["budget"]["amount"]
    budget = f"{amount:,.0f} images seen" if unit == "images" else f"{duration(amount)} of training"
    epochs = dict.fromkeys(f"{row['name']} {row['epochs']}" for row in document["rows"])
    cost = "images seen" if unit == "images" else "seconds of training"
    yield (
        f"Each method was searched with the same budget, {budget}, and each student trained at the same cost in "
        f"{cost}: epochs {', '.join(epochs)}."
    )
    if unit == "images":
        yield (
            "Images seen are those that went through a student in training, as often as its method looks at each; a "
            "pass without gradient counts a third. Validation, a teacher's passes and its training are not among them."
        )
    else:
        yield (
            "Seconds are those of training and validation, summed over all trials; a teacher's passes are in them, its "
            "own training is not. What an epoch costs was measured over a few steps before the first search."
        )
    used = [row for row in document["rows"] if row.get(unit)]
    if used:
        most = max(row[unit] for row in used) / amount
        yield f"A search ends with the epochs that run when its budget is spent: at most {most - 1:+.1%} of it here."


def _how_tested(document: Document) -> Iterator[str]:
    seeds = document["seeds"]
    yield (
        f"On {seeds} fresh seeds validation decided among the best {document['top']} settings of each search; means "
        f"and 95 % intervals are over {seeds} other seeds, for each of whose students the test split was read once "
        f"({document['test_readings']} readings)."
    )
    counts = [gained["tests"] for row in document["rows"] for gained in row["gains"].values()]
    if counts:
        yield (
            f"Differences to {document['reference']} are of equal seeds, searched settings against its searched one, "
            f"published against its published one. p is that of the paired t test, adjusted (Holm) for the "
            f"{max(counts)} searched settings that this table tests, and apart for as many published ones."
        )
    yield (
        "The intervals hold the luck of initialisation, data order and augmentation. The data split, the test images, "
        "a teacher and the search itself, which was done once for each, are the same for all seeds."
    )


def _cautions(document: Document) -> Iterator[str]:
    for row in document["rows"]:
        if row["error"] and row["state"] != CONFIRMED:
            yield f"Failed, and tried again when the comparison goes on: {row['error']}."
        for part, setting in row.get("settings", {}).items():
            failed = sum(seed["error"] is not None for seed in setting["per_seed"])
            if failed:
                count = len(setting["per_seed"])
                yield f"{failed} of {count} trainings of {row['run']} ({_names(row)[part]}) diverged and count nowhere."


def _table(head: Sequence[str], *rows: Sequence[str]) -> str:
    cells = [[" ".join(cell.split()).replace("|", "\\|") for cell in row] for row in (head, *rows)]
    first, *others = ("| " + " | ".join(row) + " |" for row in cells)
    return "\n".join([first, "|" + "---|" * len(head), *others])


def markdown(document: Document) -> str:
    """README.md of a comparison: its table, what may be said, how it came about."""
    origin = (
        f"Task {document['task']}, data {document['data']}, student {document['student']}, seed {document['seed']}. "
        f"State: {document['state'].lower()}."
    )
    text = [f"# Comparison {document['comparison']}", origin]
    if has_several(document):
        legend = f"Share of the labels; in brackets the difference to {document['reference']}, bold where it holds:"
        text += [legend, _table(*overview(document))]
    text.append(_table(titles(document), *(cells for _, _, cells in lines(document))))
    said = findings(document)
    if said:
        text.append("\n".join(f"- {sentence}" for sentence in said))
    text.append(f"![best so far against budget]({PICTURE})")
    text.append("\n".join(f"- {remark}" for remark in remarks(document)))
    return "\n\n".join(text) + "\n"
