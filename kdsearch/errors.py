"""Every error that a person can meet: one sentence that names the value and the mend.

The command line turns a `KDSearchError` into that sentence on standard error and its `exit_code`;
from Python it is an ordinary exception.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping

LONGEST = 80
"""Characters of a value that a sentence shows."""


class KDSearchError(Exception):
    """Base of every error that is meant to be read by a person."""

    exit_code = 1


class UserError(KDSearchError):
    """Something that was asked for cannot be: the person can mend it, nothing was written."""

    exit_code = 2


def shortened(text: str) -> str:
    """The first 80 characters of `text`."""
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"


class UnknownName(UserError):
    """A name that nothing answers to; says which names there are and which one was probably meant."""

    def __init__(self, kind: str, name: str, valid: Iterable[str], hint: str = "") -> None:
        choices = sorted(valid)
        nearest = difflib.get_close_matches(name, choices, n=1)
        message = f"unknown {kind} {shortened(name)!r}"
        if nearest:
            message += f"; did you mean {nearest[0]!r}?"
        if choices and len(choices) <= 40:
            message += f" (valid: {', '.join(choices)})"
        super().__init__(f"{message}{' ' + hint if hint else ''}")


class InvalidSetting(UserError):
    """A setting whose value cannot be used."""

    def __init__(self, key: str, value: object, why: str) -> None:
        super().__init__(f"{key} = {value!r}: {why}")


class BadData(UserError):
    """A data set that is missing, empty, unreadable or not what the task needs."""


class BadWeights(UserError):
    """Weights that are missing, truncated or do not fit the network (the message names the tensors)."""


class RunError(UserError):
    """A run that exists already, does not exist, or is in use."""


class StorageError(UserError):
    """A storage at a URL that cannot be reached, read or written."""


class StorageBehind(KDSearchError):
    """A storage at a URL that lacks some of a run. What is missing there is whole on this machine."""


class LeaseLost(KDSearchError):
    """Another process took over the run at a URL; this one writes nothing there any more."""


class SearchFailed(KDSearchError):
    """Every trial of a search failed; the message lists the reasons."""


class DiskFull(KDSearchError):
    """No room is left where a run is written. What was written before is whole, and the run can be resumed."""


class Diverged(KDSearchError):
    """A loss that is no longer finite: the step and the value of every term at that step."""

    def __init__(self, step: int, terms: Mapping[str, float]) -> None:
        values = ", ".join(f"{name} = {value:g}" for name, value in terms.items())
        super().__init__(
            f"the loss is not finite at step {step} ({values}); a lower learning rate or gradient_clip may help"
        )
        self.step = step
        self.terms = dict(terms)

    def __reduce__(self) -> tuple[type[Diverged], tuple[int, dict[str, float]]]:
        return type(self), (self.step, self.terms)
