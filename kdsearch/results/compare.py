"""What a comparison has found so far: a row for each search, tested against the reference on equal seeds.

Searched settings are tested against the reference's searched setting, published ones against its published one: like
with like.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from kdsearch.errors import RunError
from kdsearch.files import write_atomic
from kdsearch.results.confirmation import CONTROL, PAPER, WINNER, gain, read_confirmation
from kdsearch.results.documents import read_json, to_json
from kdsearch.results.lock import is_locked
from kdsearch.results.results import Results, Trial
from kdsearch.results.statistics import LEVEL, holm
from kdsearch.results.storage import is_run

DOCUMENT, TABLE, PICTURE = "compare.json", "README.md", "compare.png"
PENDING, SEARCHED, CONFIRMED = "PENDING", "SEARCHED", "CONFIRMED"
PARTS = (WINNER, PAPER, CONTROL)
TESTED = (WINNER, PAPER)
"""What is tested against the reference: each a family of its own for Holm's correction."""

Document = dict[str, Any]
Row = dict[str, Any]


def read_comparison(folder: str | Path) -> Document:
    """The comparison in `folder` as it stands: its compare.json, with what its runs have found since.

    A row has `run`, `name` (of its entry), `method`, `label_fraction`, `label_noise`, `epochs` of one training, `state`
    (PENDING, that of its run, SEARCHED, CONFIRMED, or FAILED with `error`); once begun `trials`, `images` and `seconds`
    spent, and `curve`, the best validation metric so far against what was spent; once confirmed `settings` (of winner,
    paper and control) and `gains` over the reference. Raises RunError.
    """
    folder = Path(folder)
    document = read_json(folder / DOCUMENT)
    try:
        sign = 1 if document["mode"] == "max" else -1
        rows = [_row(folder, row, document) for row in document["rows"]]
        document["rows"] = with_gains(rows, document["reference"], sign)
        document["state"] = _state(folder, rows)
        document["test_readings"] = sum(row["test_readings"] for row in rows)
    except (KeyError, TypeError, IndexError, AttributeError) as error:
        raise RunError(f"{folder / DOCUMENT} is not complete: {error!r}") from None
    return document


def _row(folder: Path, row: Mapping[str, Any], document: Document) -> Row:
    plan = {name: row[name] for name in ("run", "name", "method", "label_fraction", "label_noise", "epochs")}
    found: Row = {**plan, "state": PENDING, "error": document["failures"].get(row["run"]), "test_readings": 0}
    run = folder / row["run"]
    if not is_run(run):
        return found | {"state": "FAILED" if found["error"] else PENDING}
    results = Results(run)
    unit = document["budget"]["unit"]
    found |= {
        "state": SEARCHED if results.state == "COMPLETE" else results.state,
        "trials": len(results.trials),
        "images": sum(trial.images or 0 for trial in results.trials),
        "seconds": sum(trial.seconds for trial in results.trials),
        "curve": best_so_far(results, unit),
    }
    confirmed = read_confirmation(run)
    if confirmed is not None and len(confirmed["seeds"]["reporting"]) >= document["seeds"]:
        found |= {
            "state": CONFIRMED,
            "settings": _settings(confirmed),
            "optimism": confirmed["optimism"],
            "test_readings": len(confirmed["test_readings"]),
        }
    elif found["error"]:
        found["state"] = "FAILED"
    return found


def _settings(confirmed: Mapping[str, Any]) -> dict[str, Any]:
    """Winner, paper and control; a paper's setting that has won stands under both names."""
    settings = dict(confirmed["settings"])
    if PAPER not in settings and settings[WINNER]["role"] == PAPER:
        settings[PAPER] = settings[WINNER]
    names = ("trial", "role", "hyperparameters", "search", "validation", "test", "per_seed")
    return {part: {name: settings[part][name] for name in names} for part in PARTS if part in settings}


