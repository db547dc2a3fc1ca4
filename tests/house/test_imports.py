"""Imports point downwards, and what is heavy is imported only by what needs it."""

from __future__ import annotations

import ast
import graphlib
import importlib.util
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "kdsearch"

# From the ground up. A module may import from its own layer (there without cycles) and from those below.
LAYERS = (
    {"errors", "files", "user_code", "versions", "wording"},
    {"settings", "search_settings", "objective"},
    {"data", "models", "results"},
    {"tasks", "methods"},
    {
        "space", "spaces", "consent", "anchoring", "consistency", "experiment", "chain", "comparison", "auto",
        "students", "trial_settings",
    },
    {"training"},
    {"tuning"},
    {"cli", "__init__", "__main__"},
)  # fmt: skip
LEVEL = {part: level for level, parts in enumerate(LAYERS) for part in parts}

# Importing it costs no more than itself, and every layer may.
VERSION = ("kdsearch", "__version__")

COMMANDS = (
    "search", "chain", "compare", "resume", "confirm", "ls", "status", "best", "export", "report", "train", "evaluate",
    "methods", "submit", "jobs", "logs", "stop",
)  # fmt: skip


def modules() -> dict[str, Path]:
    """Every module of the package, by its dotted name."""
    names = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        names[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return names


def imported(name: str, path: Path) -> Iterator[tuple[str, str]]:
    """Every `(module, name in it)` that a module imports, wherever in it and for whatever use."""
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            source = importlib.util.resolve_name("." * node.level + (node.module or ""), package)
            yield from ((source, alias.name) for alias in node.names)


def part_of(module: str) -> str:
    """The part of the house that a module belongs to: `kdsearch.data.base` → `data`."""
    return [*module.split("."), "__init__"][1]


def edges() -> Iterator[tuple[str, str, str]]:
    """`(importing module, its part, imported part)` for every import from one part into another."""
    known = modules()
    for module, path in known.items():
        for source, name in imported(module, path):
            if source.split(".")[0] != "kdsearch" or (source, name) == VERSION:
                continue
            target = f"{source}.{name}" if f"{source}.{name}" in known else source
            if part_of(target) != part_of(module):
                yield module, part_of(module), part_of(target)


def run_python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


def assert_imports_without(names: Iterable[str], forbidden: set[str]) -> None:
    """Import the modules one after the other in a new process; none may have brought in a forbidden library."""
    code = f"""
import importlib, sys
for name in {list(names)!r}:
    importlib.import_module(name)
    found = {forbidden!r} & set(sys.modules)
    if found:
        sys.exit(f"importing {{name}} imports {{', '.join(sorted(found))}}")
"""
    result = run_python(code)
    assert result.returncode == 0, result.stderr


def test_every_part_has_a_layer() -> None:
    assert {part_of(name) for name in modules()} <= set(LEVEL), "give the new part a place in LAYERS"


def test_no_import_points_upwards() -> None:
    wrong = {f"{module} imports {target}" for module, part, target in edges() if LEVEL[target] > LEVEL[part]}
    assert not wrong


def test_no_two_parts_import_each_other() -> None:
    below: dict[str, set[str]] = {}
    for _, part, target in edges():
        below.setdefault(part, set()).add(target)
    from_the_ground = list(graphlib.TopologicalSorter(below).static_order())  # its CycleError names the parts
    assert from_the_ground.index("errors") < from_the_ground.index("experiment") < from_the_ground.index("tuning")


def test_only_tuning_names_ray() -> None:
    users = {
        part_of(name)
        for name, path in modules().items()
        if any(s.split(".")[0] == "ray" for s, _ in imported(name, path))
    }
    assert users <= {"tuning"}


def test_nothing_below_tuning_brings_in_ray() -> None:
    below = [name for name in modules() if LEVEL[part_of(name)] < LEVEL["tuning"]]
    assert_imports_without(below, {"ray"})


def test_processes_of_trials_bring_in_neither_optuna_nor_the_books() -> None:
    assert_imports_without(["kdsearch.tuning.trainable", "kdsearch.tuning.objective"], {"optuna", "torch"})


def test_results_need_neither_ray_nor_torch_nor_optuna() -> None:
    names = [name for name in modules() if part_of(name) in ("results", "__init__")]
    assert_imports_without(names, {"ray", "torch", "optuna"})


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help_comes_without_the_heavy_libraries(command: str) -> None:
    arguments = ["kdsearch", *command.split(), "--help"]
    result = run_python(f"""
import sys
from kdsearch.cli import main
sys.argv = {arguments!r}
try:
    status = main()
except SystemExit as end:
    status = end.code
print("heavy:", sorted({{"torch", "ray", "optuna"}} & set(sys.modules)))
sys.exit(status)
""")
    assert result.returncode == 0, result.stderr
    assert "Usage" in result.stdout
    assert result.stdout.splitlines()[-1] == "heavy: []"
