"""What it costs each searcher to find a good setting, on recorded curves: `python benchmarks/search_cost.py`.

A trial of any setting replays a recorded training of the nearest recorded setting (in the space's unit cube, by the
logarithm where the space has it; another choice is as far as the whole range). Slots run side by side, an epoch takes
each the same time. At every moment a searcher would hand over the setting whose trial has come to the end with the
highest value (before any has, nothing); counted are the epochs trained, over all slots, until that setting's denoised
end (the mean over recorded seeds of the last epoch, averaged weights; the best settings have more seeds) is within
0.5 % of the best of the table. Prints, for each workload, how noise and spread compare, how well each rung ranks, and
medians over `--seeds` with quartiles; writes results/search_cost.json, from which search_cost_picture.py draws how
the settings handed over get better.
"""

from __future__ import annotations

import argparse
import heapq
import json
import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import count
from pathlib import Path
from statistics import median, quantiles
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from cube import place
from numpy.typing import NDArray
from record_curves import LOOKED_AT, SHORT, WEIGHTS, recorded, settings
from scipy.stats import kendalltau  # type: ignore[import-untyped]
from strategies import STRATEGIES, Setting, Strategy
from workloads import EPOCHS, WORKLOADS, workload

from kdsearch import data as data_sets

RESULT = Path(__file__).resolve().parent / "results" / "search_cost.json"
WITHIN = 0.005
RUNGS = (*SHORT, EPOCHS)
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Table:
    """The curves of one workload.

    Args:
        coordinates: of the settings in the unit cube, float [settings, hyperparameters].
        curves: accuracy after each epoch, NaN where nobody looked and where a setting has fewer seeds, float [weights
            (raw, averaged), seeds, settings, epochs].
        short: accuracy at the end of trainings whose full budget is a rung's, float [weights, seeds, settings, rungs].
    """

    name: str
    coordinates: Floats
    curves: Floats
    short: Floats

    @cached_property
    def ends(self) -> Floats:
        """The denoised end of each setting, float [settings]."""
        ends: Floats = np.nanmean(self.curves[1, :, :, -1], 0)
        return ends

    @cached_property
    def seeds(self) -> NDArray[np.int64]:
        """How many seeds each setting was trained with, int [settings]: the first ones."""
        found: NDArray[np.int64] = (~np.isnan(self.curves[1, :, :, -1])).sum(0)
        return found

    def shown(self, setting: int, seed: int, *, stages: Sequence[int], raw: bool) -> Floats:
        """What a trial of these trainings shows after each epoch; NaN where it is not looked at."""
        weights = 0 if raw else 1
        shorter: Floats = self.short[weights, seed, setting]
        parts = [np.append(np.full(stage - 1, np.nan), shorter[SHORT.index(stage)]) for stage in stages[:-1]]
        return np.concatenate([*parts, self.curves[weights, seed, setting]])

    def nearest(self, setting: Setting) -> int:
        """The recorded setting that stands for this one."""
        distance = np.abs(self.coordinates - place(workload(self.name), setting)) ** 2
        return int(distance.sum(1).argmin())


def read_table(name: str) -> Table | None:
    """The table of a workload; None where fewer than 20 settings are there."""
    rows = {(row["setting"], row["seed"]): row for row in recorded(name)}
    numbers = sorted(number for number, seed in rows if seed == 0)
    seen = {number: next(seed for seed in count() if (number, seed) not in rows) for number in numbers}
    if len(numbers) < 20:
        return None
    experiment = workload(name)
    images = len(data_sets.load(experiment.data, experiment.task).validation)
    shape = (len(WEIGHTS), max(seen.values()), len(numbers))
    curves, short = np.full((*shape, EPOCHS), np.nan), np.full((*shape, len(SHORT)), np.nan)
    for column, number in enumerate(numbers):
        for seed in range(seen[number]):
            for which, weights in enumerate(WEIGHTS):
                row = rows[number, seed]
                curves[which, seed, column] = _whole(row[weights])
                short[which, seed, column] = [row["short"][str(rung)][which] for rung in SHORT]
    drawn = settings(name, max(numbers) + 1)
    places = np.array([place(experiment, drawn[number]) for number in numbers])
    return Table(name, places, curves / images, short / images)


def _whole(curve: list[int]) -> list[float]:
    """After each epoch, NaN where nobody looked; a diverged training scores nothing from there on."""
    seen: dict[int, float] = dict(zip(LOOKED_AT, [*curve, *[0] * (len(LOOKED_AT) - len(curve))], strict=True))
    return [seen.get(epoch, np.nan) for epoch in range(1, EPOCHS + 1)]


@dataclass
class Trial:
    """A trial that runs or waits: the recorded setting that it replays, what it shows epoch by epoch, how far it is."""

    stands_for: int
    curve: Floats
    epoch: int = 0


@dataclass
class Searched:
    """What a search handed over as it went on."""

    ends: list[float]
    """The denoised end of the setting that would be handed over after each epoch spent, over all slots."""
    good: int | None
    """The epochs until it was within 0.5 % of the best; None: not in time."""


