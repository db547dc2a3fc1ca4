"""What a confirmation says, in sentences no wider than its intervals; and its section of a model card."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kdsearch.results.confirmation import CONTROL, PAPER, WINNER
from kdsearch.results.figures import ends as ends
from kdsearch.results.figures import gain, score

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    Confirmation = Mapping[str, Any]

NAMES = {WINNER: "the winner", PAPER: "the paper's setting", CONTROL: "the student without distillation"}


def probability(value: float | None) -> str:
    """A probability in percent, never rounded to certainty."""
    if value is None:
        return "–"
    return "> 99 %" if value > 0.99 else "< 1 %" if value < 0.01 else f"{100 * value:.0f} %"


def verdicts(confirmation: Confirmation) -> list[str]:
    """What is found about the winner, one sentence each."""
    best = confirmation["settings"][WINNER]
    found = ["No searched setting was better than the paper's own."] if best["role"] == PAPER else []
    found += [_verdict(part, gained["test"]) for part, gained in confirmation["gains"].items()]
    looked = confirmation["optimism"]
    if looked is not None:
        said, found_again = score(best["search"]), score(best["validation"]["mean"])
        found.append(
            f"Optimism of the search: {gain(looked['mean'])}{_in_brackets(looked)}; on validation it said "
            f"{said}, fresh seeds say {found_again}."
        )
    return found + list(_cautions(confirmation))


def _verdict(part: str, gained: Mapping[str, Any] | None) -> str:
    name = NAMES[part]
    if gained is None or gained["count"] < 2:
        return f"Nothing can be said of the winner against {name}: too few of their trainings ended well."
    if gained["low"] is None:
        difference = f"{gain(gained['mean'])} on test on each of {gained['count']} seeds"
        return f"Whether the winner beats {name} stays open: {difference}, which shows no spread to judge by."
    figures = (
        f"{gain(gained['mean'])} on test{_in_brackets(gained)}, "
        f"better with probability {probability(gained['probability_better'])}"
    )
    if gained["low"] > 0:
        return f"The winner beats {name}: {figures}."
    if gained["high"] < 0:
        return f"The winner is worse than {name}: {figures}."
    return f"Whether the winner beats {name} stays open: {figures}."


def _in_brackets(interval: Mapping[str, Any]) -> str:
    return f" (95 % interval {ends(interval, gain)})" if interval["low"] is not None else ""


def _cautions(confirmation: Confirmation) -> Iterator[str]:
    for part, setting in confirmation["settings"].items():
        rows = setting["per_seed"]
        failed = sum(row["error"] is not None for row in rows)
        if failed:
            yield f"{failed} of {len(rows)} trainings of {NAMES[part]} diverged and count nowhere in its figures."


def scope(confirmation: Confirmation) -> str:
    """What the figures are made of, and what their intervals do not hold."""
    count = len(confirmation["seeds"]["reporting"])
    return (
        f"Means over {count} seeds that no setting was chosen by, with 95 % intervals ({confirmation['interval']}) and "
        "differences of equal seeds. They hold the luck of initialisation, data order and augmentation; the data "
        "split, the test images and a teacher are the same for all."
    )


def readings(confirmation: Confirmation) -> str:
    """How often the test split was read."""
    students = {(reading["trial"], reading["seed"]) for reading in confirmation["test_readings"]}
    count = len(confirmation["test_readings"])
    once = ", once for each of them" if count == len(students) else ""
    return f"The test split was read {count} times, for {len(students)} students{once}."


def card_section(confirmation: Confirmation, metric: str) -> str:
    """The section of a model card."""
    lines = [f"| | trial | test {metric} | 95 % interval | validation |", "|---|---|---|---|---|"]
    for part, setting in confirmation["settings"].items():
        test, validation = (setting[split] or {"mean": None} for split in ("test", "validation"))
        row = [part, setting["trial"], score(test["mean"]), ends(setting["test"]), score(validation["mean"])]
        lines.append(f"| {' | '.join(map(str, row))} |")
    said = "\n".join(f"- {sentence}" for sentence in verdicts(confirmation))
    return "\n\n".join(
        ["## Confirmed on fresh seeds", "\n".join(lines), said, f"{scope(confirmation)} {readings(confirmation)}"]
    )
