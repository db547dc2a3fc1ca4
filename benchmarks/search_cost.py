"""What it costs each searcher to find a good setting, on recorded curves: `python benchmarks/search_cost.py`.

A trial of any setting shows what a Gaussian process, fitted to the recorded settings, expects of it, and what a
recorded seed differed by (surrogate.py). Slots run side by side, an epoch takes each the same time. A setting is good
when its expected end (of the last epoch, averaged weights, without noise) is within 0.5 % of the best recorded
setting's. Counted are the epochs trained, over all slots, until a trial of a good setting has come to the end; and
until one is among the three that ended highest, which are those that `kdsearch confirm` decides among: a search that
cannot tell a good setting from a lucky one has found it and does not know.
Prints, for each workload, how noise and spread compare, how well each rung ranks, and medians over `--seeds` with
quartiles; writes results/search_cost.json, from which search_cost_picture.py draws how good the settings are that
ended highest.
"""

from __future__ import annotations

import argparse
import heapq
import json
import os
import warnings
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median, quantiles
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import optuna
from numpy.typing import NDArray
from recorded import facts, read_table
from sklearn.exceptions import ConvergenceWarning  # type: ignore[import-untyped]
from strategies import STRATEGIES
from strategy import Strategy
from surrogate import Surrogate, ranks
from workloads import EPOCHS, WORKLOADS, workload

# In every process: each search makes studies, of which Optuna would tell.
optuna.logging.set_verbosity(optuna.logging.WARNING)

RESULT = Path(__file__).resolve().parent / "results" / "search_cost.json"
WITHIN = 0.005
CONFIRMED = 3
"""The settings that `kdsearch confirm` takes, by default."""


@dataclass
class Trial:
    """A trial that runs or waits: what it shows epoch by epoch, its expected end, how far it is."""

    curve: NDArray[np.float64]
    end: float
    epoch: int = 0


@dataclass
class Searched:
    """What a search came to as it went on."""

    ends: list[float]
    """After each epoch spent, over all slots: the denoised end of the setting whose trial ended highest."""
    found: int | None = None
    """The epochs until a trial of a good setting had come to the end; None: not in time."""
    known: int | None = None
    """The epochs until one was among the three that ended highest."""


def search(strategy: Strategy, surrogate: Surrogate, seed: int, slots: int, shown: int, most: int) -> Searched:
    """A search of so many epochs as are `shown`; of more, at most `most`, where it knows of nothing good by then."""
    good = surrogate.best * (1 - WITHIN)
    random = np.random.default_rng(seed)
    trials: list[Trial] = []
    due: list[tuple[int, int]] = []
    highest: list[tuple[float, float]] = []
    clock, searched = 0, Searched([])
    while len(searched.ends) < (shown if searched.known else most):
        while len(due) < slots and (next_one := strategy.ask(len(trials))) is not None:
            if isinstance(next_one, int):  # it has waited
                heapq.heappush(due, (clock + 1, next_one))
                continue
            trials.append(Trial(*surrogate.training(next_one, random, strategy.stages, strategy.shows)))
            heapq.heappush(due, (clock + 1, len(trials) - 1))
        clock, number = heapq.heappop(due)
        trial = trials[number]
        value = float(trial.curve[trial.epoch])
        trial.epoch += 1
        spent, complete = len(searched.ends) + 1, trial.epoch == len(trial.curve)
        if complete:
            highest = sorted([*highest, (value, trial.end)], reverse=True)[:CONFIRMED]
            if searched.found is None and trial.end >= good:
                searched.found = spent
            if searched.known is None and any(end >= good for _, end in highest):
                searched.known = spent
        searched.ends.append(highest[0][1] if highest else 0.0)
        if complete or (not np.isnan(value) and strategy.told(number, trial.epoch, value)):
            strategy.ended(number, value, complete=complete)
        else:
            heapq.heappush(due, (clock + 1, number))
    return searched


