"""The confirmation of a run: what is trained again, the book of what was done, and what follows from it.

Two disjoint sets of fresh seeds. On the first the best settings of the search are trained, and validation decides among
them. On the second the winner, the paper's setting and the control are trained; their figures are reported, and the
test split is read once for each of these students. What a figure is reported from, nothing was chosen by.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from statistics import fmean
from typing import TYPE_CHECKING, Any

from kdsearch.errors import InvalidSetting, RunError
from kdsearch.results.confirm_log import TEST, Log
from kdsearch.results.confirm_state import DOCUMENT as DOCUMENT
from kdsearch.results.confirm_state import FOLDER as FOLDER
from kdsearch.results.confirm_state import read_confirmation as read_confirmation
from kdsearch.results.statistics import BOOTSTRAP_FROM, LEVEL, holm, interval, p_value, probability_positive
from kdsearch.results.storage import run_name

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from kdsearch.results.results import Results, Trial

WINNER, PAPER, CONTROL = "winner", "paper", "control"

Document = dict[str, Any]


@dataclass(frozen=True)
class Plan:
    """What a confirmation trains."""

    candidates: tuple[Trial, ...]
    """The best settings of the search, the best first; without the control."""
    papers: Mapping[int, Trial]
    """The paper's setting to compare each candidate with, by its number: that of its own method."""
    controls: Mapping[int, Trial]
    """The control to compare each candidate with, by its number: that of its own student."""
    deciding: tuple[int, ...]
    """Seeds on which validation decides among the candidates; none where there is one candidate."""
    reporting: tuple[int, ...]
    """Seeds that the figures come from."""
    sign: int
    """1 where more of the metric is better, −1 where less is."""
    asked: Mapping[str, int]
    """As how many settings and seeds it was asked for: `top`, `seeds`."""

    def settings(self, winner: Trial) -> dict[str, Trial]:
        """What is trained on the reporting seeds, by its part; the paper's setting is left out where it has won."""
        paper = self.papers.get(winner.number)
        found = {WINNER: winner, PAPER: paper, CONTROL: self.controls.get(winner.number)}
        distinct = {part: trial for part, trial in found.items() if trial is not None}
        if paper is not None and _same(paper, winner):
            del distinct[PAPER]
        return distinct


def plan(results: Results, top: int, seeds: int) -> Plan:
    """What to train for the `top` best settings of a run, with so many seeds in each of the two sets.

    More seeds or more settings later add to what was trained with fewer. Raises InvalidSetting, and RunError when no
    setting of the method was trained to the end.
    """
    if top < 1:
        raise InvalidSetting("--top", top, "must be at least 1, the best setting of the search")
    if seeds < 2:
        raise InvalidSetting("--seeds", seeds, "must be at least 2: one training shows no spread to judge by")
    ended = [trial for trial in results.top(len(results.trials)) if trial.state == "COMPLETE"]
    candidates: list[Trial] = []
    for trial in ended:
        if trial.role != CONTROL and not any(_same(trial, other) for other in candidates):
            candidates.append(trial)
    if not candidates:
        raise RunError(
            f"run {results.name!r} has nothing to confirm: none of its {len(results.trials)} trials trained a setting "
            "of the method to the full budget"
        )
    chosen = [_under_papers_number(trial, results.paper_of(trial)) for trial in candidates[:top]]
    papers = {trial.number: paper for trial in chosen if (paper := results.paper_of(trial)) is not None}
    controls = {trial.number: control for trial in chosen if (control := results.control_of(trial)) is not None}
    deciding, reporting = fresh_seeds(int(results.experiment.get("seed") or 0), seeds)
    return Plan(
        candidates=tuple(chosen),
        papers=papers,
        controls=controls,
        deciding=deciding if len(chosen) > 1 else (),
        reporting=reporting,
        sign=1 if results.mode == "max" else -1,
        asked={"top": top, "seeds": seeds},
    )


def _under_papers_number(trial: Trial, paper: Trial | None) -> Trial:
    """The trial; of a setting that is the paper's, the paper's."""
    return paper if paper is not None and _same(trial, paper) and paper.state == "COMPLETE" else trial


