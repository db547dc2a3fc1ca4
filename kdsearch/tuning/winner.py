"""The end of a search: the best student goes to `best/`, losers' weights go."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any

from kdsearch import students
from kdsearch.auto import AUTO, METHOD, gathered
from kdsearch.files import remove_checked
from kdsearch.results import search_facts, write_export
from kdsearch.results.documents import read_json
from kdsearch.results.export import METRICS
from kdsearch.results.samples import read_panels, samples_grid
from kdsearch.results.tensorboard import TrialWriter
from kdsearch.tuning.folder import BEST
from kdsearch.tuning.objective import CHECKPOINT, FACTS, STUDENT

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from kdsearch.results import Results, Trial


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


def is_spent(results: Results, keep: int, *, interrupted: bool) -> Callable[[str], bool]:
    """Whether `keep_best` removes a trial's file, told as `NUMBER/FILE`."""
    best = {trial.number for trial in results.top(keep)}
    running = {trial.number for trial in results.trials if trial.state == "RUNNING"} if interrupted else set()

    def spent(name: str) -> bool:
        number, _, file = name.partition("/")
        if not number.isdigit() or int(number) in running:
            return False
        return file.startswith(CHECKPOINT) or (int(number) not in best and file.startswith(f"{BEST}/"))

    return spent


def take_home(results: Results, metric: str) -> None:
    """Export the best finished student of the run, if there is one yet, with its pictures."""
    best = results.best
    if best is None or best.state != "COMPLETE":
        return
    kept = results.trial_folder(best) / BEST
    if not (kept / FACTS).is_file():  # an objective that leaves no student
        return
    facts = read_json(kept / FACTS) | {"search": search_facts(results, best)}
    if not _is_confirmed(results):
        bring_home(results, best, kept, facts, metric)


def _is_confirmed(results: Results) -> bool:
    """Whether `best/` holds what `kdsearch confirm` made of the trials there are: fresh seeds know better."""
    home = results.folder / BEST / METRICS
    facts = read_json(home) if home.is_file() else {}
    return "confirmation" in facts and facts["confirmation"]["trials"] == len(results.trials)


def bring_home(results: Results, trial: Trial, kept: Path, facts: Mapping[str, Any], metric: str) -> None:
    """Put the student of a trial's setting that a training left in `kept` into the run's `best/`, with its pictures."""
    home = results.folder / BEST
    setting = trial.hyperparameters
    if results.experiment["method"] == AUTO:  # a student is of one method, whose card and hyperparameters say so
        setting = {METHOD: facts["method"], **gathered(str(facts["method"]), setting)}
    if students.STUDENT in setting:  # an export is given to others
        setting = {**setting, students.STUDENT: students.label(str(setting[students.STUDENT]))}
    write_export(home, weights=kept / STUDENT, facts=facts, hyperparameters=setting)
    writer = TrialWriter(home, metric)
    pictures = {picture.stem: picture.read_bytes() for picture in sorted(kept.glob("*.png"))}
    panels = read_panels(kept.parent)
    if panels:
        control = results.control_of(trial)
        without = {} if control is None or control == trial else read_panels(results.trial_folder(control))
        pictures["samples"] = samples_grid(panels, without)
    for name, content in pictures.items():
        writer.image(f"best/{name}", content, facts["epoch"])
        (home / f"{name}.png").write_bytes(content)
