"""Amounts with units.

`--budget 64trials,2h,40gpuh,2000000img`: trials, wall time, GPU hours, images seen, whichever ends first.
`--max-params 1e6` and `--max-latency 5ms`: what a student may cost.
"""

from __future__ import annotations

import re

from kdsearch.errors import InvalidSetting

_PART = re.compile(r"(?P<amount>[0-9]{1,12}(\.[0-9]{1,12})?)\s*(?P<unit>[a-z]*)")
_NUMBER = r"(?P<amount>[0-9]{1,15}(\.[0-9]{1,12})?(e[0-9]{1,2})?)\s*"
_PARAMETERS = re.compile(_NUMBER + r"(?P<unit>[km]?)")
_LATENCY = re.compile(_NUMBER + r"(?P<unit>us|µs|ms|s)")
_TIMES = {"": 1, "k": 1_000, "m": 1_000_000}
_OF_A_SECOND = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6}
_SECONDS = {"s": 1, "m": 60, "min": 60, "h": 3600, "d": 86400}


def parse_budget(text: str) -> dict[str, float | int]:
    """The search settings that a budget sets: `trials`, `time` in seconds, `gpu_hours`, `images`.

    Raises InvalidSetting.
    """
    found: dict[str, float | int] = {}
    for part in text.lower().split(","):
        match = _PART.fullmatch(part.strip())
        key, value = _setting(float(match["amount"]), match["unit"]) if match else ("", 0.0)
        if not key or value <= 0:
            why = (
                "give trials, wall time, GPU hours or images seen, such as 64trials, 90m, 2h, 40gpuh, 2000000img, or "
                "several with commas"
            )
            raise InvalidSetting("--budget", part.strip() or text, why)
        if key in found:
            raise InvalidSetting("--budget", text, "names the same limit twice")
        found[key] = value
    return found


def _setting(amount: float, unit: str) -> tuple[str, float | int]:
    for name, units in (("trials", ("", "trial", "trials")), ("images", ("img", "images"))):
        if unit in units:
            return (name, int(amount)) if amount.is_integer() else ("", 0)
    if unit in ("gpuh", "gpuhours"):
        return "gpu_hours", amount
    return ("time", amount * _SECONDS[unit]) if unit in _SECONDS else ("", 0)


def parse_parameters(text: str | None) -> int | None:
    """A number of parameters: `1000000`, `1_000_000`, `1e6`, `500k`, `1.5M`. Raises InvalidSetting."""
    if text is None:
        return None
    match = _PARAMETERS.fullmatch(text.strip().lower().replace("_", ""))
    amount = round(float(match["amount"]) * _TIMES[match["unit"]]) if match else 0
    if amount < 1 or amount >= 2**63:
        raise InvalidSetting("--max-params", text, "give a number of parameters, such as 1000000, 1e6, 500k or 1.5M")
    return amount


def parse_latency(text: str | None) -> float | None:
    """A time with its unit, in seconds: `5ms`, `800us`, `0.1s`. Raises InvalidSetting."""
    if text is None:
        return None
    match = _LATENCY.fullmatch(text.strip().lower())
    seconds = float(match["amount"]) * _OF_A_SECOND[match["unit"]] if match else 0.0
    if not 0 < seconds < float("inf"):
        raise InvalidSetting("--max-latency", text, "give a time with its unit, such as 5ms, 800us or 0.1s")
    return seconds
