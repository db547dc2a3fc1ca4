"""Whether a run is confirmed, as `status` and `best` say it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kdsearch.cli.output import say
from kdsearch.results.confirm_state import DAMAGED, INTERRUPTED, RUNNING, confirmation_state, read_confirmation

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kdsearch.results.results import Results


def show_confirmed(results: Results) -> None:
    """What fresh seeds said of the run; how far a confirmation is, and what goes on with one that was interrupted."""
    found = confirmation_state(results)
    if found is None:
        return
    say()
    if found["state"] == RUNNING:
        say(f"Being confirmed on fresh seeds: {_so_far(found)}.", "bold cyan")
    elif found["state"] == INTERRUPTED:
        say(f"Its confirmation is not complete: {_so_far(found)}.", "bold yellow")
        say(f"Go on with:  {confirmed_by(results, found)}", "bold", wrap=False)
    elif found["state"] == DAMAGED:
        say("There is a confirmation, and it cannot be read: give kdsearch confirm again.", "yellow")
        return
    document = read_confirmation(results.folder)
    if document is None:
        return
    from kdsearch.cli.confirm import show_settings

    count = len(document["seeds"]["reporting"])
    trials = "" if document["trials"] == len(results.trials) else f", when the run had {document['trials']} trials"
    say(f"Confirmed on {count} fresh seeds{trials}; the gain is the winner's, on test:", "dim")
    show_settings(document)


def _so_far(confirmation: Mapping[str, Any]) -> str:
    done, trainings = confirmation["done"], confirmation["trainings"]
    return f"{done} of {trainings} trainings have ended" if trainings else "no setting was trained to the full budget"


def confirmed_by(results: Results, confirmation: Mapping[str, Any]) -> str:
    """The command that goes on with a confirmation: where the search was to do it, it is resumed."""
    from kdsearch.cli.views import typed
    from kdsearch.consent import names_code

    flag = " --allow-code" if names_code(results.experiment) else ""
    asked = {name: confirmation[name] for name in ("top", "seeds")}
    if (results.experiment.get("search") or {}).get("confirm") == asked:
        return f"kdsearch resume {typed(results)}{flag}"
    return f"kdsearch confirm {typed(results)} --top {asked['top']} --seeds {asked['seeds']}{flag}"
