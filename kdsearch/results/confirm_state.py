"""Whether a run is confirmed, and what was found: what `ls`, `status` and `best` say of it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdsearch.errors import RunError, UserError
from kdsearch.files import write_atomic
from kdsearch.results.documents import read_json, to_json
from kdsearch.results.lock import is_locked

if TYPE_CHECKING:
    from kdsearch.results.results import Results

FOLDER = "confirm"
DOCUMENT = "confirm.json"
ASKED = "asked.json"
"""In the folder: with how many settings and seeds a confirmation was begun."""

CONFIRMED, RUNNING, INTERRUPTED, DAMAGED = "CONFIRMED", "RUNNING", "INTERRUPTED", "DAMAGED"


def read_confirmation(folder: Path) -> dict[str, Any] | None:
    """The confirmation of the run in `folder`; None where there is none. Raises RunError when it cannot be read."""
    return read_json(folder / DOCUMENT) if (folder / DOCUMENT).is_file() else None


def note_asked(folder: Path, top: int, seeds: int) -> None:
    """Note what a confirmation of the run in `folder` is about to do."""
    (folder / FOLDER).mkdir(parents=True, exist_ok=True)
    write_atomic(folder / FOLDER / ASKED, to_json({"top": top, "seeds": seeds}).encode())


def confirmation_state(results: Results) -> dict[str, Any] | None:
    """Where the confirmation of a run stands; None where there is none, and none is due.

    `state` is CONFIRMED, RUNNING, INTERRUPTED (nobody drives it, and its command goes on) or DAMAGED (its files cannot
    be read, and all else is None); `top` and `seeds` are what was asked for. Of one that has not ended `done` of
    `trainings` are there. Of one that was concluded, also where it goes on with more: how many `trials` the search had
    then, the winner's `trial`, its value in the `search`, its means and intervals on `validation` and `test`, the
    `gains` on test over the paper's setting and the control, and the `readings` of the test split.
    """
    nothing = dict.fromkeys(("top", "seeds", "done", "trainings", *_OF_WINNER, "trials", "gains", "readings"))
    try:
        found = _found(results)
    except (RunError, KeyError, TypeError, ValueError, AttributeError):
        return {"state": DAMAGED, **nothing}
    return None if found is None else {**nothing, **found}


_OF_WINNER = ("trial", "search", "validation", "test")


def _found(results: Results) -> dict[str, Any] | None:
    wish, document = _wish(results), read_confirmation(results.folder)
    asked = _noted(results.folder) or (document or {}).get("asked") or wish
    if document is None and (asked is None or results.state != "COMPLETE"):
        return None
    found: dict[str, Any] = {}
    if document is not None:
        found = _concluded(document)
        asked = asked or {"top": max(1, len(document["candidates"])), "seeds": len(document["seeds"]["reporting"])}
    assert asked is not None
    state = _state(results, document, asked, grown=wish is not None)
    if state != CONFIRMED:
        found["done"], found["trainings"] = _progress(results, **asked)
    return {"state": state, **asked, **found}


def _state(results: Results, document: dict[str, Any] | None, asked: dict[str, int], *, grown: bool) -> str:
    """`grown`: whether trials that came later are to be confirmed too."""
    if results.state != "RUNNING" and is_locked(results.folder):  # the search has ended, so this is whoever confirms
        return RUNNING
    if document is None or document.get("asked", asked) != asked:
        return INTERRUPTED
    return INTERRUPTED if grown and document["trials"] != len(results.trials) else CONFIRMED


def _concluded(document: dict[str, Any]) -> dict[str, Any]:
    winner = document["settings"]["winner"]
    return {
        "trials": document["trials"],
        **{name: winner[name] for name in _OF_WINNER},
        "gains": {part: gained["test"] for part, gained in document["gains"].items()},
        "readings": len(document["test_readings"]),
    }


def _wish(results: Results) -> dict[str, int] | None:
    """What the search was to confirm by itself."""
    search = results.experiment.get("search")
    confirm = search.get("confirm") if isinstance(search, dict) else None
    return {"top": int(confirm["top"]), "seeds": int(confirm["seeds"])} if confirm else None


def _noted(folder: Path) -> dict[str, int] | None:
    path = folder / FOLDER / ASKED
    return read_json(path) if path.is_file() else None


def _progress(results: Results, top: int, seeds: int) -> tuple[int, int | None]:
    """How many trainings have ended, of how many; None where no setting can be confirmed."""
    from kdsearch.results.confirm_log import Log
    from kdsearch.results.confirmation import plan, winner  # bring in numpy, which reading a run does without

    try:
        found = plan(results, top, seeds)
    except UserError:
        return 0, None
    log = Log(results.folder / FOLDER)
    parts = found.settings(winner(found, log) or found.candidates[0]).values()
    wanted = {(trial.number, seed) for trial in found.candidates for seed in found.deciding}
    wanted |= {(trial.number, seed) for trial in parts for seed in found.reporting}
    return sum(log.trained(*training) is not None for training in wanted), len(wanted)