def fresh_seeds(seed: int, count: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Two disjoint sets of `count` seeds that are not the search's own; a larger count begins with the smaller's."""
    after = [(seed + step) % 2**32 for step in range(1, 2 * count + 1)]
    return tuple(after[0::2]), tuple(after[1::2])


def _same(trial: Trial, other: Trial) -> bool:
    return trial.hyperparameters == other.hyperparameters


def decide(candidates: Sequence[int], values: Mapping[int, Sequence[float | None]], sign: int) -> int | None:
    """The candidate with the best mean on the deciding seeds; of equal ones the first.

    None stands for a training that diverged: fewer of these go before everything else. None when every training did.
    """

    def rank(candidate: int) -> tuple[int, float]:
        known = [value for value in values[candidate] if value is not None]
        return len(values[candidate]) - len(known), -sign * fmean(known) if known else 0.0

    able = [candidate for candidate in candidates if any(value is not None for value in values[candidate])]
    return min(able, key=rank, default=None)


def winner(plan: Plan, log: Log) -> Trial | None:
    """The candidate that validation on the deciding seeds chose; None when each of their trainings diverged."""
    if len(plan.candidates) == 1:
        return plan.candidates[0]
    values = {trial.number: [log.value(trial.number, seed) for seed in plan.deciding] for trial in plan.candidates}
    chosen = decide([trial.number for trial in plan.candidates], values, plan.sign)
    return next((trial for trial in plan.candidates if trial.number == chosen), None)


def median_seed(plan: Plan, trial: Trial, log: Log) -> int:
    """The reporting seed whose student stands for the setting: the median by validation, of two the worse.

    The best one would look better than the setting is.
    """
    values = {seed: log.value(trial.number, seed) for seed in plan.reporting}
    found = sorted((plan.sign * value, seed) for seed, value in values.items() if value is not None)
    return found[(len(found) - 1) // 2][1]


def conclude(results: Results, plan: Plan, log: Log) -> Document:
    """All figures of a confirmation that is done, as confirm.json holds them."""
    best = winner(plan, log)
    assert best is not None, "every deciding training diverged"
    settings = plan.settings(best)
    reported = {part: _reported(trial, plan.reporting, log) for part, trial in settings.items()}
    return {
        "run": run_name(results.folder),
        "trials": len(results.trials),
        **{name: results.experiment.get(name) for name in ("task", "method")},
        "metric": results.metric,
        "mode": results.mode,
        "asked": dict(plan.asked),
        "seeds": {"deciding": plan.deciding, "reporting": plan.reporting},
        "level": LEVEL,
        "interval": "Student's t" if len(plan.reporting) < BOOTSTRAP_FROM else "expanded percentile bootstrap",
        "probability_better": "of the posterior of the mean paired difference under a flat prior: Student's t",
        "candidates": [_reported(trial, plan.deciding, log) for trial in plan.candidates if plan.deciding],
        "settings": reported,
        "gains": gains(reported, plan.sign),
        "optimism": optimism(reported[WINNER], plan.sign),
        "student": {"trial": best.number, "seed": median_seed(plan, best, log), "chosen": "median by validation"},
        "test_readings": [asdict(done) for done in log.readings],
    }


def _reported(trial: Trial, seeds: Sequence[int], log: Log) -> dict[str, Any]:
    """A setting with its figures on these seeds."""
    rows = [_row(trial, seed, log) for seed in seeds]
    tests = [done for seed in seeds if (done := log.find(TEST, trial.number, seed)) is not None]
    return {
        "trial": trial.number,
        "role": trial.role,
        "hyperparameters": trial.hyperparameters,
        "search": trial.best if trial.state == "COMPLETE" else None,
        "validation": summary([row["validation"] for row in rows]),
        "test": summary([row["test"] for row in rows]),
        "per_class": mean_per_class([done.per_class for done in tests]),
        "per_seed": rows,
    }


def _row(trial: Trial, seed: int, log: Log) -> dict[str, Any]:
    trained, read = log.trained(trial.number, seed), log.find(TEST, trial.number, seed)
    return {
        "seed": seed,
        "validation": trained and trained.value,
        "test": read and read.value,
        "epoch": trained and trained.epoch,
        "seconds": trained and trained.seconds,
        "error": trained and trained.error,
    }


def summary(values: Sequence[float | None]) -> dict[str, Any] | None:
    """Mean and interval of what is known; None when nothing is."""
    known = [value for value in values if value is not None]
    return asdict(interval(known)) if known else None


def mean_per_class(scores: Sequence[Mapping[str, Mapping[str, float | None]]]) -> dict[str, dict[str, float | None]]:
    """The mean of each class over the students, for every metric that is measured by class; None where none has it."""
    found: dict[str, dict[str, list[float]]] = {}
    for student in scores:
        for metric, classes in student.items():
            for name, value in classes.items():
                known = found.setdefault(metric, {}).setdefault(name, [])
                known += [] if value is None else [value]
    return {
        metric: {name: fmean(known) if known else None for name, known in classes.items()}
        for metric, classes in found.items()
    }


def gains(settings: Mapping[str, Mapping[str, Any]], sign: int) -> dict[str, dict[str, Any]]:
    """By how much the winner is better than each other setting, from the differences of equal seeds.

    The p-values of a split are adjusted (Holm) for the number of settings that the winner is compared with.
    """
    best = settings[WINNER]
    found: dict[str, dict[str, Any]] = {
        part: {split: gain(_by_seed(best, split), _by_seed(other, split), sign) for split in ("validation", "test")}
        for part, other in settings.items()
        if part != WINNER
    }
    for split in ("validation", "test"):
        known = [gained[split] for gained in found.values() if gained[split] and gained[split]["p_value"] is not None]
        for entry, adjusted in zip(known, holm([entry["p_value"] for entry in known]), strict=True):
            entry["p_value_holm"] = adjusted
    return found


def gain(values: Mapping[int, float], others: Mapping[int, float], sign: int) -> dict[str, Any] | None:
    """The paired differences of two settings by seed, positive where the first is better; None without any."""
    differences = [sign * (value - others[seed]) for seed, value in values.items() if seed in others]
    if not differences:
        return None
    return {
        **asdict(interval(differences)),
        "probability_better": probability_positive(differences),
        "p_value": p_value(differences),
        "differences": differences,
    }


def _by_seed(setting: Mapping[str, Any], split: str) -> dict[int, float]:
    return {row["seed"]: row[split] for row in setting["per_seed"] if row[split] is not None}


def optimism(setting: Mapping[str, Any], sign: int) -> dict[str, Any] | None:
    """How much better the search made a setting look than it is on validation: its value there less the true mean."""
    known = [row["validation"] for row in setting["per_seed"] if row["validation"] is not None]
    if not known or setting["search"] is None:
        return None
    return asdict(interval(known).shifted(sign * setting["search"], -sign))
