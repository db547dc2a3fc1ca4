"""The command `methods`: which methods there are, and one method's card."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from kdsearch.cli.output import Column, Row, console, number, print_json, safe, say, say_parts, setting, wrapped
from kdsearch.cli.table import print_table
from kdsearch.errors import UserError

if TYPE_CHECKING:
    from kdsearch.methods.base import Method

_BOUNDS = ("minimum", "exclusiveMinimum", "maximum", "exclusiveMaximum")


def methods(
    name: Annotated[str | None, typer.Argument(help="A method, for its card.", metavar="[NAME]")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document and nothing else.")] = False,
) -> None:
    """List the distillation methods, or show one: its hyperparameters, paper values, ranges and citation."""
    from kdsearch import methods as package

    if name is not None:
        card = describe(package.find(name))
        print_json(card) if as_json else _show(card)
        return
    cards = [describe(package.find(known)) for known in package.names()]
    if as_json:
        print_json({"methods": cards})
        return
    columns = [Column("method"), Column("teacher"), Column("cost", right=True, spare=1), Column("tasks", spare=2)]
    print_table(columns, [Row([card["name"], *_facts(card)], text=card["title"]) for card in cards], text="what it is")
    say("Cost: student passes per training image. One method's card: kdsearch methods NAME", "dim")


def _facts(card: dict[str, Any]) -> list[str]:
    return ["yes" if card["needs_teacher"] else "no", f"{card['forwards']:g}", ", ".join(card["tasks"])]


def describe(method: type[Method]) -> dict[str, Any]:
    """The card of a method as one document; ranges are those of JSON Schema, `searched` the shipped space's entry."""
    space = _shipped_space(method.name)
    known = method.Hyperparameters.model_json_schema().get("properties", {})
    return {
        "name": method.name,
        "title": method.title,
        "citation": method.citation,
        "tasks": list(method.tasks),
        "needs_teacher": method.needs_teacher,
        "forwards": method.forwards,
        "paper_training": dict(method.paper_training),
        "hyperparameters": {
            name: {key: value for key, value in entry.items() if key != "title"}
            | {"weight": bool(entry.get("weight")), "searched": space.get(name)}
            for name, entry in known.items()
        },
        "also_searched": {name: entry for name, entry in space.items() if name not in known},
        "notes": list(method.notes),
    }


def _shipped_space(method: str) -> dict[str, Any]:
    """The search space that ships with the method, as its file has it; empty where none does."""
    from kdsearch.experiment import Experiment

    try:
        space: dict[str, Any] = Experiment.load(method).model_dump(mode="json")["space"]
    except UserError:
        return {}
    return space


def _show(card: dict[str, Any]) -> None:
    say(f"{card['name']}  {card['title']}", "bold")
    say(card["citation"], "dim")
    teacher = "learns from a teacher" if card["needs_teacher"] else "needs no teacher"
    say(f"{teacher} · {card['forwards']:g} student passes per training image · for {', '.join(card['tasks'])}")
    say()
    columns = [Column("hyperparameter"), Column("default"), Column("range"), Column("searched in", spare=1)]
    rows = [
        Row([name, number(entry.get("default")), legal(entry), searched(entry["searched"])], text=_meaning(entry))
        for name, entry in card["hyperparameters"].items()
    ]
    print_table(columns, rows, text="meaning")
    if any(entry["weight"] for entry in card["hyperparameters"].values()):
        say("(w): a distillation weight, 0 in the control, which is trial 1", "dim")
    if card["paper_training"]:
        say(f"In the paper trained with {setting(card['paper_training'])}")
    if card["also_searched"]:
        also = [f"{key} {searched(entry)}" for key, entry in card["also_searched"].items()]
        say_parts(["Searched along: " + also[0], *also[1:]])
    say()
    for note in card["notes"]:
        first, *more = wrapped(safe(note), console().width - 2)
        for line in (f"· {first}", *(f"  {part}" for part in more)):
            say(line, wrap=False)
    if card["notes"]:
        say("[doc] the method's own description, [ref] a reference implementation, [ours] a choice of kdsearch", "dim")


def _meaning(entry: dict[str, Any]) -> str:
    return ("(w) " if entry["weight"] else "") + str(entry.get("description", ""))


def legal(entry: dict[str, Any]) -> str:
    """The values that a JSON-Schema entry allows: `[0, 100]`, `(0, 1)`, `≥ 0`, `a, b`; empty for any."""
    if "enum" in entry:
        return ", ".join(number(value) for value in entry["enum"])
    if entry.get("type") == "boolean":
        return "on, off"
    low, above, high, below = (entry.get(bound) for bound in _BOUNDS)
    left = f"[{low:g}" if low is not None else f"({above:g}" if above is not None else "(-∞"
    right = f"{high:g}]" if high is not None else f"{below:g})" if below is not None else "∞)"
    return "" if (left, right) == ("(-∞", "∞)") else f"{left}, {right}"


def searched(entry: Any) -> str:
    """An entry of a search space: `1 to 8 log`, `2, 4, 8`, `= 4`; empty when it is not searched."""
    if entry is None:
        return ""
    if not isinstance(entry, dict):
        return f"= {number(entry)}"
    if "choices" in entry:
        return ", ".join(number(value) for value in entry["choices"])
    parts = [f"{number(entry.get('low'))} to {number(entry.get('high'))}"]
    parts += ["log"] if entry.get("log") else []
    parts += [f"step {number(entry['step'])}"] if entry.get("step") else []
    parts += ["or 0"] if entry.get("or_zero") else []
    return " ".join(parts)
