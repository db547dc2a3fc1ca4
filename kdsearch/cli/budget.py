"""`--budget 64trials,2h,40gpuh,2000000img`: trials, wall time, GPU hours, images seen, whichever ends first."""

from __future__ import annotations

import re

from kdsearch.errors import InvalidSetting

_PART = re.compile(r"(?P<amount>[0-9]{1,12}(\.[0-9]{1,12})?)\s*(?P<unit>[a-z]*)")
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
