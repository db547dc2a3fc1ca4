"""What a report says in answer: the winner, its gains, and how sure they are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kdsearch.results.confirmation import CONTROL, PAPER, WINNER
from kdsearch.results.figures import duration, gain, score
from kdsearch.results.report.blocks import Block, Cards, Section, Table, Text
from kdsearch.results.report.words import SHORT, STATES, is_left, value_of
from kdsearch.results.verdict import NAMES, ends

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from kdsearch.results.report.document import Document
    from kdsearch.results.results import Trial


def answer_section(document: Document) -> Section:
    """The winner, confirmed where it is."""
    return Section("The answer", list(_answer(document)))


def _answer(document: Document) -> Iterator[Block]:
    winner, metric = document.winner, document.metric
    if winner is None:
        yield Text(_nothing(document))
        return
    confirmed = document.confirmed
    yield Cards(
        _confirmed_cards(confirmed.figures, metric) if confirmed and confirmed.figures else _cards(document, winner)
    )
    yield from (Text(sentence) for sentence in _remarks(document))
    if confirmed is None:
        count = document.counts.get("COMPLETE", 0)
        among = f"the best of {count} noisy ones" if count > 1 else "that of a single training"
        yield Text(
            f"Not confirmed: the winner's figure is {among}, so it looks better than it is. "
            f"kdsearch confirm {document.run} trains it anew on fresh seeds.",
            caution=True,
        )
    else:
        yield from _confirmation(confirmed.figures, metric)
        yield from (Text(sentence) for sentence in confirmed.said)
    yield _top(document)


def _cards(document: Document, winner: Trial) -> list[tuple[str, str, str]]:
    return [
        (f"{document.metric} of the winner", score(winner.best), f"trial {winner.number}, on validation"),
        ("gain over the paper's setting", gain(document.over_paper), _compared(document.paper, winner)),
        ("gain over no distillation", gain(document.over_control), _compared(document.control, winner)),
    ]


def _confirmed_cards(figures: Mapping[str, Any], metric: str) -> list[tuple[str, str, str]]:
    """The winner's figures on the test split; those of the search come behind them."""
    best = figures["settings"][WINNER]
    cards = [(f"test {metric} of the winner", score(_mean(best["test"])), _interval(best["test"], score))]
    for part, title in ((PAPER, "gain over the paper's setting"), (CONTROL, "gain over no distillation")):
        gained = figures["gains"].get(part)
        if gained is not None:
            cards.append((f"{title}, on test", gain(_mean(gained["test"])), _interval(gained["test"], gain)))
    return cards


def _mean(figures: Mapping[str, Any] | None) -> float | None:
    return None if figures is None else figures["mean"]


def _interval(figures: Mapping[str, Any] | None, figure: Callable[[float | None], str]) -> str:
    said = ends(figures, figure)
    return f"95 % interval {said}" if said else "no interval"


def _nothing(document: Document) -> str:
    total, failed = sum(document.counts.values()), document.counts.get("FAILED", 0)
    if not total:
        return "No trial has started yet."
    if failed == total:
        return f"There is none: all {total} trials failed."
    return "There is none yet: no trial has finished an epoch."


def _compared(other: Trial | None, winner: Trial) -> str:
    if other is None:
        return "was not tried"
    if other.number == winner.number:
        return "is the winner itself"
    reached = score(other.best) if other.best is not None else "no score yet"
    return f"trial {other.number}: {reached}" + ("" if other.state == "COMPLETE" else f", {STATES[other.state]}")


def _remarks(document: Document) -> Iterator[str]:
    winner, best = document.winner, document.top[0] if document.top else None
    if document.provisional:
        yield "No trial has reached the full budget yet: the winner is the best of those that got furthest."
    elif winner is not None and winner.role == "control":
        yield "No setting of the method beat the same student without it (the control)."
    elif winner is not None and winner.role == "paper":
        yield "No searched setting beat the paper's own."
    if winner is not None and document.confirmed is not None and document.confirmed.figures:
        yield (
            f"In the search trial {winner.number} had {score(winner.best)} on validation: {gain(document.over_paper)} "
            f"over the paper's setting, {gain(document.over_control)} over no distillation."
        )
    if winner is not None and best is not None and best.number != winner.number:
        yield (
            f"Trial {best.number} was the best of the search with {score(best.best)}; on fresh seeds "
            f"trial {winner.number} was the better one."
        )


def _confirmation(figures: Mapping[str, Any], metric: str) -> Iterator[Block]:
    if not figures:
        return
    rows = []
    for part, setting in figures["settings"].items():
        test, validation = setting["test"], setting["validation"]
        rows.append([NAMES[part], str(setting["trial"]), score(_mean(test)), ends(test), score(_mean(validation))])
    head = ["confirmed", "trial", f"test {metric}", "95 % interval", "validation"]
    yield Table(head, rows, label="The confirmation on fresh seeds")


def _top(document: Document) -> Table:
    head = ["", "trial", document.metric, "epochs", "state", "time", *document.searched]
    rows = []
    for place, trial in enumerate(document.top, 1):
        role = "" if trial.role == "search" else f" {trial.role}"
        row = [
            str(place),
            f"{trial.number}{role}",
            score(trial.best),
            str(trial.epochs),
            "unfinished" if is_left(trial.state, document) else SHORT[trial.state],
        ]
        rows.append([*row, duration(trial.seconds), *(value_of(trial, name) for name in document.searched)])
    return Table(head, rows, label="The best trials")