def best_so_far(results: Results, unit: str) -> list[list[float]]:
    """The best validation metric of the method's trials so far against what all trials had spent, where it rises.

    An epoch of a trial has cost the same as each of its others. The control, which is without the method, costs and
    does not count. What a trial that still runs has spent is not known in images yet: it is left out.
    """
    points = [
        (point.time or 0.0, trial.number, point.value, _cost(trial, unit), trial.role)
        for trial in results.trials
        for point in trial.curve
    ]
    sign = 1 if results.mode == "max" else -1
    spent, best, found = 0.0, None, []
    for _, _, value, cost, role in sorted(points):
        spent += cost
        if role != CONTROL and (best is None or sign * value > sign * best):
            best = value
            found.append([spent, value])
    return found


def _cost(trial: Trial, unit: str) -> float:
    """What an epoch of the trial cost."""
    whole = trial.seconds if unit == "seconds" else trial.images or 0
    return whole / max(1, trial.epochs)


def with_gains(rows: Sequence[Row], reference: str, sign: int) -> list[Row]:
    """The rows with `gains`: their settings' paired differences to the reference on the same labels, on test.

    Positive is better. `p_value` is that of the two-sided paired t test over seeds, `p_value_holm` the same adjusted
    for all rows of the table (Holm), so that a false claim among the searched settings has a chance of at most 5 %, and
    so among the published ones. A row that is still to come, and differences without spread, count as tests that claim
    nothing: what is claimed early is claimed at the end.
    """
    found = [{**row, "gains": {}} for row in rows]
    for part in TESTED:
        family: list[dict[str, Any]] = []
        for row in found:
            other = _reference_of(row, found, reference)
            gained = None if other is None else gain(_by_seed(row, part), _by_seed(other, part), sign)
            if gained is not None:
                row["gains"][part] = gained
                family.append(gained)
        known = [1.0 if gained["p_value"] is None else gained["p_value"] for gained in family]
        tests = sum(row["name"] != reference for row in found)
        for gained, adjusted in zip(family, holm([*known, *[1.0] * (tests - len(known))]), strict=False):
            gained["p_value_holm"], gained["tests"] = adjusted, tests
    return found


def _reference_of(row: Row, rows: Sequence[Row], reference: str) -> Row | None:
    """The reference on the labels that the row has; None where it is the row itself, or not confirmed yet."""
    if row["name"] == reference or "settings" not in row:
        return None
    labels = ("label_fraction", "label_noise")
    same = (other for other in rows if other["name"] == reference and all(other[key] == row[key] for key in labels))
    return next((other for other in same if "settings" in other), None)


def _by_seed(row: Row, part: str) -> dict[int, float]:
    seeds = row["settings"].get(part, {}).get("per_seed", ())
    return {seed["seed"]: seed["test"] for seed in seeds if seed["test"] is not None}


def claim(gained: Mapping[str, Any] | None) -> int:
    """1 where the setting may be called better than the reference, −1 where worse, else 0.

    Both must say so: the p-value adjusted for the whole table, and the 95 % interval of the difference.
    """
    if gained is None or gained["low"] is None or gained["p_value_holm"] > 1 - LEVEL:
        return 0
    return 1 if gained["low"] > 0 else -1 if gained["high"] < 0 else 0


def _state(folder: Path, rows: Sequence[Row]) -> str:
    if all(row["state"] == CONFIRMED for row in rows):
        return "COMPLETE"
    if is_locked(folder):
        return "RUNNING"
    return "FAILED" if any(row["error"] for row in rows) else "INTERRUPTED"


def write_comparison(folder: Path, document: Document) -> Document:
    """Write the document, and what the runs say now as compare.json, README.md and compare.png; that document."""
    from kdsearch.results.compare_picture import comparison_picture  # who only reads draws nothing
    from kdsearch.results.compare_words import markdown

    write_atomic(folder / DOCUMENT, to_json(document).encode())
    current = read_comparison(folder)
    write_atomic(folder / DOCUMENT, to_json(current).encode())
    write_atomic(folder / TABLE, markdown(current).encode())
    write_atomic(folder / PICTURE, comparison_picture(current))
    return current
