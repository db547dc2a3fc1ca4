"""Figures in words: metrics, differences, durations, values of hyperparameters; everywhere the same."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any


def score(value: float | None) -> str:
    """A metric: four digits behind the point, two where it is 10 or more (decibels)."""
    if value is None:
        return "–"
    return f"{value:.4f}" if abs(value) < 10 else f"{value:.2f}"


def gain(value: float | None) -> str:
    """A difference of two metrics, with its sign; positive is better."""
    return "–" if value is None else f"{value:+.4f}" if abs(value) < 10 else f"{value:+.2f}"


def ends(interval: Mapping[str, Any] | None, figure: Callable[[float | None], str] = score) -> str:
    """The ends of an interval: `0.9512 to 0.9703`; nothing where there is none."""
    if interval is None or interval["low"] is None:
        return ""
    return f"{figure(interval['low'])} to {figure(interval['high'])}"


def duration(seconds: float | None) -> str:
    """Seconds for people: 0.8 s, 42 s, 1 m 12 s, 2 h 05 m, 3 d 4 h."""
    if seconds is None:
        return "–"
    if seconds < 9.95:
        return f"{max(seconds, 0):.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} m {whole % 60:02d} s"
    if whole < 86400:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} m"
    return f"{whole // 86400} d {whole % 86400 // 3600} h"


def number(value: Any) -> str:
    """A hyperparameter's value: four significant digits."""
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, float):
        return f"{value:.4g}"
    return name_of(value) if isinstance(value, str) else str(value)


def names_of_students(experiment: Mapping[str, Any]) -> str:
    """The student of an experiment's document, or all those that it chooses among."""
    space = experiment.get("space")
    entry = space.get("student") if isinstance(space, dict) else None
    choices = entry.get("choices") if isinstance(entry, dict) else None
    if not isinstance(choices, list):
        return name_of(experiment.get("student"))
    return ", ".join(name_of(choice) for choice in choices)


def name_of(section: Any) -> str:
    """The name in a section of an experiment."""
    name = section.get("name") if isinstance(section, dict) else section
    text = "" if name is None else str(name)
    return Path(text).name if ".py:" in text else text