def study(name: str, strategy_name: str, surrogate: Surrogate, seed: int, options: argparse.Namespace) -> Searched:
    """The search of a strategy with one seed."""
    strategy = STRATEGIES[strategy_name](workload(name), seed)
    return search(strategy, surrogate, seed, options.slots, options.shown, options.most)


def regrets(searched: Sequence[Searched], best: float, shown: int) -> dict[str, list[float]]:
    """What the settings that ended highest lack to the best, each 27 epochs: mean over seeds, and the half width of
    its 95 % interval."""
    at = np.arange(EPOCHS, shown + 1, EPOCHS)
    missing = best - np.array([[one.ends[spent - 1] for spent in at] for one in searched])
    half = 1.96 * missing.std(0, ddof=1) / np.sqrt(len(searched))
    return {"at": at.tolist(), "mean": missing.mean(0).round(5).tolist(), "half": half.round(5).tolist()}


def cells(taken: Sequence[int | None], most: int) -> str:
    """Median, quartiles and how many were not in time, which count as all that they were given."""
    values = [most if value is None else value for value in taken]
    low, _, high = quantiles(values, n=4) if len(values) > 1 else (values[0],) * 3
    missed = sum(value is None for value in taken)
    return f"{median(values):.0f} | {low:.0f} to {high:.0f} | {missed} of {len(taken)}"


def _short(value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:.3g}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workloads", nargs="+", choices=WORKLOADS, default=list(WORKLOADS))
    parser.add_argument("--strategies", nargs="+", choices=STRATEGIES, default=list(STRATEGIES))
    parser.add_argument("--seeds", type=int, default=50)
    parser.add_argument("--slots", type=int, default=4)
    parser.add_argument("--shown", type=int, default=1080, help="epochs that each search is given in the picture")
    parser.add_argument(
        "--most", type=int, default=2000, help="epochs after which one that knows of no good setting ends"
    )
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--dry", action="store_true", help="write no results")
    options = parser.parse_args()
    # A length of the process at its upper bound says that a hyperparameter does not matter.
    warnings.simplefilter("ignore", ConvergenceWarning)
    for name in options.workloads:
        table = read_table(name)
        if table is None:
            print(f"{name}: fewer than 20 settings are recorded with several seeds")
            continue
        surrogate = Surrogate(table)
        good = surrogate.recorded_ends >= surrogate.best * (1 - WITHIN)
        of_good = {"best expected": surrogate.best, "good": int(good.sum()), **surrogate.ahead(good)}
        facts_of = {**facts(table), **ranks(table), **of_good}
        print(f"\n{name}: {', '.join(f'{what} {_short(value)}' for what, value in facts_of.items())}")
        print(f"| {options.seeds} seeds, {options.slots} slots | found, epochs | quartiles | not in time", end=" | ")
        print("among the best three | quartiles | not in time |")
        print("|---|---|---|---|---|---|---|")
        with ProcessPoolExecutor(options.processes) as processes:
            for strategy in options.strategies:
                one = partial(study, name, strategy, surrogate, options=options)
                searched = list(processes.map(one, range(options.seeds)))
                found, known = [each.found for each in searched], [each.known for each in searched]
                print(f"| {strategy} | {cells(found, options.most)} | {cells(known, options.most)} |", flush=True)
                regret = regrets(searched, surrogate.best, options.shown)
                result = {"found": found, "known": known, "regret": regret}
                if not options.dry:
                    write(name, {"facts": facts_of, "slots": options.slots, "most": options.most}, strategy, result)


def write(name: str, common: dict[str, Any], strategy: str, result: dict[str, Any]) -> None:
    """Put the searches of a strategy in a workload beside those that are there."""
    results = json.loads(RESULT.read_text()) if RESULT.is_file() else {}
    there = results.setdefault(name, {"strategies": {}})
    there |= common
    there["strategies"][strategy] = result
    RESULT.write_text(json.dumps(results) + "\n")


if __name__ == "__main__":
    main()
