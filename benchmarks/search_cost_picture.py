"""How good the settings are that each searcher hands over: `python benchmarks/search_cost_picture.py`.

Draws results/search_cost.json, a panel for each workload: what the handed-over setting lacks to the best of the table
against the epochs spent, as the mean over seeds with its 95 % band, to pictures/search-cost.png. Needs matplotlib.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib as mpl

mpl.use("Agg")
from matplotlib import pyplot
from workloads import WORKLOADS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from matplotlib.axes import Axes

BENCHMARKS = Path(__file__).resolve().parent
SHOWN = {
    "kdsearch": "#0072b2",
    "OptunaSearch + ASHA (stock Ray)": "#d55e00",
    "Optuna TPE + successive halving": "#009e73",
    "Optuna TPE + Hyperband": "#cc79a7",
    "random + ASHA": "#828282",
    "one rung for all, a tenth to the end": "#e69f00",
}
"""Searchers and their colours (Okabe and Ito's); the variants of kdsearch are in the table alone."""
LACKING = 1e-3, 4e-2
"""Before a trial has come to the end, all is lacking."""


def panel(axes: Axes, workload: str, result: Mapping[str, Any]) -> None:
    """The lines of one workload."""
    for name, color in SHOWN.items():
        if name not in result["strategies"]:
            continue
        regret = result["strategies"][name]["regret"]
        mean, half = regret["mean"], regret["half"]
        axes.plot(regret["at"], mean, color=color, label=name, linewidth=2.4 if name == "kdsearch" else 1.5)
        band = [[max(1e-4, m - sign * h) for m, h in zip(mean, half, strict=True)] for sign in (1, -1)]
        axes.fill_between(regret["at"], *band, color=color, alpha=0.15, linewidth=0)
    axes.axhline(0.005 * result["facts"]["best"], color="black", linewidth=0.8, linestyle=":")
    axes.set(title=workload, yscale="log", ylim=LACKING, xlabel="epochs spent, over all slots")
    axes.set(ylabel="accuracy lacking to the best")


def main() -> None:
    recorded = json.loads((BENCHMARKS / "results" / "search_cost.json").read_text())
    results = {workload: recorded[workload] for workload in WORKLOADS if workload in recorded}
    columns = min(len(results), 2)
    rows = -(-len(results) // columns)
    figure, panels = pyplot.subplots(rows, columns, figsize=(6 * columns, 3.9 * rows + 0.6), squeeze=False)
    for axes, (workload, result) in zip(panels.flat, results.items(), strict=False):
        panel(axes, workload, result)
    for axes in panels.flat[len(results) :]:
        axes.set_axis_off()
    figure.legend(*panels.flat[0].get_legend_handles_labels(), loc="lower center", ncols=3, frameon=False)
    figure.tight_layout(rect=(0, 0.6 / (3.9 * rows + 0.6), 1, 1))
    figure.savefig(BENCHMARKS / "pictures" / "search-cost.png", dpi=110)


if __name__ == "__main__":
    main()