def search(strategy: Strategy, table: Table, seed: int, slots: int, shown: int, most: int) -> Searched:
    """A search of so many epochs as are `shown`; of more, at most `most`, where it has found nothing good by then."""
    enough = table.ends.max() * (1 - WITHIN)
    random = np.random.default_rng(seed)
    trials: list[Trial] = []
    due: list[tuple[int, int]] = []
    clock, highest, end = 0, -1.0, 0.0
    found = Searched([], None)
    while len(found.ends) < (shown if found.good else most):
        while len(due) < slots and (next_one := strategy.ask(len(trials))) is not None:
            if isinstance(next_one, int):  # it has waited
                heapq.heappush(due, (clock + 1, next_one))
                continue
            nearest = table.nearest(next_one)
            of_seed = int(random.integers(table.seeds[nearest]))
            trials.append(Trial(nearest, table.shown(nearest, of_seed, stages=strategy.stages, raw=strategy.raw)))
            heapq.heappush(due, (clock + 1, len(trials) - 1))
        clock, number = heapq.heappop(due)
        trial = trials[number]
        value = float(trial.curve[trial.epoch])
        trial.epoch += 1
        complete = trial.epoch == len(trial.curve)
        if complete and value > highest:
            highest, end = value, float(table.ends[trial.stands_for])
        found.ends.append(end)
        if found.good is None and end >= enough:
            found.good = len(found.ends)
        if complete or (not np.isnan(value) and strategy.told(number, trial.epoch, value)):
            strategy.ended(number, value, complete=complete)
        else:
            heapq.heappush(due, (clock + 1, number))
    return found


def facts(table: Table) -> dict[str, Any]:
    """How much settings differ beside what seeds do, and how well each rung ranks the better half of them.

    `tau`: Kendall's τ of what the first seed shows at a rung with the mean of the other seeds' ends; at the last rung
    it is the ceiling for what any rung could reach.
    """
    most, settings_there = table.curves.shape[1:3]
    better = np.argsort(table.ends)[settings_there // 2 :]
    found: dict[str, Any] = {
        "settings": settings_there,
        "seeds": f"{table.seeds.min()} to {most}",
        "best": float(table.ends.max()),
        "good": int((table.ends >= table.ends.max() * (1 - WITHIN)).sum()),
        "spread": float(table.ends[better].std()),
    }
    if table.seeds[better].min() < 2:
        return found
    ends = table.curves[1, :, better, -1]  # [better settings, seeds]
    found["noise"] = float(np.sqrt(np.nanvar(ends, 1, ddof=1).mean()))
    others = np.nanmean(ends[:, 1:], 1)
    for which, weights in enumerate(WEIGHTS):
        for rung in RUNGS:
            found[f"tau {weights} {rung}"] = _tau(table.curves[which, 0, better, rung - 1], others)
        for column, rung in enumerate(SHORT):
            found[f"tau {weights} {rung} anew"] = _tau(table.short[which, 0, better, column], others)
    return found


def _tau(shown: Floats, ends: Floats) -> float:
    return float(kendalltau(shown, ends).statistic)


def study(name: str, table: Table, seed: int, options: argparse.Namespace) -> Searched:
    """The search of a strategy with one seed."""
    strategy = STRATEGIES[name](workload(table.name), seed)
    return search(strategy, table, seed, options.slots, options.shown, options.most)


def regrets(searched: Sequence[Searched], best: float, shown: int) -> dict[str, list[float]]:
    """How far the handed-over settings are from the best, each 27 epochs: mean over seeds, and the half width of its
    95 % interval."""
    at = np.arange(EPOCHS, shown + 1, EPOCHS)
    missing = best - np.array([[one.ends[spent - 1] for spent in at] for one in searched])
    half = 1.96 * missing.std(0, ddof=1) / np.sqrt(len(searched))
    return {"at": at.tolist(), "mean": missing.mean(0).round(5).tolist(), "half": half.round(5).tolist()}


def row(name: str, taken: list[int | None], most: int) -> str:
    """A line of the table; a search that was not good in time counts as all that it was given."""
    values = [most if value is None else value for value in taken]
    low, _, high = quantiles(values, n=4) if len(values) > 1 else (values[0],) * 3
    missed = sum(value is None for value in taken)
    return f"| {name} | {median(values):.0f} | {low:.0f} to {high:.0f} | {missed} of {len(taken)} |"


def _short(value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:.3g}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workloads", nargs="+", choices=WORKLOADS, default=list(WORKLOADS))
    parser.add_argument("--strategies", nargs="+", choices=STRATEGIES, default=list(STRATEGIES))
    parser.add_argument("--seeds", type=int, default=50)
    parser.add_argument("--slots", type=int, default=4)
    parser.add_argument("--shown", type=int, default=1080, help="epochs that each search is given in the picture")
    parser.add_argument("--most", type=int, default=3000, help="epochs after which one without a good setting ends")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--dry", action="store_true", help="write no results")
    options = parser.parse_args()
    for name in options.workloads:
        table = read_table(name)
        if table is None:
            print(f"{name}: fewer than 20 settings are recorded")
            continue
        known = facts(table)
        print(f"\n{name}: {', '.join(f'{what} {_short(value)}' for what, value in known.items())}")
        print(f"| {options.seeds} seeds, {options.slots} slots | epochs, median | quartiles | not in time |")
        print("|---|---|---|---|")
        with ProcessPoolExecutor(options.processes) as processes:
            for strategy in options.strategies:
                one = partial(study, strategy, table, options=options)
                searched = list(processes.map(one, range(options.seeds)))
                taken = [each.good for each in searched]
                print(row(strategy, taken, options.most), flush=True)
                result = {"epochs": taken, "regret": regrets(searched, known["best"], options.shown)}
                if not options.dry:
                    write(name, {"facts": known, "slots": options.slots, "most": options.most}, strategy, result)


def write(name: str, common: dict[str, Any], strategy: str, result: dict[str, Any]) -> None:
    """Put the searches of a strategy in a workload beside those that are there."""
    results = json.loads(RESULT.read_text()) if RESULT.is_file() else {}
    there = results.setdefault(name, {"strategies": {}})
    there |= common
    there["strategies"][strategy] = result
    RESULT.write_text(json.dumps(results) + "\n")


if __name__ == "__main__":
    main()
