"""The end of a search: the best student goes to `best/`, losers' weights go."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

from kdsearch.files import remove_checked
from kdsearch.results import search_facts, write_export
from kdsearch.results.documents import read_json
from kdsearch.results.tensorboard import TrialWriter
from kdsearch.tuning.folder import BEST
from kdsearch.tuning.objective import CHECKPOINT, FACTS, STUDENT

if TYPE_CHECKING:
    from kdsearch.results import Results


def keep_best(results: Results, keep: int, *, interrupted: bool) -> None:
    """Remove checkpoints and weights of all but the `keep` best trials; running ones keep theirs for the resume."""
    best = {trial.number for trial in results.top(keep)}
    for trial in results.trials:
        folder = results.trial_folder(trial)
        if interrupted and trial.state == "RUNNING":
            continue
        remove_checked(folder / CHECKPOINT)
        if trial.number not in best:
            shutil.rmtree(folder / BEST, ignore_errors=True)


def take_home(results: Results, metric: str) -> None:
    """Export the best finished student of the run, if there is one yet, with its pictures."""
    best = results.best
    if best is None or best.state != "COMPLETE":
        return
    kept = results.trial_folder(best) / BEST
    if not (kept / FACTS).is_file():  # an objective that leaves no student
        return
    facts = read_json(kept / FACTS) | {"search": search_facts(results, best)}
    home = results.folder / BEST
    write_export(home, weights=kept / STUDENT, facts=facts, hyperparameters=best.hyperparameters)
    writer = TrialWriter(results.folder / BEST, metric)
    for picture in sorted(kept.glob("*.png")):
        content = picture.read_bytes()
        writer.image(f"best/{picture.stem}", content, facts["epoch"])
        (home / picture.name).write_bytes(content)
